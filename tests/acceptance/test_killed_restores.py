"""A restore that is killed with -9 at the reads of its store: what it left is not taken for a restored database.

By default a part of the reads is tried, at equal distances through all of them; PGSTOW_ALL_FAULTS=1 tries all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.killing import AT_READS, Killing, noting
from support.repositories import init_repository
from support.restic import PASSWORD
from support.restoring import assert_equal_rows, execute, fetch
from support.waiting import until

TARGET = "killed_restore"
AT_WORK = f"datname = '{TARGET}' AND starts_with(application_name, 'pgstow pg_restore')"
OBJECTS = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@pytest.fixture
def source(pg15: Cluster, database: Callable[..., ConnInfo]) -> ConnInfo:
    """A table of several blobs, one that refers to another, a sequence and a large object."""
    made = database(pg15)
    execute(
        made,
        """CREATE TABLE ledger AS SELECT i, md5(i::text) || md5((-i)::text) AS entry FROM generate_series(1, 50000) i;
        CREATE TABLE owner (id serial PRIMARY KEY, name text); INSERT INTO owner (name) SELECT 'n' || i FROM generate_series(1, 90) i;
        CREATE TABLE account (owner int REFERENCES owner, note text); INSERT INTO account SELECT id, name FROM owner;
        CREATE INDEX ON ledger (entry); SELECT lo_from_bytea(4711, 'large')""",
    )
    return made


@pytest.fixture
def template(source: ConnInfo, tmp_path: Path) -> Path:
    """A repository with a backup of it."""
    folder = tmp_path / "template" / "repository"
    init_repository(LocalStore(folder))
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})
    taken = pgstow("backup", source.connect_string())
    assert taken.code == 0, taken.stderr
    return folder.parent


def renew(target: ConnInfo, *, create: bool) -> None:
    """Let there be no database, or with ``create`` an empty one."""
    server = target.with_database("postgres")
    execute(server, f"DROP DATABASE IF EXISTS {target.dbname} WITH (FORCE)")
    if create:
        execute(server, f"CREATE DATABASE {target.dbname}")


def await_no_sessions(target: ConnInfo) -> None:
    """Wait until the server has noticed that the killed process is gone."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{target.dbname}' AND backend_type = 'client backend'"
    until(lambda: not fetch(target.with_database("postgres"), query), "the end of all sessions")


def is_touched(target: ConnInfo, *, create: bool) -> bool:
    """Whether the killed restore had begun to change the server."""
    query = f"SELECT FROM pg_database WHERE datname = '{target.dbname}'"
    is_there = bool(fetch(target.with_database("postgres"), query))
    return is_there if create else fetch(target, OBJECTS) != [(0,)]


@pytest.mark.parametrize("create", [True, False], ids=["create", "existing-database"])
def test_killed_at_a_read_then_repeated(
    create: bool, source: ConnInfo, template: Path, tmp_path: Path
) -> None:
    target = source.with_database(TARGET)
    folder = tmp_path / "folder"
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(folder / "repository"), "PGSTOW_PASSWORD": PASSWORD})
    arguments = ["restore", "latest", "--to", target.connect_string(), *(["--create"] if create else [])]
    command = Killing(
        pgstow,
        arguments,
        template=template,
        folder=folder,
        before=lambda: renew(target, create=not create),
    )
    refused = 0
    try:
        for kill in command.kills(
            f"restore {'with --create' if create else 'into a database'}", AT_READS, tries=4
        ):
            with noting(kill):
                await_no_sessions(target)
                refused += judge(command, target, create=create)
                assert_equal_rows(source, target)
                store = LocalStore(folder / "repository")
                assert list(store.list("locks/")) == []
    finally:
        execute(source, f"DROP DATABASE IF EXISTS {TARGET} WITH (FORCE)")
    assert refused, "none was killed after it had begun to change the target"


def judge(command: Killing, target: ConnInfo, *, create: bool) -> bool:
    """The next restore says what is in the way, or finishes where nothing is; return whether it was refused."""
    was_touched = is_touched(target, create=create)
    again = command.again()
    if not was_touched:
        assert again.code == 0, again.stderr
        return False
    assert again.code == 1
    assert ("exists already" if create else "is not empty") in again.stderr
    assert f"nothing was touched; to go ahead add --clean --confirm {TARGET}" in again.stderr
    confirmed = command.again("--clean", "--confirm", TARGET)
    assert confirmed.code == 0, confirmed.stderr
    return True


# -- what outlives it


def test_a_killed_restore_whose_pg_restore_goes_on(
    pg15: Cluster, database: Callable[..., ConnInfo], tmp_path: Path
) -> None:
    """It builds an index, for long; until it has ended nobody else restores there."""
    source = database(pg15)
    execute(
        source,
        """CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN IF current_setting(''test.is_slow'', true) = ''yes'' THEN PERFORM pg_sleep(3600); END IF; RETURN $1; END';
        CREATE TABLE t AS SELECT 1 AS i; CREATE INDEX ON t (slow(i))""",
    )
    init_repository(LocalStore(tmp_path / "repository"))
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "repository"), "PGSTOW_PASSWORD": PASSWORD})
    assert pgstow("backup", source.connect_string()).code == 0
    target = source.with_database(TARGET)
    arguments = ["restore", "latest", "--to", target.connect_string()]
    confirmed = [*arguments, "--clean", "--confirm", TARGET]
    renew(target, create=True)
    try:
        execute(source, "ALTER ROLE CURRENT_USER SET test.is_slow = 'yes'")
        kill_at_index(pgstow, arguments, target)
        execute(source, "ALTER ROLE CURRENT_USER RESET test.is_slow")
        refused = pgstow(*confirmed)
        assert refused.code == 1
        assert f"error: a restore is still at work in database {TARGET}" in refused.stderr
        assert "application_name begins with pgstow pg_restore" in refused.stderr
        fetch(source, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {AT_WORK}")
        await_no_sessions(target)
        ended = pgstow(*confirmed)
        assert ended.code == 0, ended.stderr
        assert_equal_rows(source, target)
    finally:
        execute(source, "ALTER ROLE CURRENT_USER RESET test.is_slow")
        execute(source, f"DROP DATABASE IF EXISTS {TARGET} WITH (FORCE)")


def kill_at_index(pgstow: Pgstow, arguments: list[str], target: ConnInfo) -> None:
    """Kill a restore while its pg_restore builds an index."""
    building = f"SELECT pid FROM pg_stat_activity WHERE {AT_WORK} AND query LIKE 'CREATE INDEX%'"
    with pgstow.start(*arguments) as process:
        while not fetch(target.with_database("postgres"), building):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()  # pg_restore holds them too: their end would not come
