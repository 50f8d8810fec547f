"""How much room is left where backups are stored, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import combinations
from statistics import median, quantiles

from pgstow.monitor.policy import AlertPolicy

__all__ = ["Forecast", "Growth", "Room", "Sample", "StorageFacts", "forecast_full", "growth_of", "room_of"]

_LEAST_SAMPLES = 3
_LEAST_SPAN_S = 86400.0  # three samples of one hour say nothing about a month
_DAY_S = 86400.0
_HORIZON_DAYS = 10 * 365
_VERY_LOW = 0.3  # of the share at which room is low: then it is a matter of hours
_MOST_SAMPLES = 120  # the slopes of all pairs are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much was used at a time."""

    time: datetime
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Bytes a day: the median of the slopes between all samples, and the quartiles of these slopes."""

    per_day: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a place is full. ``earliest`` and ``latest`` go with the quartiles of its growth; None: not within ten years."""

    at: datetime
    earliest: datetime
    latest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFacts:
    """A disk, or a repository with a quota. None is unknown: a bucket without a quota has no end that is known of."""

    where: str
    used_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    growth: Growth | None = None
    forecast_full: Forecast | None = None

    @property
    def free_share(self) -> float | None:
        """The share of all room that is free; None where that is unknown."""
        if self.free_bytes is None or not self.total_bytes:
            return None
        return max(self.free_bytes, 0) / self.total_bytes


class Room(StrEnum):
    """How much room is left: the worse, the later in this list. Of what has no end that is known of, it is unknown."""

    UNKNOWN = "unknown"
    ENOUGH = "enough"
    FULL_SOON = "full soon"
    LOW = "low"
    VERY_LOW = "very low"


def room_of(storage: StorageFacts, policy: AlertPolicy, now: datetime) -> Room:
    """Return how much room is left: the one judgement of it, for status, alerts and checklists."""
    share, forecast = storage.free_share, storage.forecast_full
    if share is None:
        return Room.UNKNOWN
    if share < policy.free_space:
        return Room.VERY_LOW if share < policy.free_space * _VERY_LOW else Room.LOW
    if forecast is not None and forecast.at - now < timedelta(seconds=policy.full_within_s):
        return Room.FULL_SOON
    return Room.ENOUGH


def growth_of(samples: Sequence[Sample]) -> Growth | None:
    """Return how fast use grows, little moved by single jumps; None below three samples or within less than a day.

    The slope of Theil and Sen. Of many samples, those spread evenly over them are taken.
    """
    ordered = _thinned(sorted(samples, key=lambda sample: sample.time))
    if len(ordered) < _LEAST_SAMPLES:
        return None
    if (ordered[-1].time - ordered[0].time).total_seconds() < _LEAST_SPAN_S:
        return None
    slopes = [
        (later.used_bytes - earlier.used_bytes) / (seconds / _DAY_S)
        for earlier, later in combinations(ordered, 2)
        if (seconds := (later.time - earlier.time).total_seconds()) > 0
    ]
    low, _, high = quantiles(slopes, n=4, method="inclusive")
    return Growth(per_day=median(slopes), low=low, high=high)


def _thinned(samples: list[Sample]) -> list[Sample]:
    if len(samples) <= _MOST_SAMPLES:
        return samples
    step = (len(samples) - 1) / (_MOST_SAMPLES - 1)
    return [samples[round(number * step)] for number in range(_MOST_SAMPLES)]


def forecast_full(now: datetime, free_bytes: int, growth: Growth | None) -> Forecast | None:
    """Return when nothing is free any more, if use grows as it did; None where it does not grow, or not known how."""
    if growth is None:
        return None
    at, earliest = (_full_at(now, free_bytes, slope) for slope in (growth.per_day, growth.high))
    if at is None or earliest is None:
        return None
    return Forecast(at=at, earliest=earliest, latest=_full_at(now, free_bytes, growth.low))


def _full_at(now: datetime, free_bytes: int, per_day: float) -> datetime | None:
    if free_bytes <= 0:
        return now
    if per_day <= 0 or (days := free_bytes / per_day) > _HORIZON_DAYS:
        return None
    return now + timedelta(days=days)
