"""What the newest row of a table says of when it was made."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pgstow.catalog.manifest import NewestRow

__all__ = ["moment_of"]

_DATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def moment_of(row: NewestRow | None) -> datetime | None:
    """Return the moment of a newest row, as PostgreSQL prints it in UTC; one without a zone is taken to be in UTC.

    None in an empty table, and for what is no moment: infinity, a time before Christ or after the year 9999, a number.
    """
    if row is None or row.value is None or not _DATED.match(row.value):
        return None
    try:
        moment = datetime.fromisoformat(row.value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
