"""Whatever happens between two backups, each is what pg_dump would make: random histories on a real server."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import capture_into, files_of, memory_repository, pg_dump_directory, tools_for

Databases = Callable[..., ConnInfo]

SETUP = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE t (id int, note text, how mood DEFAULT 'good', two pair) WITH (autovacuum_enabled = off, fillfactor = 90);
CREATE INDEX t_id ON t (id);
CREATE TABLE u (id int, note text) WITH (autovacuum_enabled = off);
CREATE DOMAIN word AS pair;
CREATE TABLE v (id int, said word, moods mood[]) WITH (autovacuum_enabled = off);
CREATE TABLE parts (id int, note text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (50000);
CREATE TABLE part2 (id int, note text);
CREATE UNLOGGED TABLE w (id int, note text) WITH (autovacuum_enabled = off);
INSERT INTO t SELECT i, 'first ' || i || repeat('.', 90), 'good', ROW(i, 'b')::pair FROM generate_series(1, 24000) i;
INSERT INTO v SELECT i, ROW(i, repeat('said', 20))::word, '{good}' FROM generate_series(1, 15000) i;
DO $$BEGIN
    IF EXISTS (SELECT FROM pg_available_extension_versions WHERE name = 'hstore' AND version = '1.4') THEN
        CREATE EXTENSION hstore VERSION '1.4';
        ALTER TABLE v ADD marks hstore DEFAULT 'a=>b';
    END IF;
END$$;
INSERT INTO parts SELECT i, repeat('p', 100) FROM generate_series(1, 15000) i;
INSERT INTO part2 SELECT i, repeat('q', 100) FROM generate_series(50001, 65000) i;
SELECT lo_from_bytea(n::oid, convert_to(repeat('object ' || n, 900), 'UTF8')) FROM generate_series(101, 110) n;
INSERT INTO u SELECT i, 'other ' || i || repeat('-', 90) FROM generate_series(1, 24000) i;
INSERT INTO w SELECT i, 'light ' || i || repeat('_', 90) FROM generate_series(1, 24000) i;
"""

