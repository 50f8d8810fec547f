"""In which time zone an archive's rows were written, told by the rows themselves.

pg_dump leaves the zone as the source's settings have it, and says nothing of it. Rows that are read back after a restore are
the same bytes only under the same zone. What was written gives it away: each time comes with its offset from UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

__all__ = ["WrittenZone"]

_TIME = re.compile(rb"(\d{4}-\d\d-\d\d \d\d):\d\d:\d\d(?:\.\d+)?([+-]\d\d(?::\d\d)?)(?![\d:])")
_LOOKED_AT_BYTES = 1 << 18  # of a piece
_EVERY = 8  # of the pieces of a table, after the first few
_FIRST = 3
_MOST_TIMES = 2000
_USUAL = ("UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "Asia/Tokyo")


class WrittenZone:
    """Looks at a part of the rows. ``zone`` is the name of a zone that all of that fits, None where there is none."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes, bytes]] = set()

    def look(self, piece: bytes, number: int) -> None:
        """Take down the times in a piece of a table's rows; ``number`` counts them from 0."""
        if (number >= _FIRST and number % _EVERY) or len(self._seen) >= _MOST_TIMES:
            return
        self._seen.update(_TIME.findall(piece, 0, _LOOKED_AT_BYTES))

    @property
    def zone(self) -> str | None:
        if {offset for _, offset in self._seen} <= {b"+00"}:
            return "UTC"
        moments = [each for one in sorted(self._seen) if (each := _moment(*one)) is not None]
        names = (*_USUAL, *sorted(name for name in available_timezones() if "/" in name))
        return next((name for name in names if _fits(name, moments)), None)


def _moment(hour: bytes, offset: bytes) -> tuple[datetime, timedelta] | None:
    hours, _, minutes = offset[1:].decode().partition(":")
    ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
    ahead = -ahead if offset.startswith(b"-") else ahead
    try:
        return datetime.strptime(hour.decode(), "%Y-%m-%d %H").replace(tzinfo=UTC) - ahead, ahead
    except (ValueError, OverflowError):  # what only looks like a time
        return None


def _fits(name: str, moments: list[tuple[datetime, timedelta]]) -> bool:
    zone = ZoneInfo(name)
    try:
        return all(moment.astimezone(zone).utcoffset() == ahead for moment, ahead in moments)
    except OverflowError:  # the last evening of the year 9999 is in no calendar further east
        return False
