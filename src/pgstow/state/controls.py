"""What the controls came to in the newest evidence report, for whoever watches them between two reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = ["ControlBook", "ControlStatus"]

_LONGEST_REPORT = timedelta(hours=1)  # what is further ahead was written by a clock that was wrong
_CONTROLS = sa.Table(
    "controls",
    METADATA,
    sa.Column("control", sa.String, primary_key=True),
    sa.Column("result", sa.String, nullable=False),
    sa.Column("made", Moment, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlStatus:
    """``result`` is pass, fail, unknown or waived, as of the report that was ``made`` then."""

    control: str
    result: str
    made: datetime


class ControlBook:
    """The results in a state database. Methods raise StateError."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    def replace(self, results: Mapping[str, str], *, made: datetime) -> None:
        """Put these in the place of what is there, unless that is of a report made a little later, beside this one."""
        with self._state.begin() as connection:
            newest = connection.execute(sa.select(sa.func.max(_CONTROLS.c.made))).scalar_one_or_none()
            if newest is not None and made < newest <= made + _LONGEST_REPORT:
                return
            connection.execute(sa.delete(_CONTROLS))
            rows = [
                {"control": control, "result": result, "made": made} for control, result in results.items()
            ]
            if rows:
                connection.execute(sa.insert(_CONTROLS), rows)

    def read(self) -> tuple[ControlStatus, ...]:
        """Return the results of the newest report; nothing before there was one."""
        with self._state.begin() as connection:
            rows = connection.execute(sa.select(_CONTROLS).order_by(_CONTROLS.c.control))
            return tuple(ControlStatus(control=row.control, result=row.result, made=row.made) for row in rows)
