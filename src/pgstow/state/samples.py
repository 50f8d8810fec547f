"""How much was used where, over time: what a forecast of storage is made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = ["StorageSample", "StorageSamples"]

_KEPT = timedelta(days=92)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSample:
    """What a place looked like at a time. ``place`` tells places apart in the whole fleet."""

    place: str
    time: datetime
    used_bytes: int
    free_bytes: int | None = None
    total_bytes: int | None = None


_SAMPLES = sa.Table(
    "storage_samples",
    METADATA,
    sa.Column("place", sa.String, primary_key=True),
    sa.Column("time", Moment, primary_key=True),
    sa.Column("used_bytes", sa.BigInteger, nullable=False),
    sa.Column("free_bytes", sa.BigInteger),
    sa.Column("total_bytes", sa.BigInteger),
)


class StorageSamples:
    """The samples in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    def add(self, sample: StorageSample) -> None:
        """Keep a sample, and drop what is older than three months; one of the same place and time stays as it is."""
        key = (_SAMPLES.c.place == sample.place, _SAMPLES.c.time == sample.time)
        with self._state.begin() as connection:
            if connection.execute(sa.select(_SAMPLES.c.place).where(*key)).first() is None:
                values = {column.name: getattr(sample, column.name) for column in _SAMPLES.columns}
                connection.execute(sa.insert(_SAMPLES).values(values))
            connection.execute(sa.delete(_SAMPLES).where(_SAMPLES.c.time < sample.time - _KEPT))

    def of(self, place: str, *, since: datetime) -> list[StorageSample]:
        """Return the samples of a place since a time, oldest first."""
        query = (
            sa.select(_SAMPLES)
            .where(_SAMPLES.c.place == place, _SAMPLES.c.time >= since)
            .order_by(_SAMPLES.c.time)
        )
        with self._state.begin() as connection:
            return [
                StorageSample(
                    place=row.place,
                    time=row.time,
                    used_bytes=row.used_bytes,
                    free_bytes=row.free_bytes,
                    total_bytes=row.total_bytes,
                )
                for row in connection.execute(query)
            ]
