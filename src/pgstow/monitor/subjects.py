"""What an alert is about: what of the settings stands in its subject."""

from __future__ import annotations

__all__ = ["database_of", "names_in"]

_OF_REPOSITORIES = frozenset(
    ("repository_unreachable", "snapshots_unreadable", "storage_unknown", "verify_overdue")
)
_OF_PLANS = frozenset(
    ("ping_failed", "retention_failed", "retention_missing", "verify_failed", "verify_missing")
)
_OF_CHANNELS = frozenset(("canary_unacknowledged", "channel_failed"))
_OF_DRILLS = frozenset(("drill_failed", "drill_missing"))
_OF_TABLES = frozenset(("table_rpo_exceeded",))  # whose names may hold any sign
_OF_PLACES = frozenset(("clock_skew", "history_unreadable", "storage_low"))
_REPOSITORY = "repository "


def names_in(rule: str, subject: str) -> tuple[str, ...]:
    """Return the names in a subject as ``database NAME``, ``repository NAME``, ``plan NAME`` or ``channel NAME``.

    A backup that is missing is one of a plan that wants it there: ``planned DATABASE/KIND@REPOSITORY``. What is about a host, a disk or the state database names nothing of the settings.
    """
    if rule in _OF_PLACES:
        return (subject,) if subject.startswith(_REPOSITORY) else ()
    if rule in _OF_REPOSITORIES:
        return (f"{_REPOSITORY}{subject}",)
    if rule in _OF_PLANS:
        return (f"plan {subject}",)
    if rule in _OF_CHANNELS:
        return (f"channel {subject}",)
    database, _, rest = subject.partition("/")
    _, at, repository = subject.rpartition("@")
    named: tuple[str, ...] = (f"database {database.partition('@')[0]}",)
    if rule in _OF_TABLES:
        return named
    if rule in _OF_DRILLS and rest and not at:
        return (*named, f"plan {rest}")
    if rule == "backup_missing":
        named = (*named, f"planned {subject}")
    return (*named, f"{_REPOSITORY}{repository}") if at else named


def database_of(rule: str, subject: str) -> str | None:
    """Return the database that an alert is about; None where it is about something else."""
    kind, _, name = next(iter(names_in(rule, subject)), "").partition(" ")
    return name if kind == "database" else None
