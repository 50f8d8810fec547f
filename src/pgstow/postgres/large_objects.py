"""Reading large objects, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgstow.postgres.session import Connection

__all__ = ["PIECE_BYTES", "large_objects_readable", "lock_large_objects", "read_large_objects"]

PIECE_BYTES = 1 << 20
_BATCH = 16  # at most this many first pieces are in memory at once


def large_objects_readable(connection: Connection) -> bool:
    """Return whether this role may look at the rows of which large objects are made."""
    row = connection.execute(
        "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"
    ).fetchone()
    return bool(row and row[0])


def lock_large_objects(connection: Connection) -> int:
    """Keep pg_largeobject from being rewritten until the transaction ends, and return its filenode.

    Does not wait: psycopg's LockNotAvailable says that somebody rewrites it or is about to.
    """
    connection.execute("LOCK TABLE pg_catalog.pg_largeobject IN ACCESS SHARE MODE NOWAIT")
    row = connection.execute(
        "SELECT pg_catalog.pg_relation_filenode('pg_catalog.pg_largeobject')::bigint"
    ).fetchone()
    assert row is not None
    return int(row[0])


def read_large_objects(connection: Connection, oids: Sequence[int]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield (OID, pieces) of each large object as the session's snapshot sees it; use the pieces at once.

    ``lo_get`` respects the object's privileges and the snapshot, and needs no writable transaction.
    """
    for start in range(0, len(oids), _BATCH):
        cursor = connection.cursor(binary=True)
        rows = cursor.execute(
            "SELECT oid, pg_catalog.lo_get(oid, 0, %s) FROM unnest(%s::oid[]) WITH ORDINALITY AS wanted(oid, place) ORDER BY place",
            (PIECE_BYTES, list(oids[start : start + _BATCH])),
        )
        for oid, piece in rows.fetchall():
            yield oid, _pieces(connection, oid, piece)


def _pieces(connection: Connection, oid: int, piece: bytes) -> Iterator[bytes]:
    offset = 0
    while piece:
        yield piece
        if len(piece) < PIECE_BYTES:
            return
        offset += len(piece)
        row = (
            connection.cursor(binary=True)
            .execute("SELECT pg_catalog.lo_get(%s::oid, %s::int8, %s)", (oid, offset, PIECE_BYTES))
            .fetchone()
        )
        piece = row[0] if row else b""
