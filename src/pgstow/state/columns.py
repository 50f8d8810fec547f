"""Columns that came later: added to the tables of an older version, when the state database is opened.

Only columns that may be empty can come later. Whatever was written before has nothing in them, and an older version that
uses the same database meanwhile goes on: it names the columns that it knows.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

__all__ = ["add_missing_columns"]


def add_missing_columns(connection: Connection, metadata: sa.MetaData) -> None:
    """Add to the tables of ``metadata``, which exist, the columns that they lack.

    To be called by one at a time, in the transaction that makes the tables. Raises SQLAlchemyError.
    """
    inspector = sa.inspect(connection)
    for table in metadata.sorted_tables:
        present = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
        for column in table.columns:
            if column.name not in present:
                assert column.nullable, column  # there is nothing to put into the rows of before
                _add(connection, table, column)


def _add(connection: Connection, table: sa.Table, column: sa.Column[object]) -> None:
    preparer = connection.dialect.identifier_preparer
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {definition}")
