"""How databases stand, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from pgstow.cli.formats import safe, size_text, time_text
from pgstow.cli.output import Output
from pgstow.cli.tables import FittingTable, plain_table
from pgstow.monitor.facts import RepositoryFacts
from pgstow.monitor.findings import id_of
from pgstow.monitor.levels import Level
from pgstow.monitor.recovery import RecoveryStanding
from pgstow.monitor.standing import DatabaseStanding, DestinationStanding, KindStanding, age_s
from pgstow.monitor.storage import Forecast, StorageFacts
from pgstow.monitor.verdict import DatabaseVerdict, Verdict
from pgstow.monitor.words import duration_words

__all__ = ["level_text", "sparkline", "status_view"]

_STYLES = {
    Level.OK: "bold green",
    Level.WARNING: "yellow",
    Level.UNKNOWN: "magenta",
    Level.CRITICAL: "bold red",
}
_BARS = "▁▂▃▄▅▆▇█"
_BARS_SHOWN = 10


def level_text(level: Level) -> Text:
    """Return a level as it stands before what it is about."""
    return Text(level.value, style=_STYLES[level])


def sparkline(values: Sequence[float]) -> str:
    """Return one bar for each value, from the lowest to the highest of them; all in the middle where they are equal."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def status_view(verdict: Verdict, output: Output) -> Iterator[RenderableType]:
    """Yield databases, then repositories; what is wrong stands last, next to the verdict."""
    for each in verdict.databases:
        yield from _database(each)
        yield Text()
    yield from _repositories(verdict)
    yield Text()
    for level in (Level.WARNING, Level.UNKNOWN, Level.CRITICAL):
        for name, reason in verdict.all_reasons:
            if reason.level is level:
                about = f"  {name}: " if name else "  "
                look = f"  ({reason.look})" if reason.look else ""
                told = safe(output.scrub(reason.text))
                yield Text.assemble(level_text(level), about, told, (look, "dim"))
    if verdict.level is Level.OK:
        yield Text("all is as it should be", style="bold green")


def _database(verdict: DatabaseVerdict) -> Iterator[RenderableType]:
    standing = verdict.standing
    yield Text.assemble((verdict.name, "bold"), "  ", level_text(verdict.level), "  ", _age(standing))
    if told := _recovery(standing):
        yield Text(f"  {told}")
    if standing.kinds:
        yield _kinds(standing)
    if standing.tables:
        yield _tables(standing)
    for alert in standing.alerts or ():
        acknowledged = ", acknowledged" if alert.is_acknowledged else ""
        yield Text(f"alert {id_of(alert.fingerprint)}: {safe(alert.message)}{acknowledged}", style="yellow")


def _age(standing: DatabaseStanding) -> str:
    if standing.achieved_rpo_s is None or standing.newest is None:
        return "no whole backup" + ("" if standing.is_known else ", as far as can be seen")
    told = [f"achieved RPO {duration_words(standing.achieved_rpo_s)}"]
    if standing.database.rpo_s is not None:
        told.append(f"of {duration_words(standing.database.rpo_s)}")
    if standing.longest_gap_s is not None:
        told.append(f"(longest gap in 30 days: {duration_words(standing.longest_gap_s)})")
    return " ".join(told)


def _recovery(standing: DatabaseStanding) -> str:
    """Return what drills say of the next restore; nothing where nobody looked."""
    recovery = standing.recovery
    if not recovery.was_read:
        return ""
    told = [_drilled(recovery)]
    if recovery.achieved_rto_s is not None:
        target = f" of {duration_words(standing.database.rto_s)}" if standing.database.rto_s else ""
        smaller = " (of a smaller backup)" if recovery.is_representative is False else ""
        told.append(f"achieved RTO {duration_words(recovery.achieved_rto_s)}{target}{smaller}")
    if (forecast := recovery.forecast) is not None:
        beyond = ", extrapolated" if forecast.is_extrapolated else ""
        told.append(
            f"forecast {duration_words(forecast.seconds)} ({duration_words(forecast.low_s)} to "
            f"{duration_words(forecast.high_s)}{beyond}) from {forecast.basis}"
        )
    if recovery.next_due is not None:
        told.append(f"next drill {_minute(recovery.next_due)}")
    return "; ".join(told)


