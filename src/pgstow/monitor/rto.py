"""How long restores took, and how long the next one will take: from drills alone, and without more than they show.

The time of a drill is taken to be something fixed, plus so much for every byte of rows to load, plus so much for every byte
to build indexes. None of the three is ever negative, so that a larger backup is never forecast to be faster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from statistics import fmean, median

from pgstow.catalog.drills import DrillRecord, PhaseRecord

__all__ = ["RestoreForecast", "Timing", "alike", "forecast_restore", "timing_of", "trend_s_per_month"]

_LEAST_SAMPLES = 3
_MOST_SAMPLES = 50
_MONTH_S = 30 * 86400.0
# The times of one machine are never exact; fewer than a few drills that agree by chance say nothing else.
_LEAST_NOISE = 0.02
_SEEN = 1.25  # a size so much beyond those seen is no extrapolation yet
_TOO_LARGE, _TOO_SMALL = 2.0, 0.25  # beyond the largest, below the smallest: nothing is said
_OF_INDEXES = frozenset(("post-data", "indexes", "constraints", "foreign keys", "analyze"))
_OF_ROWS = frozenset(("pre-data", "data", "large-objects", "content"))
# Quantiles of Student's t for an interval that holds nine of ten, by degrees of freedom; beyond the table it hardly changes.
_T = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
    1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725,
)  # fmt: skip
_T_OF_MANY = 1.72


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a backup of that size took until it was proven. ``index_s`` of it nothing but indexes was worked at."""

    at: datetime
    size_bytes: int
    seconds: float
    index_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreForecast:
    """How long a backup of ``size_bytes`` will take until it is proven; nine times of ten between ``low_s`` and ``high_s``.

    ``seconds`` is the sum of ``fixed_s``, ``rows_s`` and ``index_s``. ``is_extrapolated``: it is larger or smaller than any
    backup that was drilled. ``basis`` says which drills these were.
    """

    size_bytes: int
    seconds: float
    low_s: float
    high_s: float
    fixed_s: float
    rows_s: float
    index_s: float
    samples: int
    is_extrapolated: bool
    basis: str = ""


def alike(drills: Iterable[DrillRecord]) -> tuple[list[DrillRecord], str]:
    """Return those of the passed drills of one database that are like the newest, oldest first, and what that means.

    Alike: the same place (a throwaway server, or a database on a given one) and the same major version of PostgreSQL.
    """
    timed = sorted(
        (one for one in drills if one.is_passed and one.proven_s is not None), key=lambda one: one.started
    )
    if not timed:
        return [], ""
    place, major = timed[-1].place, _major(timed[-1])
    found = [one for one in timed if (one.place, _major(one)) == (place, major)][-_MOST_SAMPLES:]
    where = "a throwaway server" if place == "throwaway" else "a database on a given server"
    return found, f"{len(found)} drills of PostgreSQL {major} in {where}"


def _major(drill: DrillRecord) -> str:
    """Return the major version, of ``PostgreSQL 16.4 (Debian ...)`` or ``16.4``."""
    found = re.search(r"[0-9]+", drill.source_version)
    return found[0] if found else drill.source_version


def timing_of(drill: DrillRecord) -> Timing | None:
    """Return how long a drill took; None for one that did not come to its end."""
    if drill.proven_s is None:
        return None
    rows = [_span(phase, drill.proven_s) for phase in drill.phases if phase.name in _OF_ROWS]
    builds = [_span(phase, drill.proven_s) for phase in drill.phases if phase.name in _OF_INDEXES]
    return Timing(
        at=drill.started,
        size_bytes=drill.size_bytes,
        seconds=drill.proven_s,
        index_s=max(_length([*rows, *builds]) - _length(rows), 0.0),
    )


def _span(phase: PhaseRecord, end_s: float) -> tuple[float, float]:
    return min(phase.begun_s, end_s), min(phase.begun_s + phase.seconds, end_s)


def _length(spans: Iterable[tuple[float, float]]) -> float:
    """Return how much time the spans cover together: phases may overlap."""
    total = reached = 0.0
    for begun, ended in sorted(spans):
        total += max(ended - max(begun, reached), 0.0)
        reached = max(reached, ended)
    return total