# Each may run any number of times, in any order; {n} is another number each time.
STATEMENTS = [
    "INSERT INTO t (id, note, how) SELECT {n}, 'new {n} ' || i, 'bad' FROM generate_series(1, 500) i",
    "UPDATE t SET note = 'changed {n}' WHERE id BETWEEN {n} * 97 % 24000 AND {n} * 97 % 24000 + 20",
    "UPDATE t SET note = 'all {n}'",
    "DELETE FROM t WHERE id BETWEEN {n} * 131 % 24000 AND {n} * 131 % 24000 + 300",
    "DELETE FROM u WHERE id % 3 = {n} % 3",
    "UPDATE w SET note = 'w {n}' WHERE id = {n} * 7 % 24000",
    "BEGIN; UPDATE t SET note = 'never {n}' WHERE id % 50 = 0; ROLLBACK",
    "BEGIN; SAVEPOINT a; DELETE FROM t WHERE id < 1000; ROLLBACK TO a; UPDATE t SET note = 'kept {n}' WHERE id = {n}; COMMIT",
    "VACUUM t", "VACUUM (FREEZE) t", "VACUUM (FULL) u", "CLUSTER t USING t_id", "TRUNCATE u",
    "INSERT INTO u SELECT i, 'again {n} ' || i FROM generate_series(1, 9000) i",
    "BEGIN; TRUNCATE u; COPY u FROM PROGRAM 'seq -f %g,frozen{n} 1 20000' (FREEZE, DELIMITER ','); COMMIT",
    "ALTER TABLE t ADD COLUMN c{n} int DEFAULT {n}", "ALTER TABLE t ADD COLUMN c{n} text",
    "ALTER TABLE u ALTER note TYPE varchar(300)", "ALTER TABLE u ALTER id TYPE bigint", "ALTER TABLE u ALTER id TYPE int",
    "ALTER TYPE mood ADD VALUE 'mood{n}'", "ALTER TYPE pair ADD ATTRIBUTE x{n} int",
    "ALTER TABLE t RENAME TO swap; ALTER TABLE swap RENAME TO t",
    "UPDATE t SET note = (SELECT string_agg(md5(i::text || '{n}'), '') FROM generate_series(1, 2000) i) WHERE id = {n}",
    "ALTER TYPE mood RENAME VALUE 'good' TO 'good{n}'", "ALTER DOMAIN word ADD CONSTRAINT c{n} CHECK ((value).a <> -{n})",
    "ALTER TABLE v ALTER said TYPE pair", "ALTER TABLE v ALTER said TYPE word", "ALTER EXTENSION hstore UPDATE",
    ("DO $$DECLARE c name; BEGIN SELECT attname INTO c FROM pg_attribute WHERE attrelid = 't'::regclass AND attname LIKE 'c%'"
    " AND attnum > 0 AND NOT attisdropped; IF c IS NOT NULL THEN EXECUTE format('ALTER TABLE t DROP %I', c); END IF; END$$"),
    "ALTER TABLE parts ATTACH PARTITION part2 FOR VALUES FROM (50000) TO (70000)", "ALTER TABLE parts DETACH PARTITION part2",
    "ALTER TABLE parts DETACH PARTITION part1", "UPDATE parts SET note = 'p{n}' WHERE id % 1000 = {n}",
    "BEGIN; ALTER TABLE part2 RENAME TO x; ALTER TABLE u RENAME TO part2; ALTER TABLE x RENAME TO u; COMMIT",
    "SELECT lo_put(loid, {n}, 'put') FROM (SELECT DISTINCT loid FROM pg_largeobject WHERE loid::int8 % 5 = {n} % 5) AS chosen",
    "SELECT lo_unlink(oid), lo_create(oid) FROM pg_largeobject_metadata WHERE oid::int8 % 7 = {n} % 7", "VACUUM FULL pg_largeobject",
    "VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF)",
    "ALTER TABLE w SET LOGGED", "ALTER TABLE w SET UNLOGGED",
]  # fmt: skip
# What a statement may run into because of what came before.
HARMLESS = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InvalidParameterValue,  # the label has another name by now
    psycopg.errors.WrongObjectType,  # the table is, or is not, a partition
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,  # an extension that this server lacks
    psycopg.errors.InvalidTableDefinition,
    psycopg.errors.CheckViolation,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.ObjectNotInPrerequisiteState,
)
LATE = "a transaction that goes on"
COMMIT = "one of them commits"
ABORT = "one of them aborts"
PREPARE = "one of them is prepared"
FINISH = "what was prepared is committed"
CRASH = "a backend is killed"
RESTART = "the server is killed, and started again"

steps = st.lists(
    st.one_of(
        st.sampled_from(STATEMENTS),
        st.sampled_from([LATE, COMMIT, ABORT, PREPARE, FINISH, CRASH, RESTART, "backup", "backup"]),
    ),
    min_size=3,
    max_size=9,
)


