"""The use case: how the databases of the settings, or those in one repository, stand now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pgstow.app.looking import Look
from pgstow.app.observation import History, Place, observe_place
from pgstow.monitor.facts import DatabaseFacts, Facts
from pgstow.monitor.standing import known_databases
from pgstow.monitor.verdict import Verdict, judge

__all__ = ["repository_status", "settings_status"]


def settings_status(look: Look, *, max_age_s: float | None) -> Verdict:
    """Return how the databases of the settings stand. UsageError for a name that these do not have."""
    has_critical = any(each.critical for each in look.settings.databases.values())
    with look.facts(with_contents=has_critical) as (_, facts):
        return judge(facts, max_age_s=max_age_s)


def repository_status(
    place: Place,
    *,
    now: datetime,
    databases: Sequence[str],
    max_age_s: float | None,
    note: Callable[[str], None],
) -> Verdict:
    """Return how the databases stand that one repository has backups of, or those named; nothing is known of plans."""
    repository = observe_place(place, History(), now=now, note=note)
    names = databases or known_databases([repository])
    facts = Facts(
        now=now,
        databases=tuple(DatabaseFacts(name=name) for name in names),
        repositories={repository.name: repository},
        plans=(),
    )
    return judge(facts, max_age_s=max_age_s)
