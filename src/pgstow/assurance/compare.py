"""Comparing what two databases contain, table by table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pgstow.core.progress import Progress, SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.digests import (
    Digest,
    StoredTable,
    database_encoding,
    digest_large_objects,
    digest_sequences,
    digest_table,
    stored_tables,
)
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, translated

__all__ = ["TableComparison", "compare_databases"]

Kind = Literal["table", "sequence", "large objects"]
_Key = tuple[Kind, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableComparison:
    """Whether one table, one sequence or all large objects are equal on both sides.

    The rows of a partitioned table are compared partition by partition, of a hash-partitioned one as a whole. A
    side that has no such table has None rows and the digest "". For large objects rows are pieces of a megabyte; a sequence has one.
    """

    kind: Kind
    schema: str
    name: str
    source_rows: int | None
    target_rows: int | None
    source_digest: str  # over every row, in any order; see postgres.digests
    target_digest: str
    is_equal: bool


@dataclass(frozen=True, slots=True)
class _Content:
    digest: Digest
    columns: str = ""


def compare_databases(
    source: ConnInfo, target: ConnInfo, *, progress: Progress | None = None
) -> list[TableComparison]:
    """Return one comparison per table, sequence and for the large objects, sorted by schema and name.

    Equal means equal as a multiset: same rows, each as often, in any order. Each side is read in one
    snapshot, both at once. Materialized views are left out: a restore computes them anew.
    Raises ConnectionFailed and PostgresError, also when a table may not be read: what cannot be compared
    is never taken for equal.
    """
    with _snapshot(source) as left, _snapshot(target) as right:
        encodings = {database_encoding(left), database_encoding(right)}
        encoding = encodings.pop() if len(encodings) == 1 else "UTF8"
        with ThreadPoolExecutor(2, thread_name_prefix="compare") as pool:
            sides = [
                pool.submit(_contents, side, encoding, progress or SilentProgress()) for side in (left, right)
            ]
            here, there = (side.result() for side in sides)
    return [_compare(key, here.get(key), there.get(key)) for key in sorted({*here, *there}, key=_order)]


@contextlib.contextmanager
def _snapshot(conninfo: ConnInfo) -> Iterator[Connection]:
    with (
        contextlib.closing(connect(conninfo, settings=CAPTURE_SETTINGS)) as connection,
        translated(f"reading {conninfo}"),
    ):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection


def _contents(connection: Connection, encoding: str, progress: Progress) -> dict[_Key, _Content]:
    contents: dict[_Key, _Content] = {}
    for table in stored_tables(connection, encoding):
        key: _Key = ("table", *table.unit)
        content = _table_content(connection, table, encoding)
        progress.advance(rows=content.digest.rows)
        if key in contents:
            content = _Content(contents[key].digest + content.digest, content.columns)
        contents[key] = content
    for (schema, name), digest in digest_sequences(connection, encoding).items():
        contents["sequence", schema, name] = _Content(digest)
    contents["large objects", "", ""] = _Content(digest_large_objects(connection))
    return contents


def _table_content(connection: Connection, table: StoredTable, encoding: str) -> _Content:
    with translated(f"reading table {'.'.join(table.unit)}"):
        return _Content(digest_table(connection, table, encoding), table.column_names)


def _compare(key: _Key, here: _Content | None, there: _Content | None) -> TableComparison:
    kind, schema, name = key
    return TableComparison(
        kind=kind,
        schema=schema,
        name=name,
        source_rows=here.digest.rows if here else None,
        target_rows=there.digest.rows if there else None,
        source_digest=str(here.digest) if here else "",
        target_digest=str(there.digest) if there else "",
        is_equal=here is not None and here == there,
    )


def _order(key: _Key) -> tuple[str, str, str]:
    kind, schema, name = key
    return schema, name, kind