class History:
    def __init__(self, source: ConnInfo, cluster: Cluster) -> None:
        self.source = source
        self._cluster = cluster
        self._repository = memory_repository()
        self._numbers = itertools.count(1)
        self._open: list[psycopg.Connection] = []
        self._prepared: list[str] = []
        self.reused = 0

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.source.connect_string(), autocommit=True)

    def do(self, step: str) -> None:
        number = next(self._numbers)
        if step == "backup":
            self.backup()
        elif step == LATE:
            late = self.connect()
            late.execute("BEGIN")
            late.execute(
                "UPDATE t SET note = 'late' WHERE ctid IN (SELECT ctid FROM t WHERE id BETWEEN %s AND %s FOR UPDATE SKIP LOCKED)",
                (number * 53 % 24000, number * 53 % 24000 + 30),
            )
            late.execute("INSERT INTO u VALUES (%s, 'late')", (number,))
            self._open.append(late)
        elif step in (COMMIT, ABORT, PREPARE) and self._open:
            late = self._open.pop(0)
            if step == PREPARE:
                self._prepared.append(f"p{id(self)}_{number}")
                late.execute(f"PREPARE TRANSACTION '{self._prepared[-1]}'")
            else:
                late.execute("COMMIT" if step == COMMIT else "ROLLBACK")
            late.close()
        elif step == FINISH and self._prepared:
            with self.connect() as connection:
                connection.execute(f"COMMIT PREPARED '{self._prepared.pop(0)}'")
        elif step == CRASH:
            self.crash()
        elif step == RESTART:
            self.close()
            self._cluster.kill()
            self._cluster.start()
        elif step in STATEMENTS:
            with self.connect() as connection:
                connection.execute("SET lock_timeout = '300ms'; SET synchronous_commit = off")
                with contextlib.suppress(*HARMLESS):
                    connection.execute(step.format(n=number))

    def backup(self) -> None:
        taken = capture_into(self._repository, self.source)
        assert not taken.manifest.reuse.alarms
        self.reused += sum(record.reused_ranges for record in taken.manifest.tables)
        told["backups"] += 1
        told["ranges reused"] += sum(record.reused_ranges for record in taken.manifest.tables)
        told["large objects reused"] += taken.manifest.large_objects.reused
        files = files_of(self._repository, taken)
        with TemporaryDirectory() as folder:
            expected = pg_dump_directory(tools_for(self.source), self.source, Path(folder) / "dump")
        for name, data in expected.items():
            if name != "toc.dat":
                assert b"".join(files.stream(f"archive/{name}")) == data, name

    def flush(self) -> None:
        """Commit something for certain, and everything before it."""
        with self.connect() as connection:
            connection.execute("SELECT pg_current_xact_id()")

    def crash(self) -> None:
        """Kill one backend: the server forgets what was not on disk, and starts anew under the same postmaster."""
        self.close()
        victim = self.connect()
        with contextlib.suppress(psycopg.Error):
            victim.execute("SET synchronous_commit = off; UPDATE t SET note = 'lost' WHERE id < 50")
            victim.execute("UPDATE w SET note = 'lost' WHERE id < 50")
        witness = self.connect()
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        victim.close()
        with contextlib.suppress(psycopg.Error):
            while True:  # until the server has noticed
                witness.execute("SELECT pg_sleep(0.05)")
        witness.close()
        self._recovered()

    def _recovered(self) -> None:
        """Return once the server has recovered."""
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
                connection.execute("SELECT 1")
                return
            time.sleep(0.05)

    def close(self) -> None:
        while self._open:
            with contextlib.suppress(psycopg.Error):
                self._open.pop().close()

    def end(self) -> None:
        self.close()
        for name in self._prepared:
            with self.connect() as connection:
                connection.execute(f"ROLLBACK PREPARED '{name}'")


@pytest.fixture(scope="module", params=[15, 18])
def server(request: pytest.FixtureRequest) -> Cluster:
    cluster: Cluster = request.getfixturevalue("make_module_cluster")(
        request.param,
        settings={
            "max_prepared_transactions": "20",
            "wal_writer_delay": "200ms",
            "restart_after_crash": "on",
        },
    )
    return cluster


_names = itertools.count(1)
told: Counter[str] = Counter()  # what all histories of this run did


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(dict(told))


@given(history=steps)
@settings(
    max_examples=int(os.environ.get("PGSTOW_TEST_EXAMPLES", "5")),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_history(server: Cluster, history: list[str]) -> None:
    name = f"history_{next(_names)}"
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    told["histories"] += 1
    story = History(ConnInfo.parse(server.conninfo(name)), server)
    try:
        with story.connect() as connection:
            connection.execute(SETUP)
        story.backup()
        for step in history:
            story.do(step)
        story.flush()
        story.backup()
        story.flush()
        story.backup()
        assert story.reused, "the last two are the same, so something was reused"
    finally:
        story.end()
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
