"""The use case: how the databases of the settings, or those in one repository, stand now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from pgstow.app.observation import History, Place, observe, observe_place, opened_history
from pgstow.config.settings import Settings
from pgstow.core.errors import UsageError
from pgstow.monitor.facts import DatabaseFacts, Facts
from pgstow.monitor.standing import known_databases
from pgstow.monitor.verdict import Verdict, judge

__all__ = ["refuse_unknown_databases", "repository_status", "settings_status"]


def settings_status(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    now: datetime,
    databases: Sequence[str],
    max_age_s: float | None,
    note: Callable[[str], None],
    conceal: Callable[[str], None],
) -> Verdict:
    """Return how the databases of the settings stand; those named, or all."""
    refuse_unknown_databases(settings, databases)
    with opened_history(settings, environ) as history:
        facts = observe(
            settings,
            environ,
            history,
            now=now,
            databases=databases,
            with_contents=any(each.critical for each in settings.databases.values()),
            note=note,
            conceal=conceal,
        )
    return judge(facts, max_age_s=max_age_s)


def refuse_unknown_databases(settings: Settings, databases: Sequence[str]) -> None:
    """Raise UsageError for a name that the settings do not have: silence about it would look like health."""
    unknown = [name for name in databases if name not in settings.databases]
    if unknown:
        raise UsageError(
            f"the settings have no database called {', '.join(unknown)}",
            hint=f"there are: {', '.join(settings.databases)}",
        )


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
