"""The use case: look at everything a checklist asks for, and judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from pgstow.app.looking import Look
from pgstow.app.observation import History
from pgstow.app.opening import open_repository
from pgstow.app.plan_retention import newest_attempts
from pgstow.app.retention import RetentionRequest, plan_retention_only
from pgstow.config.connections import credentials_of
from pgstow.config.settings import RepositorySettings, Settings
from pgstow.core.errors import Interrupted, PgstowError, StateError
from pgstow.core.progress import SilentProgress
from pgstow.monitor.checklists import Canary, Checklist, ChecklistFacts, Period, checklist
from pgstow.monitor.verdict import judge
from pgstow.retention import RetentionPolicies

__all__ = ["overdue_backups", "run_checklist"]

_EXPIRY_TAKES = timedelta(days=2)  # what went out of time since may be waiting for the next run of retention


def run_checklist(period: Period, look: Look) -> Checklist:
    """Return a checklist of the databases of the settings. UsageError for a name that these do not have."""
    settings, overdue = look.settings, None
    wanted = look.facts(with_contents=period is not Period.WEEKLY, with_upkeep=period is not Period.DAILY)
    with wanted as (history, facts):
        canary = _canary(history)
        if period is Period.MONTHLY:
            known = [
                settings.repositories[name] for name, each in facts.repositories.items() if each.is_known
            ]
            overdue = overdue_backups(
                known, settings, history, look.environ, look.now, look.note, look.conceal
            )
    return checklist(
        period,
        ChecklistFacts(
            verdict=judge(facts),
            contacts=tuple(contact.name for contact in settings.alerts.contacts),
            promotes=settings.retention.promotes,
            canary=canary,
            overdue=overdue,
        ),
    )


def overdue_backups(
    repositories: Sequence[RepositorySettings],
    settings: Settings,
    history: History,
    environ: Mapping[str, str],
    now: datetime,
    note: Callable[[str], None],
    conceal: Callable[[str], None],
) -> dict[str, int]:
    """Return how many backups of each repository should have expired days ago; a repository that cannot be asked is left out."""
    latest = now.date() - _EXPIRY_TAKES
    counts = {}
    for repository in repositories:
        try:
            password, own = credentials_of(repository, environ, conceal)
            opened = open_repository(repository.location, password, own, on_retry=note, is_cached=True)
            request = RetentionRequest(
                policy=RetentionPolicies(default=settings.retention),
                history=partial(newest_attempts, settings, history.state, repository=repository.name),
            )
            plan = plan_retention_only(opened, request, SilentProgress())
        except Interrupted:
            raise
        except PgstowError as exc:
            note(f"repository {repository.name}: what should have expired is unknown: {exc.message}")
            continue
        counts[repository.name] = sum(
            all(reason.until is not None and reason.until < latest for reason in decision.reasons)
            for decision in plan.dropped
        )
    return counts


def _canary(history: History) -> Canary | None:
    try:
        if history.alerts is None:
            return None
        return Canary(acknowledged=history.alerts.last_acknowledged())
    except StateError:
        return None