def _drilled(recovery: RecoveryStanding) -> str:
    newest = recovery.newest
    if newest is None:
        return "never drilled" if recovery.is_known else "drills unknown"
    seen = "" if recovery.is_known else ", as far as can be seen"
    passed = recovery.last_passed
    before = (
        "" if newest is passed else f", passed {_minute(passed.finished)}" if passed else ", never passed"
    )
    return f"last drill {newest.outcome} {_minute(newest.finished)}{before}{seen}"


def _kinds(standing: DatabaseStanding) -> RenderableType:
    table = FittingTable(
        *(
            "KIND",
            "NEWEST (UTC)",
            "AGE",
            "LAST ATTEMPT",
            "NEXT (UTC)",
            "SIZE",
            "TREND",
            "PER DAY",
            "REPOSITORIES",
        ),
        below=("SIZE", "TREND", "PER DAY", "REPOSITORIES"),
        right=("AGE", "SIZE", "PER DAY"),
    )
    for kind in standing.kinds:
        newest = kind.newest
        table.add_row(
            safe(kind.kind),
            time_text(newest.time)[:16] if newest else "never" if kind.is_known else "unknown",
            duration_words(age_s(newest, standing.now)) if newest else "-",
            _attempt(kind),
            _minute(kind.next_due) if kind.next_due else "-",
            size_text(kind.sizes[-1] if kind.sizes else None),
            Text(sparkline(kind.sizes[-_BARS_SHOWN:]), no_wrap=True),
            _per_day(None if kind.growth is None else kind.growth.per_day),
            ", ".join(map(_destination, kind.destinations)),
        )
    return table


def _minute(moment: datetime) -> str:
    """Return a moment without its year and seconds: a row has to fit on a terminal."""
    return time_text(moment)[5:16]


def _attempt(kind: KindStanding) -> str:
    run = kind.last_attempt
    return "-" if run is None else f"{run.outcome} {_minute(run.finished or run.started)}"


def _destination(place: DestinationStanding) -> str:
    if place.lacks is None:
        return f"{place.repository} unknown"
    return f"{place.repository} lacks {len(place.lacks)}" if place.lacks else place.repository


def _per_day(per_day: float | None) -> str:
    if per_day is None:
        return "-"
    return ("+" if per_day > 0 else "") + size_text(round(per_day))


def _tables(standing: DatabaseStanding) -> RenderableType:
    table = plain_table("CRITICAL TABLE", "SAVED (UTC)", "AGE", "NEWEST ROW", "KIND", right=("AGE",))
    for each in standing.tables:
        newest = each.newest
        saved = Text("missing", style="bold red") if each.is_missing else Text("unknown", style="magenta")
        table.add_row(
            safe(each.table),
            Text(time_text(newest.time)) if newest else saved,
            duration_words(age_s(newest, standing.now)) if newest else "-",
            each.newest_row.text if each.newest_row else "-",
            safe(newest.kind) if newest else "",
        )
    return table


def _repositories(verdict: Verdict) -> Iterator[RenderableType]:
    table = FittingTable(
        *("REPOSITORY", "BACKUPS", "USED", "FREE", "OF", "PER DAY", "FULL ON", "LOCATION"),
        below=("PER DAY", "FULL ON", "LOCATION"),
        right=("BACKUPS", "USED", "FREE", "OF", "PER DAY"),
    )
    for repository in verdict.facts.repositories.values():
        for number, storage in enumerate(repository.storage or (StorageFacts(where=""),)):
            table.add_row(
                repository.name if not number else "",
                _count(repository) if not number else "",
                size_text(storage.used_bytes),
                size_text(storage.free_bytes),
                size_text(storage.total_bytes),
                _per_day(None if storage.growth is None else storage.growth.per_day),
                _full(storage.forecast_full),
                safe(storage.where or repository.location),
            )
    yield table


def _count(repository: RepositoryFacts) -> str:
    return "unknown" if repository.backups is None else f"{len(repository.backups):,}"


def _full(forecast: Forecast | None) -> str:
    if forecast is None:
        return "-"
    latest = f"{forecast.latest:%Y-%m-%d}" if forecast.latest else "never"
    return f"{forecast.at:%Y-%m-%d} (between {forecast.earliest:%Y-%m-%d} and {latest})"
