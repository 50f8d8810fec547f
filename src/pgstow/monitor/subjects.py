"""What an alert is about: which names of the settings stand in its subject."""

from __future__ import annotations

__all__ = ["database_of", "names_in"]

_OF_REPOSITORIES = frozenset(
    ("repository_unreachable", "snapshots_unreadable", "storage_unknown", "verify_overdue")
)
_OF_PLANS = frozenset(
    ("ping_failed", "retention_failed", "retention_missing", "verify_failed", "verify_missing")
)
_OF_CHANNELS = frozenset(("canary_unacknowledged", "channel_failed"))
_OF_PLACES = frozenset(("clock_skew", "history_unreadable", "storage_low"))
_REPOSITORY = "repository "


def names_in(rule: str, subject: str) -> tuple[str, ...]:
    """Return the names in a subject as ``database NAME``, ``repository NAME``, ``plan NAME`` or ``channel NAME``.

    What is about a host, a disk or the state database names nothing of the settings.
    """
    if rule in _OF_PLACES:
        return (subject,) if subject.startswith(_REPOSITORY) else ()
    if rule in _OF_REPOSITORIES:
        return (f"{_REPOSITORY}{subject}",)
    if rule in _OF_PLANS:
        return (f"plan {subject}",)
    if rule in _OF_CHANNELS:
        return (f"channel {subject}",)
    place, at, repository = subject.rpartition("@")
    database = (place if at else subject).partition("/")[0]
    return (f"database {database}", f"{_REPOSITORY}{repository}") if at else (f"database {database}",)


def database_of(rule: str, subject: str) -> str | None:
    """Return the database that an alert is about; None where it is about something else."""
    kind, _, name = next(iter(names_in(rule, subject)), "").partition(" ")
    return name if kind == "database" else None