def forecast_restore(
    timings: Sequence[Timing], size_bytes: int, *, basis: str = ""
) -> RestoreForecast | None:
    """Return the forecast for a backup of that size.

    None below three timings, and where it is so much larger or smaller than any of them that they say nothing about it.
    """
    if len(timings) < _LEAST_SAMPLES or _is_far(timings, size_bytes):
        return None
    sizes = [float(one.size_bytes) for one in timings]
    rest = _Line.through(sizes, [one.seconds - one.index_s for one in timings])
    builds = _Line(fixed=0.0, slope=_ratio(sizes, [one.index_s for one in timings]))
    whole = _Line(fixed=rest.fixed, slope=rest.slope + builds.slope)
    seconds = whole.at(size_bytes)
    half = _half_width(timings, sizes, whole, size_bytes)
    smallest, largest = min(sizes), max(sizes)
    return RestoreForecast(
        size_bytes=size_bytes,
        seconds=seconds,
        low_s=max(seconds - half, 0.0),
        high_s=seconds + half,
        fixed_s=rest.fixed,
        rows_s=rest.slope * size_bytes,
        index_s=builds.slope * size_bytes,
        samples=len(timings),
        is_extrapolated=not smallest / _SEEN <= size_bytes <= largest * _SEEN,
        basis=basis,
    )


def _is_far(timings: Sequence[Timing], size_bytes: int) -> bool:
    smallest = min(one.size_bytes for one in timings)
    largest = max(one.size_bytes for one in timings)
    return not _TOO_SMALL * smallest <= size_bytes <= _TOO_LARGE * largest


@dataclass(frozen=True, slots=True)
class _Line:
    fixed: float
    slope: float

    def at(self, size: float) -> float:
        return self.fixed + self.slope * size

    @classmethod
    def through(cls, sizes: Sequence[float], seconds: Sequence[float]) -> _Line:
        """Return the line of least squares among those that neither begin below zero nor fall."""
        mean_x, mean_y = fmean(sizes), fmean(seconds)
        spread = sum((x - mean_x) ** 2 for x in sizes)
        if spread == 0:  # how much is fixed cannot be told: all of it is taken to grow
            return cls(fixed=0.0, slope=_ratio(sizes, seconds)) if mean_x else cls(fixed=mean_y, slope=0.0)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(sizes, seconds, strict=True)) / spread
        if slope <= 0:
            return cls(fixed=mean_y, slope=0.0)
        fixed = mean_y - slope * mean_x
        return cls(fixed=fixed, slope=slope) if fixed >= 0 else cls(fixed=0.0, slope=_ratio(sizes, seconds))


def _ratio(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of the line of least squares through zero."""
    squares = sum(x * x for x in sizes)
    return sum(x * y for x, y in zip(sizes, seconds, strict=True)) / squares if squares else 0.0


def _half_width(timings: Sequence[Timing], sizes: Sequence[float], line: _Line, size: float) -> float:
    """Return half of the interval: the noise of one drill, and what is not known of the line.

    Far from the sizes seen the slope counts, of which is known at least that it is not negative, and that nothing fixed is.
    """
    count, mean_x = len(timings), fmean(sizes)
    mean_y = fmean(one.seconds for one in timings)
    squares = sum((one.seconds - line.at(one.size_bytes)) ** 2 for one in timings)
    noise = max(math.sqrt(squares / (count - 2)), _LEAST_NOISE * mean_y)
    t = _T[count - 3] if count - 3 < len(_T) else _T_OF_MANY
    near = t * noise * math.sqrt(1 + 1 / count)
    spread = sum((x - mean_x) ** 2 for x in sizes)
    away = abs(size - mean_x)
    steepest = away * mean_y / mean_x if mean_x else 0.0
    far = min(t * noise * away / math.sqrt(spread), steepest) if spread else steepest
    return math.hypot(near, far)


def trend_s_per_month(timings: Sequence[Timing]) -> float | None:
    """Return by how much restores become slower, in seconds a month: the median of all slopes; None below three."""
    if len(timings) < _LEAST_SAMPLES:
        return None
    slopes = [
        (later.seconds - earlier.seconds) / (apart_s / _MONTH_S)
        for earlier, later in combinations(sorted(timings, key=lambda one: one.at)[-_MOST_SAMPLES:], 2)
        if (apart_s := (later.at - earlier.at).total_seconds()) > 0
    ]
    return median(slopes) if slopes else None
