"""Judging how databases and places stand: what is wrong, how badly, and what shows more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgstow.monitor.facts import Facts, RepositoryFacts
from pgstow.monitor.levels import Level, Reason, worst
from pgstow.monitor.recovery import is_of_place
from pgstow.monitor.standing import DatabaseStanding, KindStanding, age_s, standing_of
from pgstow.monitor.storage import Room, StorageFacts, room_of
from pgstow.monitor.words import duration_words, moment_words, size_words

__all__ = ["DatabaseVerdict", "Verdict", "judge", "judge_storage"]

_FAILED = ("failed", "partial", "interrupted", "abandoned", "missed")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseVerdict:
    """What is wrong with the backups of one database; nothing is when there are no reasons."""

    standing: DatabaseStanding
    reasons: tuple[Reason, ...]

    @property
    def name(self) -> str:
        return self.standing.database.name

    @property
    def level(self) -> Level:
        return worst(reason.level for reason in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Everything that was judged. ``reasons`` are those that concern no single database."""

    facts: Facts
    databases: tuple[DatabaseVerdict, ...]
    reasons: tuple[Reason, ...]
    max_age_s: float | None = None

    @property
    def all_reasons(self) -> list[tuple[str | None, Reason]]:
        """Every reason with its database, the worst first."""
        pairs: list[tuple[str | None, Reason]] = [(None, reason) for reason in self.reasons]
        pairs += [(each.name, reason) for each in self.databases for reason in each.reasons]
        return sorted(pairs, key=lambda pair: -pair[1].level.rank)

    @property
    def level(self) -> Level:
        return worst(reason.level for _, reason in self.all_reasons)


def judge(facts: Facts, *, max_age_s: float | None = None) -> Verdict:
    """Return what is wrong now. ``max_age_s`` is how old the newest whole backup of any database may be."""
    return Verdict(
        facts=facts,
        databases=tuple(
            DatabaseVerdict(standing=standing, reasons=tuple(_database_reasons(standing, facts, max_age_s)))
            for standing in (standing_of(facts, database) for database in facts.databases)
        ),
        reasons=tuple(_general_reasons(facts)),
        max_age_s=max_age_s,
    )


# -- what concerns no single database


def _general_reasons(facts: Facts) -> Iterator[Reason]:
    if not facts.databases and all(each.is_known for each in facts.repositories.values()):
        yield Reason(
            level=Level.CRITICAL, code="no_backup", text="there is no backup at all", look="pgstow list"
        )
    for repository in facts.repositories.values():
        yield from _repository_reasons(repository, facts)
    if facts.runs_error is not None:
        text = f"the history of runs is unknown: {facts.runs_error.message}"
        yield Reason(level=Level.UNKNOWN, code="history_unknown", text=text)
    if facts.has_channels and facts.alerts is None and facts.runs_error is None:
        text = "nobody has evaluated the alerts within a day: whatever is wrong, nobody is told"
        yield Reason(level=Level.WARNING, code="alerts_unknown", text=text, look="pgstow alerts check")
    for alert in facts.alerts or ():
        if alert.database is None:
            yield _alert_reason(alert.severity, alert.message)


def _repository_reasons(repository: RepositoryFacts, facts: Facts) -> Iterator[Reason]:
    if repository.error is not None:
        text = f"repository {repository.name} cannot be looked at: {repository.error.message}"
        look = f"pgstow list --repo {repository.name}"
        yield Reason(level=Level.UNKNOWN, code="repository_unknown", text=text, look=look)
    for message in repository.unreadable[:1]:
        more = f" (and {len(repository.unreadable) - 1} more)" if len(repository.unreadable) > 1 else ""
        text = f"repository {repository.name} holds a snapshot that cannot be read: {message}{more}"
        yield Reason(
            level=Level.UNKNOWN,
            code="snapshot_unreadable",
            text=text,
            look=f"pgstow repo repair --repo {repository.name} --dry-run",
        )
    if repository.storage_error is not None:
        text = f"how much room is left for repository {repository.name}: {repository.storage_error.message}"
        yield Reason(level=Level.UNKNOWN, code="storage_unknown", text=text)
    if repository.drills_error is not None:
        text = (
            f"drills recorded in repository {repository.name} are unknown: {repository.drills_error.message}"
        )
        look = f"pgstow drills list --repo {repository.name}"
        yield Reason(level=Level.UNKNOWN, code="drills_unknown", text=text, look=look)
    for storage in repository.storage:
        yield from judge_storage(storage, repository, facts)


