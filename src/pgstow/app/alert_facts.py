"""Gathering what the rules of alerts judge: the facts about backups, and how people were reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from pgstow.app.observation import CLOCKS_APART, History, KnownDrills, observe
from pgstow.config.settings import Settings
from pgstow.monitor.facts import Facts, PlanFacts, TableSize
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.monitor.rules import ChannelFacts, PingFacts, TellingFacts
from pgstow.monitor.rules.backups import newest_that_must_hold
from pgstow.state.alerts import AlertBook

__all__ = ["alert_facts", "alert_policy", "channel_target", "ping_target", "telling_facts", "watched_names"]

_EVERYBODY = "everybody"


def alert_policy(settings: Settings) -> AlertPolicy:
    """Return the policy; without contacts whoever reads any of the channels is told."""
    if settings.alerts.contacts or not settings.channels:
        return settings.alerts
    return replace(settings.alerts, contacts=(Contact(name=_EVERYBODY, channels=tuple(settings.channels)),))


def alert_facts(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    *,
    now: datetime,
    note: Callable[[str], None],
    drills: KnownDrills | None = None,
) -> Facts:
    """Return the facts of now.

    What is in the newest backups is taken from the history as far as it says that nothing critical is missing; only
    otherwise the backups themselves are read, which needs the index of a repository.
    """
    facts = observe(settings, environ, history, now=now, drills=drills, note=note)
    return replace(facts, contents=_contents(settings, environ, history, facts, note))


def _contents(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    facts: Facts,
    note: Callable[[str], None],
) -> Mapping[str, Mapping[str, TableSize]]:
    wanted = {record.id for record, _, _ in newest_that_must_hold(facts)}
    by_backup = {
        run.backup_id: {
            name: TableSize(rows=rows, size_bytes=size) for name, (rows, size) in run.tables.items()
        }
        for run in facts.runs or ()
        if run.backup_id is not None and run.backup_id in wanted and run.tables
    }
    supposed = replace(facts, contents=by_backup)
    doubtful = {record.name for record, _, lacking in newest_that_must_hold(supposed) if lacking != []}
    if not doubtful:
        return by_backup
    read = observe(
        settings,
        environ,
        history,
        now=facts.now,
        databases=sorted(doubtful),
        with_contents=True,
        with_storage=False,
        with_drills=False,
        note=note,
    )
    # Of a database that was looked at, only what was seen counts: the history knows no partitioned roots.
    seen = {record.id for record, _, _ in newest_that_must_hold(facts) if record.name in doubtful}
    return {key: value for key, value in by_backup.items() if key not in seen} | dict(read.contents)


def watched_names(settings: Settings, plans: Iterable[PlanFacts]) -> frozenset[str]:
    """Return what the settings name and plan, as alerts are about it."""
    named = {
        "database": settings.databases,
        "repository": settings.repositories,
        "plan": settings.plans,
        "channel": settings.channels,
    }
    planned = {
        f"planned {plan.database}/{plan.kind}@{repository}"
        for plan in plans
        if plan.job == "backup" and plan.expected_since is not None
        for repository in plan.repositories
    }
    return frozenset(f"{what} {name}" for what, names in named.items() for name in names) | planned


def channel_target(name: str) -> str:
    """Return the name under which it is remembered how a channel was reached."""
    return f"channel {name}"


def ping_target(plan: str) -> str:
    """Return the name under which it is remembered how the dead man's switch of a plan was reached."""
    return f"ping {plan}"


def telling_facts(settings: Settings, book: AlertBook, *, now: datetime) -> TellingFacts:
    """Return how channels, test messages and dead man's switches did."""
    channels = {channel_target(name): name for name in settings.channels}
    pings = {ping_target(name): name for name, plan in settings.plans.items() if plan.ping is not None}
    reaches = book.reaches([*channels, *pings], now=now)
    canaries = book.canaries()

    def channel(target: str, name: str) -> ChannelFacts:
        mine = [each for each in canaries if each.channel == name and each.sent <= now + CLOCKS_APART]
        return ChannelFacts(
            name=name,
            known_since=reaches[target].known_since,
            failed=reaches[target].failed,
            error=reaches[target].error,
            canary_sent=max((each.sent for each in mine), default=None),
            canary_acknowledged=max(
                (min(each.acknowledged, now) for each in mine if each.acknowledged), default=None
            ),
        )

    return TellingFacts(
        now=now,
        policy=settings.alerts,
        channels=tuple(channel(target, name) for target, name in channels.items()),
        pings=tuple(
            PingFacts(plan=name, failed=reaches[target].failed, error=reaches[target].error)
            for target, name in pings.items()
        ),
    )
