"""What Prometheus is told of drills: when one last passed, how long a restore took, and how long the next one will take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric

from pgstow.monitor.facts import Facts
from pgstow.monitor.gauges import add_moment, gauge
from pgstow.monitor.standing import DatabaseStanding

__all__ = ["drill_families"]


def drill_families(facts: Facts, standings: Iterable[DatabaseStanding]) -> Iterator[Metric]:
    """Yield what is told of drills, and of the RTO."""
    places = ("database", "repository")
    passed = gauge(
        "drill_last_success_timestamp_seconds",
        "When a drill of a backup in a repository last passed.",
        *places,
    )
    result = gauge(
        "drill_last_result",
        "1 where the newest drill of each kind of backups passed, 0 where one failed.",
        *places,
    )
    known = gauge("drills_up", "1 where the records of drills could be read, else 0.", "repository")
    standings = list(standings)
    names = {standing.database.name for standing in standings}
    failed = {(one.database.name, each.repository) for one in standings for each in one.recovery.failed}
    for repository in facts.repositories.values():
        if repository.drills is None and repository.drills_error is None:
            continue  # nobody looked
        known.add_metric([repository.name], float(repository.are_drills_known))
        ended = {one.backup_name for one in repository.drills or () if one.outcome != "interrupted"}
        last = {one.backup_name: one for one in repository.drills or () if one.is_passed}
        for name in sorted(names & ended):
            result.add_metric([name, repository.name], float((name, repository.name) not in failed))
            add_moment(passed, [name, repository.name], last[name].finished if name in last else None)
    yield from (passed, result, known, *_of_recovery(standings))


def _of_recovery(standings: Iterable[DatabaseStanding]) -> Iterator[Metric]:
    took = gauge(
        "restore_duration_seconds",
        "Achieved RTO: how long the newest drill of a whole backup took until all was proven.",
        "database",
    )
    target = gauge("rto_target_seconds", "The RTO that the settings ask for.", "database")
    forecast = gauge(
        "restore_forecast_seconds",
        "How long a restore of the newest whole backup will take, by past drills; low and high hold nine of ten.",
        *("database", "bound"),
    )
    due = gauge("drill_next_due_timestamp_seconds", "When the next drill is planned.", "database")
    for standing in standings:
        name, recovery = standing.database.name, standing.recovery
        for family, value in ((took, recovery.achieved_rto_s), (target, standing.database.rto_s)):
            if value is not None:
                family.add_metric([name], value)
        if (found := recovery.forecast) is not None:
            for bound, value in (("expected", found.seconds), ("low", found.low_s), ("high", found.high_s)):
                forecast.add_metric([name, bound], value)
        add_moment(due, [name], recovery.next_due)
    yield from (took, target, forecast, due)
