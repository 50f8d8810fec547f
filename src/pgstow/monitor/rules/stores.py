"""Rules about repositories: reachable, readable, with room left, complete beside each other, at the right time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pgstow.catalog.backups import BackupRecord
from pgstow.core.errors import NoRepository
from pgstow.monitor.facts import Facts, PlanFacts, RepositoryFacts
from pgstow.monitor.findings import Finding, Severity, fingerprint
from pgstow.monitor.rules.common import (
    Judgement,
    everything_of,
    lasting,
    moment,
    names,
    newest_in,
    size,
    some,
)
from pgstow.monitor.storage import Room, StorageFacts, room_of

__all__ = ["CATCH_UP", "catch_up_pending", "clock_skew", "repository_unreachable", "storage_low"]

_FUTURE = timedelta(minutes=5)
# How the warning of a run begins that could not bring a repository what it had missed; its name and a colon follow.
CATCH_UP = "catch-up: "
# How the warning of a run begins whose machine's clock is off: with the code, or in the manifest's words alone.
_CLOCK = ("clock: ", "this machine's clock is ")


def repository_unreachable(facts: Facts) -> Judgement:
    """A repository cannot be opened, or some of its snapshots cannot be read."""
    for repository in facts.repositories.values():
        if repository.backups is None:
            yield fingerprint("snapshots_unreadable", repository.name)
            yield _unreachable(repository)
        elif repository.unreadable:
            yield Finding(
                rule="snapshots_unreadable",
                subject=repository.name,
                severity=Severity.CRITICAL,
                message=f"{some(len(repository.unreadable), 'snapshot')} of {repository.name} cannot be read: which "
                f"backups these are cannot be told ({repository.unreadable[0]})",
                hint="pgstow repo check says what is damaged, pgstow repo repair what can be kept",
                extent=len(repository.unreadable),
            )


def _unreachable(repository: RepositoryFacts) -> Finding:
    error = repository.error
    why = error.message if error is not None else "it was not looked at"
    return Finding(
        rule="repository_unreachable",
        subject=repository.name,
        severity=Severity.CRITICAL,
        message=f"the repository {repository.name} at {repository.location} cannot be read, so whether its backups are "
        f"there cannot be told: {why}",
        hint=_remedy(repository),
        facts={"error_code": error.code if error is not None else None},
    )


def _remedy(repository: RepositoryFacts) -> str:
    error = repository.error
    if isinstance(error, NoRepository):
        # Where a disk is not mounted, or a location mistyped, a new repository would only hide that.
        return (
            "look whether its disk is mounted and its location is right; only if there never was one, "
            f"pgstow init --repo {repository.name} makes it"
        )
    return (
        (error.hint if error is not None else None)
        or f"pgstow list --repo {repository.name} tries the same by hand; look at the store, its network and its credentials"
    )


def storage_low(facts: Facts) -> Judgement:
    """Little room is left, or at the present growth soon will be; or how much cannot be told."""
    for repository in facts.repositories.values():
        cause = (fingerprint("repository_unreachable", repository.name),)
        if repository.backups is None or repository.storage_error is not None:
            yield everything_of("storage_low")
        if repository.storage_error is not None:
            yield Finding(
                rule="storage_unknown",
                subject=repository.name,
                severity=Severity.WARNING,
                message=f"how much room is left in {repository.name} cannot be told: "
                f"{repository.storage_error.message}",
                hint="look whether the store can be listed",
                inhibited_by=cause,
            )
        for storage in repository.storage:
            yield from _storage(facts, storage)


def _storage(facts: Facts, storage: StorageFacts) -> Judgement:
    share, forecast = storage.free_share, storage.forecast_full
    room = room_of(storage, facts.policy, facts.now)
    if share is None or room in (Room.UNKNOWN, Room.ENOUGH):
        return
    until = f"; at the present growth it is full on {forecast.at:%Y-%m-%d}" if forecast is not None else ""
    yield Finding(
        rule="storage_low",
        subject=storage.where,
        severity=Severity.CRITICAL if room is Room.VERY_LOW else Severity.WARNING,
        message=f"{size(storage.free_bytes or 0)} of {size(storage.total_bytes or 0)} are free ({share:.0%}) at "
        f"{storage.where}{until}",
        hint="make room, raise the quota, or keep fewer backups: pgstow retention plan, then pgstow repo prune",
        facts={"free_bytes": storage.free_bytes, "total_bytes": storage.total_bytes},
    )


def catch_up_pending(facts: Facts) -> Judgement:
    """A repository has lacked the newest backup of another one for too long, or could not be brought older ones."""
    latest = facts.now - timedelta(seconds=facts.policy.catch_up_s)
    for database in facts.databases:
        for plan in facts.plans_of(database.name):
            for name in plan.repositories:
                target = facts.repositories.get(name)
                if not all(
                    (each := facts.repositories.get(one)) and each.is_known for one in plan.repositories
                ):
                    yield fingerprint("catch_up_pending", f"{database.name}/{plan.kind}@{name}")
                if target is None or target.backups is None:
                    continue
                present = {record.id for record in target.backups_of(database.name, plan.kind)}
                ahead = [
                    record
                    for record in _elsewhere(facts, plan.repositories, database.name, plan.kind)
                    if record.time <= latest and record.id not in present
                ]
                newest = newest_in(target, database.name, plan.kind)
                ahead = [record for record in ahead if newest is None or record.time > newest.time]
                if ahead:
                    yield _lacks(name, ahead, database.name, plan.kind)
                elif said := _not_caught_up(facts, plan, name):
                    yield said


def _not_caught_up(facts: Facts, plan: PlanFacts, repository: str) -> Finding | str | None:
    """Return what the newest run that made a backup says of older ones which it could not bring to a repository."""
    subject = f"{plan.database}/{plan.kind}@{repository}"
    if facts.runs is None:
        return fingerprint("catch_up_pending", subject)
    beginning = f"{CATCH_UP}{repository}: "
    made = (
        run
        for run in facts.runs
        if (run.plan, run.database) == (plan.plan, plan.database) and run.outcome in ("done", "partial")
    )
    newest = next(made, None)
    said = (
        [text.removeprefix(beginning) for text in newest.warnings if text.startswith(beginning)]
        if newest
        else []
    )
    if newest is None or not said:
        return None
    return Finding(
        rule="catch_up_pending",
        subject=subject,
        severity=Severity.WARNING,
        message=f"{repository} lacks earlier backups of {plan.database} that another repository has, and could not be "
        f"brought them: {said[0]}",
        hint="the next run tries again; pgstow repo copy --to brings them there now",
        since=newest.finished or newest.started,
        inhibited_by=(fingerprint("repository_unreachable", repository),),
    )


def _elsewhere(
    facts: Facts, repositories: tuple[str, ...], database: str, kind: str
) -> Iterator[BackupRecord]:
    for name in repositories:
        known = facts.repositories.get(name)
        for record in known.backups_of(database, kind) if known is not None else ():
            if not record.is_damaged:
                yield record


def _lacks(repository: str, ahead: list[BackupRecord], database: str, kind: str) -> Finding:
    lacking = {record.id: record for record in ahead}
    oldest = min(lacking.values(), key=lambda record: record.time)
    return Finding(
        rule="catch_up_pending",
        subject=f"{database}/{kind}@{repository}",
        severity=Severity.WARNING,
        message=f"{repository} lacks {some(len(lacking), f'{kind} backup')} of {database} that another repository has, "
        f"since {moment(oldest.time)}: {names([record.short_id for record in lacking.values()])}",
        hint="pgstow repo copy --to brings them there",
        since=oldest.time,
        inhibited_by=(fingerprint("repository_unreachable", repository),),
    )


def clock_skew(facts: Facts) -> Judgement:
    """A backup is from the future, or the newest run saw its machine's clock far from the store's."""
    for repository in facts.repositories.values():
        future = [record for record in repository.backups or () if record.time > facts.now + _FUTURE]
        if repository.backups is None:
            yield fingerprint("clock_skew", f"repository {repository.name}")
        elif future:
            ahead_s = (max(record.time for record in future) - facts.now).total_seconds()
            yield Finding(
                rule="clock_skew",
                subject=f"repository {repository.name}",
                severity=Severity.WARNING,
                message=f"{some(len(future), 'backup')} in {repository.name} are from the future, by up to "
                f"{lasting(ahead_s)}: a clock is wrong, and newer backups may be taken for older ones",
                hint="set the clocks of all machines by NTP; nothing expires meanwhile",
                facts={"backups": [record.id for record in future][:20]},
            )
    yield from _of_hosts(facts)


def _of_hosts(facts: Facts) -> Judgement:
    if facts.runs is None:
        yield everything_of("clock_skew", "host ")
    seen = {run.host for run in facts.runs_ahead}
    for host in sorted(seen):
        yield _of_runs_ahead(host, facts)
    for run in facts.runs or ():
        if run.outcome in ("running", "missed") or run.host in seen:
            continue
        seen.add(run.host)
        said = [text for text in run.warnings if text.startswith(_CLOCK)]
        if said:
            yield Finding(
                rule="clock_skew",
                subject=f"host {run.host}",
                severity=Severity.WARNING,
                message=f"{run.host}: {said[0].removeprefix(_CLOCK[0])}",
                hint="set the clock by NTP",
                since=run.started,
            )


def _of_runs_ahead(host: str, facts: Facts) -> Finding:
    ahead = [run for run in facts.runs_ahead if run.host == host]
    ahead_s = (max(run.started for run in ahead) - facts.now).total_seconds()
    return Finding(
        rule="clock_skew",
        subject=f"host {host}",
        severity=Severity.WARNING,
        message=f"{some(len(ahead), 'run')} of {host} began in times to come, by up to {lasting(ahead_s)}: its clock was wrong, "
        "and how these ended is left out until then",
        hint="set the clock by NTP; what these runs made is in the repositories, and judged there",
        facts={"runs": [run.id for run in ahead][:20]},
    )
