"""The tables of the state database. Modules beside this one add theirs to ``METADATA``."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Dialect, Double, MetaData
from sqlalchemy.types import TypeDecorator

__all__ = ["METADATA", "Moment"]

METADATA = MetaData()


class Moment(TypeDecorator[datetime]):
    """An aware datetime, stored as seconds since 1970: the same on every kind of database."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002  SQLAlchemy gives it
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  SQLAlchemy gives it
        return None if value is None else datetime.fromtimestamp(value, UTC)