def judge_storage(storage: StorageFacts, repository: RepositoryFacts, facts: Facts) -> Iterator[Reason]:
    """Yield a reason where room is low, or will be soon."""
    room = room_of(storage, facts.policy, facts.now)
    look = f"pgstow repo stats --repo {repository.name}"
    if room in (Room.LOW, Room.VERY_LOW):
        level = Level.CRITICAL if room is Room.VERY_LOW else Level.WARNING
        text = (
            f"{storage.where}: {size_words(storage.free_bytes or 0)} are free, {storage.free_share or 0:.1%}"
        )
        yield Reason(level=level, code="storage_low", text=text, look=look)
    elif room is Room.FULL_SOON and storage.forecast_full is not None:
        text = f"{storage.where}: full on {storage.forecast_full.at:%Y-%m-%d} as it grows now"
        yield Reason(level=Level.WARNING, code="storage_forecast", text=text, look=look)


def _alert_reason(severity: str, message: str) -> Reason:
    level = Level.CRITICAL if severity == "critical" else Level.WARNING
    return Reason(level=level, code="alert", text=f"open alert: {message}", look="pgstow alerts list")


# -- what concerns one


def _database_reasons(standing: DatabaseStanding, facts: Facts, max_age_s: float | None) -> Iterator[Reason]:
    yield from _age_reasons(standing, max_age_s)
    for kind in standing.kinds:
        if kind.plans:
            yield from _kind_reasons(kind, facts)
    yield from _table_reasons(standing)
    yield from _drill_reasons(standing, facts)
    yield from _rto_reasons(standing)
    for alert in standing.alerts or ():
        yield _alert_reason(alert.severity, alert.message)


def _age_reasons(standing: DatabaseStanding, max_age_s: float | None) -> Iterator[Reason]:
    name, look = standing.database.name, f"pgstow list --name {standing.database.name}"
    if standing.newest is None:
        text = f"there is no whole backup of {name}" + (
            "" if standing.is_known else ", as far as can be seen"
        )
        level = Level.CRITICAL if standing.is_known else Level.UNKNOWN
        yield Reason(level=level, code="no_backup", text=text, look=look)
    else:
        old_s = age_s(standing.newest, standing.now)
        if max_age_s is not None and old_s > max_age_s:
            text = f"the newest backup is {duration_words(old_s)} old, more than {duration_words(max_age_s)}"
            yield Reason(level=Level.CRITICAL, code="too_old", text=text, look=look)
    achieved_s, rpo_s = standing.achieved_rpo_s, standing.database.rpo_s
    if rpo_s is not None and achieved_s is not None and achieved_s > rpo_s:
        whose = " of the critical tables" if standing.database.critical else ""
        text = f"the newest backup{whose} is {duration_words(achieved_s)} old; the RPO is {duration_words(rpo_s)}"
        yield Reason(level=Level.CRITICAL, code="rpo", text=text, look=look)


