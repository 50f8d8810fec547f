"""Foreign keys of integers are checked by sorting, and by nothing less than all rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pgstow.core.errors import RestoreError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.loading import has_integer_key
from pgstow.postgres.raw import open_raw
from pgstow.postgres.server import Cluster
from support.backups import tools_for
from support.dumps import dump
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

SCHEMA = """
CREATE TABLE clients (id int PRIMARY KEY, ref text UNIQUE, code uuid UNIQUE, UNIQUE (id, ref));
CREATE TABLE "odd ""one" (id int8 CONSTRAINT "a 'key'" REFERENCES clients,
    small int2 CONSTRAINT small REFERENCES clients, ref text CONSTRAINT by_text REFERENCES clients (ref),
    code uuid CONSTRAINT by_uuid REFERENCES clients (code),
    CONSTRAINT two FOREIGN KEY (id, ref) REFERENCES clients (id, ref));
"""


def test_which_keys_are_integers(pg15: Cluster, database: Databases) -> None:
    source = database(pg15)
    execute(source, SCHEMA)
    names = (b"a 'key'", b"small", b"by_text", b"by_uuid", b"two", b"absent")
    with contextlib.closing(open_raw(source, encoding="UTF8", settings={})) as session:
        found = {name: has_integer_key(session, b'public."odd ""one"', name) for name in names}
    assert [name for name, is_integer in found.items() if is_integer] == [b"a 'key'", b"small"]


@pytest.mark.parametrize("column", ["id", "small", "ref"])
def test_a_row_without_its_counterpart_is_found(
    column: str, pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """The rows are brought in behind the key's back, as a damaged index lets them."""
    source = database(pg15)
    execute(source, SCHEMA)
    execute(source, "INSERT INTO clients SELECT i, 'r' || i FROM generate_series(1, 2000) i")
    execute(source, """INSERT INTO "odd ""one" SELECT i, i, 'r' || i FROM generate_series(1, 2000) i""")
    whole = dump(source, tools_for(source), tmp_path / "whole")
    target = database(pg15)
    bring_back(whole, target)
    assert fetch(target, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == [(5,)]

    stray = "'stray'" if column == "ref" else "30000"
    execute(
        source,
        f"""SET session_replication_role = replica; UPDATE "odd ""one" SET {column} = {stray} WHERE id = 1999""",
    )
    broken = dump(source, tools_for(source), tmp_path / "broken")
    with pytest.raises(RestoreError, match="violates foreign key constraint"):
        bring_back(broken, database(pg15))
