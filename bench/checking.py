"""Whether two databases hold the same rows: a benchmark of a restore that loses some would be worth nothing."""

from __future__ import annotations

import psycopg
from psycopg import sql

from pgstow.core.errors import ContentMismatch

__all__ = ["check_equal"]

_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
)
_CONTENT = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {} AS t"


def check_equal(source: str, target: str) -> None:
    """Raise ContentMismatch unless both have the same tables with the same rows, in any order."""
    if (wanted := _content(source)) != (found := _content(target)):
        differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        raise ContentMismatch(f"the restored database differs in {', '.join(differing)}")


def _content(conninfo: str) -> dict[str, tuple[object, ...]]:
    with psycopg.connect(conninfo) as connection:
        tables = [name for (name,) in connection.execute(_TABLES).fetchall()]
        return {
            name: connection.execute(sql.SQL(_CONTENT).format(sql.Identifier(name))).fetchone() or ()
            for name in tables
        }
