"""What Prometheus is told. docs/monitoring.md lists every metric.

Each is made anew from what is known, so that databases and repositories that are gone vanish. Labels hold names that are
few and stay; never ids of backups. Moments are timestamps, so that they stay true however old the reading is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from pgstow.catalog.backups import BackupRecord
from pgstow.monitor.drill_metrics import drill_families
from pgstow.monitor.facts import Facts
from pgstow.monitor.gauges import add_moment, gauge
from pgstow.monitor.levels import Level
from pgstow.monitor.standing import DatabaseStanding, KindStanding
from pgstow.monitor.verdict import Verdict

__all__ = ["metric_families", "metrics_text"]

_RECENT = timedelta(hours=24)


class _Given(Collector):
    """Families that were made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_text(families: Iterable[Metric]) -> bytes:
    """Return families in the text format of Prometheus, escaped as it asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    return generate_latest(registry)


def metric_families(verdict: Verdict, *, version: str, collect_seconds: float) -> list[Metric]:
    """Return every metric there is; a family stays without samples where nothing is known."""
    standings = [each.standing for each in verdict.databases]
    return [
        *_of_kinds(standings),
        *_of_databases(verdict, standings),
        *_of_tables(standings),
        *drill_families(verdict.facts, standings),
        *_of_repositories(verdict.facts),
        *_of_storage(verdict.facts),
        *_of_runs(verdict.facts),
        *_of_alerts(verdict.facts),
        *_of_ourselves(verdict.facts, version, collect_seconds),
    ]


# -- backups


def _of_kinds(standings: Iterable[DatabaseStanding]) -> Iterator[Metric]:
    last = gauge(
        *(
            "backup_last_success_timestamp_seconds",
            "Moment that the newest sound backup in a repository shows.",
        ),
        *("database", "kind", "repository"),
    )
    lacking = gauge(
        *("backup_lacking", "How many of the seven newest backups of a kind a repository lacks."),
        *("database", "kind", "repository"),
    )
    expected = gauge(
        *("backup_expected_timestamp_seconds", "A backup as new as this or newer should be there by now."),
        *("database", "kind"),
    )
    due = gauge("backup_next_due_timestamp_seconds", "When the next one is planned.", "database", "kind")
    newest = _NewestGauges()
    for standing in standings:
        for kind in standing.kinds:
            labels = [standing.database.name, kind.kind]
            add_moment(expected, labels, kind.expected_since)
            add_moment(due, labels, kind.next_due)
            newest.add(labels, kind)
            for place in kind.destinations:
                add_moment(last, [*labels, place.repository], place.newest.time if place.newest else None)
                if place.lacks is not None:
                    lacking.add_metric([*labels, place.repository], len(place.lacks))
    yield from (last, lacking, expected, due, *newest.families)


class _NewestGauges:
    """What is told of the newest backup of each kind."""

    def __init__(self) -> None:
        labels = ("database", "kind")
        self.size = gauge("backup_size_bytes", "Plain size of the newest backup.", *labels)
        self.stored = gauge("backup_stored_bytes", "What the newest backup added to its repository.", *labels)
        self.duration = gauge("backup_duration_seconds", "How long the newest backup took.", *labels)
        self.families = (self.size, self.stored, self.duration)

    def add(self, labels: list[str], kind: KindStanding) -> None:
        record = kind.newest
        if record is None:
            return
        if record.size_bytes is not None:
            self.size.add_metric(labels, record.size_bytes)
        if record.stored_bytes is not None:
            self.stored.add_metric(labels, record.stored_bytes)
        if (seconds := _duration_s(record)) is not None:
            self.duration.add_metric(labels, seconds)


def _duration_s(record: BackupRecord) -> float | None:
    summary = record.snapshot.summary
    return None if summary is None else max((summary.backup_end - summary.backup_start).total_seconds(), 0.0)


def _of_databases(verdict: Verdict, standings: Iterable[DatabaseStanding]) -> Iterator[Metric]:
    newest = gauge(
        "newest_backup_timestamp_seconds",
        "Moment that the newest whole backup shows, wherever it is.",
        "database",
    )
    achieved = gauge(
        "rpo_achieved_seconds", "Work that a loss at the time of collection would have undone.", "database"
    )
    target = gauge("rpo_target_seconds", "The RPO that the settings ask for.", "database")
    gap = gauge("longest_gap_seconds", "Longest time without a backup in the last 30 days.", "database")
    rows = gauge(
        "backup_rows", "Rows of the newest whole backup, by how they came into it.", "database", "how"
    )
    status = gauge("database_status", "1 for the state a database is in, else 0.", "database", "level")
    for standing in standings:
        name = standing.database.name
        add_moment(newest, [name], standing.newest.time if standing.newest else None)
        for family, value in (
            (achieved, standing.achieved_rpo_s),
            (target, standing.database.rpo_s),
            (gap, standing.longest_gap_s),
        ):
            if value is not None:
                family.add_metric([name], value)
        tables = verdict.facts.contents.get(standing.newest.id) if standing.newest else None
        if tables is not None:
            reused = sum(table.reused_rows for table in tables.values())
            rows.add_metric([name, "reused"], reused)
            rows.add_metric([name, "read"], sum(table.rows for table in tables.values()) - reused)
    for each in verdict.databases:
        for level in Level:
            status.add_metric([each.name, level.value], float(each.level is level))
    yield from (newest, achieved, target, gap, rows, status)


def _of_tables(standings: Iterable[DatabaseStanding]) -> Iterator[Metric]:
    saved = gauge(
        *(
            "critical_table_last_saved_timestamp_seconds",
            "Moment that the newest backup with a critical table shows.",
        ),
        *("database", "table"),
    )
    row = gauge(
        *(
            "critical_table_newest_row_timestamp_seconds",
            "Newest value of the time column of a critical table in that backup, where the column has a time zone.",
        ),
        *("database", "table"),
    )
    missing = gauge(
        *(
            "critical_table_missing",
            "1 where the newest whole backup lacks a critical table, 0 where it has it.",
        ),
        *("database", "table"),
    )
    for standing in standings:
        for table in standing.tables:
            labels = [standing.database.name, table.table]
            add_moment(saved, labels, table.newest.time if table.newest else None)
            if table.newest_row is not None and table.newest_row.has_zone:
                add_moment(row, labels, table.newest_row.at)
            if table.is_missing is not None:
                missing.add_metric(labels, float(table.is_missing))
    yield from (saved, row, missing)


# -- places


def _of_repositories(facts: Facts) -> Iterator[Metric]:
    up = gauge("repository_up", "1 where a repository could be opened and listed, else 0.", "repository")
    unreadable = gauge("repository_unreadable_snapshots", "Snapshots that cannot be read.", "repository")
    backups = gauge("repository_backups", "Backups in a repository.", "repository", "database", "kind")
    for repository in facts.repositories.values():
        up.add_metric([repository.name], float(repository.backups is not None))
        if repository.backups is None:
            continue
        unreadable.add_metric([repository.name], len(repository.unreadable))
        counts: dict[tuple[str, str], int] = {}
        for record in repository.backups:
            counts[record.name, record.kind] = counts.get((record.name, record.kind), 0) + 1
        for (database, kind), count in sorted(counts.items()):
            backups.add_metric([repository.name, database, kind], count)
    yield from (up, unreadable, backups)


def _of_storage(facts: Facts) -> Iterator[Metric]:
    labels = ("repository", "where")
    used = gauge("storage_used_bytes", "Bytes in use on a disk, or by a repository.", *labels)
    free = gauge("storage_free_bytes", "Bytes that are left on a disk, or of a quota.", *labels)
    total = gauge("storage_size_bytes", "Size of a disk, or a quota.", *labels)
    growth = gauge("storage_growth_per_day_bytes", "Growth of what is used, in bytes a day.", *labels)
    full = gauge(
        "storage_full_timestamp_seconds", "When nothing will be left, if use grows as it did.", *labels
    )
    for repository in facts.repositories.values():
        for each in repository.storage:
            place = [repository.name, each.where]
            for family, value in (
                (used, each.used_bytes),
                (free, each.free_bytes),
                (total, each.total_bytes),
            ):
                if value is not None:
                    family.add_metric(place, value)
            if each.growth is not None:
                growth.add_metric(place, each.growth.per_day)
            add_moment(full, place, each.forecast_full.at if each.forecast_full else None)
    yield from (used, free, total, growth, full)


# -- what the state database knows


def _of_runs(facts: Facts) -> Iterator[Metric]:
    labels = ("database", "task", "kind", "outcome")  # job is a label of Prometheus's own
    last = gauge("run_last_timestamp_seconds", "When the last run that ended so was begun.", *labels)
    recent = gauge("runs_last_day", "Runs that were begun within the last 24 hours.", *labels)
    verified = gauge(
        "backup_last_verified_timestamp_seconds",
        "When a repository was last verified and sound.",
        "repository",
    )
    newest: dict[tuple[str, ...], datetime] = {}
    counts: dict[tuple[str, ...], int] = {}
    sound: dict[str, datetime] = {}
    for run in facts.runs or ():
        key: tuple[str, ...] = (run.database or "", run.job, run.kind, run.outcome)
        newest[key] = max(newest.get(key, run.started), run.started)
        counts[key] = counts.get(key, 0) + (facts.now - run.started <= _RECENT)
        if run.job == "verify":
            for place in run.destinations:
                if place.error_code is None and place.error is None and run.outcome in ("done", "partial"):
                    ended = run.finished or run.started
                    sound[place.repository] = max(sound.get(place.repository, ended), ended)
    for labeled in sorted(newest):
        add_moment(last, list(labeled), newest[labeled])
        recent.add_metric(list(labeled), counts[labeled])
    for name, moment in sorted(sound.items()):
        add_moment(verified, [name], moment)
    yield from (last, recent, verified)


def _of_alerts(facts: Facts) -> Iterator[Metric]:
    known = gauge("alerts_up", "1 where somebody evaluated the alerts within a day, else 0.")
    known.add_metric([], float(facts.alerts is not None))
    yield known
    family = gauge("open_alerts", "Alerts that are open.", "database", "rule", "severity")
    counts: dict[tuple[str, str, str], int] = {}
    for alert in facts.alerts or ():
        key = (alert.database or "", alert.rule, alert.severity)
        counts[key] = counts.get(key, 0) + 1
    for key, count in sorted(counts.items()):
        family.add_metric(list(key), count)
    yield family


def _of_ourselves(facts: Facts, version: str, collect_seconds: float) -> Iterator[Metric]:
    history = gauge("history_up", "1 where the history of runs could be read, else 0.")
    history.add_metric([], float(facts.runs is not None))
    when = gauge("collect_timestamp_seconds", "When all this was looked at.")
    add_moment(when, [], facts.now)
    took = gauge("collect_duration_seconds", "How long it took to look.")
    took.add_metric([], collect_seconds)
    build = gauge("build_info", "Always 1; the version of pgstow.", "version")
    build.add_metric([version], 1)
    yield from (history, when, took, build)
