"""What the newest row of a table says of when it was made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.catalog.manifest import NewestRow

__all__ = ["RowMoment", "moment_of"]

_DATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMoment:
    """The value of a time column. One that has no time zone is the reading of some clock, which may be hours from UTC.

    ``at`` is aware: in UTC, or that reading as if it were.
    """

    at: datetime
    has_zone: bool = True

    @property
    def text(self) -> str:
        """The value to the minute, and what it is."""
        return f"{self.at:%Y-%m-%d %H:%M} " + ("UTC" if self.has_zone else "without a time zone")

    @property
    def iso_text(self) -> str:
        """The value in ISO 8601, with a zone only if it has one."""
        return (self.at if self.has_zone else self.at.replace(tzinfo=None)).isoformat()


def moment_of(row: NewestRow | None) -> RowMoment | None:
    """Return the moment of a newest row, as PostgreSQL prints it in UTC.

    None in an empty table, and for what is no moment: infinity, a time before Christ or after the year 9999, a number.
    """
    if row is None or row.value is None or not _DATED.match(row.value):
        return None
    try:
        moment = datetime.fromisoformat(row.value)
        if moment.tzinfo is None:
            return RowMoment(at=moment.replace(tzinfo=UTC), has_zone=False)
        return RowMoment(at=moment.astimezone(UTC))
    except (ValueError, OverflowError):  # the first and the last day there are, in another zone
        return None