def _kind_reasons(kind: KindStanding, facts: Facts) -> Iterator[Reason]:
    since = kind.expected_since
    if kind.is_missing and since is not None:
        text = f"the {kind.kind} backup of {moment_words(since)} is missing"
        if kind.newest is not None:
            text += f"; the newest is from {moment_words(kind.newest.time)}"
        yield Reason(
            level=Level.CRITICAL if kind.is_known else Level.UNKNOWN,
            code="missing",
            text=text if kind.is_known else f"{text}, as far as can be seen",
        )
    elif kind.last_attempt is not None and kind.last_attempt.outcome in _FAILED:
        run = kind.last_attempt
        why = f": {run.error}" if run.error else ""
        yield Reason(
            level=Level.WARNING,
            code="last_attempt",
            text=f"the last {kind.kind} backup ended {run.outcome}{why}",
        )
    for place in kind.destinations:
        lacking = [record for record in place.lacks or () if age_s(record, facts.now) > facts.policy.grace_s]
        if lacking:
            what = (
                f"{len(lacking)} {kind.kind} backups, the newest"
                if len(lacking) > 1
                else f"the {kind.kind} backup"
            )
            text = f"repository {place.repository} lacks {what} from {moment_words(lacking[-1].time)}"
            yield Reason(level=Level.WARNING, code="destination", text=text, look="pgstow repo copy")


def _table_reasons(standing: DatabaseStanding) -> Iterator[Reason]:
    rpo_s = standing.database.rpo_s
    for table in standing.tables:
        if table.is_missing:
            text = f"critical table {table.table} is not in the newest backup"
            yield Reason(level=Level.CRITICAL, code="critical_table", text=text)
        elif table.newest is None:
            if standing.newest is not None:
                text = f"whether critical table {table.table} is in a backup cannot be told"
                yield Reason(level=Level.UNKNOWN, code="critical_table_unknown", text=text)
        elif rpo_s is not None and (old_s := age_s(table.newest, standing.now)) > rpo_s:
            text = f"critical table {table.table} was last saved {duration_words(old_s)} ago; the RPO is {duration_words(rpo_s)}"
            yield Reason(level=Level.CRITICAL, code="table_rpo", text=text)


def _drill_reasons(standing: DatabaseStanding, facts: Facts) -> Iterator[Reason]:
    recovery, name = standing.recovery, standing.database.name
    for failed in recovery.failed:
        drill = failed.drill
        yield Reason(
            level=Level.WARNING if failed.is_of_place else Level.CRITICAL,
            code="drill_failed",
            text=f"the drill of the {drill.backup_kind} backup in {failed.repository} failed "
            f"{moment_words(drill.finished)}: {failed.reason}",
            look=f"pgstow drills show {drill.id[:8]} --repo {failed.repository}",
        )
    for run in recovery.unsaved:
        yield Reason(
            level=Level.WARNING
            if any(is_of_place(one.error_code) for one in run.destinations)
            else Level.CRITICAL,
            code="drill_failed",
            text=f"a planned drill failed {moment_words(run.finished or run.started)} on {run.host}, and its record could not be "
            f"saved: {run.error or 'it did not say why'}",
        )
    # Without plans nothing is known of what was promised; where drills could not be read that is told of the repository.
    if (
        facts.plans
        and recovery.is_known
        and standing.newest is not None
        and recovery.is_overdue(facts, standing.database)
    ):
        passed = recovery.last_passed
        last = f"the last was {moment_words(passed.finished)}" if passed else "none ever did"
        yield Reason(
            level=Level.WARNING,
            code="drill_missing",
            text=f"no backup has passed a drill within {duration_words(facts.policy.drill_within_s)}; {last}",
            look=f"pgstow drill --rotate --database {name}",
        )


def _rto_reasons(standing: DatabaseStanding) -> Iterator[Reason]:
    recovery, rto_s = standing.recovery, standing.database.rto_s
    achieved_s, forecast = recovery.achieved_rto_s, recovery.forecast
    if rto_s is None:
        return
    if achieved_s is not None and achieved_s > rto_s:
        text = f"the last drill took {duration_words(achieved_s)}; the RTO is {duration_words(rto_s)}"
        yield Reason(level=Level.CRITICAL, code="rto", text=text, look="pgstow drills show latest")
    elif forecast is not None and forecast.high_s > rto_s:
        text = (
            f"a restore is forecast to take {duration_words(forecast.seconds)}, at the worst "
            f"{duration_words(forecast.high_s)}; the RTO is {duration_words(rto_s)}"
        )
        yield Reason(level=Level.WARNING, code="rto_forecast", text=text)
