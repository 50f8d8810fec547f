"""How long a drill will take, told before it begins, and whether that is within its target."""

from __future__ import annotations

from collections.abc import Sequence

from pgstow.catalog.drills import DrillRecord
from pgstow.catalog.manifest import Manifest
from pgstow.core.quantities import duration_text
from pgstow.monitor.rto import RestoreForecast, alike, forecast_restore, timing_of

__all__ = ["against_target", "forecast_drill", "forecast_text"]


def forecast_drill(
    earlier: Sequence[DrillRecord], manifest: Manifest, *, place: str
) -> RestoreForecast | None:
    """Return how long a drill of this backup will take, by earlier ones of its database in such a place.

    None where fewer than three, or none of about this size, were made.
    """
    timed, basis = alike(one for one in earlier if (one.backup_name, one.place) == (manifest.name, place))
    timings = [timing for one in timed if (timing := timing_of(one)) is not None]
    size_bytes = sum(table.size_bytes for table in manifest.tables) + manifest.large_objects.size_bytes
    return forecast_restore(timings, size_bytes, basis=basis)


def forecast_text(forecast: RestoreForecast) -> str:
    """Return the forecast as a sentence without its end."""
    return (
        f"this will take about {duration_text(forecast.seconds)}, nine times of ten between {duration_text(forecast.low_s)} and"
        f" {duration_text(forecast.high_s)}: by {forecast.basis}"
    )


def against_target(forecast: RestoreForecast, rto_target_s: float | None) -> str | None:
    """Return what is to be feared for the target; None if nothing is."""
    if rto_target_s is None or forecast.high_s <= rto_target_s:
        return None
    will = "will probably" if forecast.seconds > rto_target_s else "may"
    return (
        f"the RTO of {duration_text(rto_target_s)} {will} be missed: before the drill its time was forecast as"
        f" {duration_text(forecast.seconds)}, at most {duration_text(forecast.high_s)}"
    )
