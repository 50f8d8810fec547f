"""Telling by its beginning whether a text is SQL of PostgreSQL, before a server is started for it."""

from __future__ import annotations

import re

__all__ = ["SCRIPT_HEAD_BYTES", "begins_like_dump", "foreign_database"]

SCRIPT_HEAD_BYTES = 64 << 10
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"(?:[ \t\r\n\f\v;]++|--[^\n]*+(?:\n|\Z))*+")
# With what statements begin that a dump may consist of: those of pg_dump, and what people put before and between them.
_WORD = re.compile(
    rb"(?:ALTER|ANALYZE|BEGIN|CALL|CLUSTER|COMMENT|COMMIT|COPY|CREATE|DELETE|DO|DROP|END|GRANT|IMPORT|INSERT|LOCK|REASSIGN|REFRESH"
    rb"|REINDEX|RESET|REVOKE|ROLLBACK|SAVEPOINT|SECURITY|SELECT|SET|SHOW|START|TABLE|TRUNCATE|UPDATE|VACUUM|VALUES|WITH)\b",
    re.IGNORECASE,
)
_FOREIGN = (
    (re.compile(rb"^-- (?:MySQL|MariaDB) dump|^/\*!\d{5}", re.MULTILINE), "MySQL or MariaDB"),
    (re.compile(rb"^PRAGMA foreign_keys|^SQLite format 3", re.MULTILINE), "SQLite"),
    (re.compile(rb"^USE \[master\]|^SET ANSI_NULLS", re.MULTILINE), "SQL Server"),
)
_FOREIGN_HEAD_BYTES = 4096


def begins_like_dump(head: bytes) -> bool:
    """Whether a text begins with a statement of SQL or a command to psql, after comments, or holds comments alone."""
    if foreign_database(head) is not None:
        return False
    start = len(_BOM) if head.startswith(_BOM) else 0
    space = _SPACE.match(head, start)
    assert space is not None
    rest = head[space.end() :]
    return not rest or rest.startswith((b"\\", b"/*", b"(")) or _WORD.match(rest) is not None


def foreign_database(head: bytes) -> str | None:
    """Return of which other database system this is a dump; None where nothing speaks for that."""
    return next((name for pattern, name in _FOREIGN if pattern.search(head[:_FOREIGN_HEAD_BYTES])), None)
