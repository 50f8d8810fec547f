"""Restores that go wrong in the middle: what is said, what is left, and that nothing lingers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.core.errors import (
    ConnectionFailed,
    Interrupted,
    PgstowError,
    RepositoryDamaged,
    RestoreError,
)
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.server import Cluster
from pgstow.restore import large_objects
from support.backups import tools_for
from support.dumps import DumpFiles, dump
from support.restoring import bring_back, execute, fetch
from support.waiting import until

Databases = Callable[..., ConnInfo]


@pytest.fixture
def source(pg15: Cluster, database: Databases) -> ConnInfo:
    """Three tables; the largest takes more than one buffer of the network."""
    made = database(pg15)
    execute(
        made,
        """CREATE TABLE big AS SELECT i, repeat('x', 200) AS filler FROM generate_series(1, 60000) i;
        CREATE TABLE small AS SELECT i FROM generate_series(1, 100) i; CREATE TABLE other AS SELECT i FROM generate_series(1, 99) i;
        ALTER TABLE small ADD PRIMARY KEY (i)""",
    )
    return made


@pytest.fixture
def files(source: ConnInfo, tmp_path: Path) -> DumpFiles:
    return dump(source, tools_for(source), tmp_path / "dump")


@pytest.fixture
def target(pg15: Cluster, database: Databases) -> ConnInfo:
    return database(pg15)


class Meddling(DumpFiles):
    """Files that do something in the middle of a member."""

    after_pieces = 20
    meddle: Callable[[], object]
    big = ""

    def stream(self, name: str) -> Iterator[bytes]:
        for number, piece in enumerate(super().stream(name)):
            if name == self.big and number == self.after_pieces:
                self.meddle()
            yield piece


@pytest.fixture
def meddling(files: DumpFiles, source: ConnInfo) -> Meddling:
    made = Meddling(files.folder, source)
    assert made.manifest.totals.rows == 60_199
    made.big = next(record.member for record in made.manifest.tables if record.name == "big")
    return made


def no_sessions(target: ConnInfo) -> bool:
    """Whether the server has ended every session of the target: a closed connection takes it a moment to notice."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{target.dbname}' AND backend_type = 'client backend'"
    return bool(until(lambda: not fetch(target.with_database("postgres"), query), "the end of all sessions"))


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("restore-")]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_killed_session_is_noticed_at_once(meddling: Meddling, target: ConnInfo, jobs: int) -> None:
    read = []

    def kill() -> None:
        execute(
            target.with_database("postgres"),
            f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{target.dbname}' AND query LIKE 'COPY public.big%'",
        )

    meddling.meddle = kill
    plain = meddling.stream

    def counting(name: str) -> Iterator[bytes]:
        for piece in plain(name):
            read.append(name)
            yield piece

    meddling.stream = counting  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed, match=r"loading public\.big"):
        bring_back(meddling, target, jobs=jobs)

    assert read.count(read[0]) < 40  # of about 120: the rest was not read for nothing
    assert no_sessions(target)
    assert no_threads()
    assert fetch(target, "SELECT count(*) FROM big") == [(0,)]


def test_a_killed_server(meddling: Meddling, make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(15)
    meddling.meddle = cluster.kill

    with pytest.raises(ConnectionFailed):
        bring_back(meddling, ConnInfo.parse(cluster.conninfo()))
    assert no_threads()


def test_the_first_error_ends_the_others(meddling: Meddling, target: ConnInfo) -> None:
    """The small table fails while the big one is in the middle."""
    failed = threading.Event()
    plain = meddling.stream

    def failing(name: str) -> Iterator[bytes]:
        if name == next(record.member for record in meddling.manifest.tables if record.name == "small"):
            failed.set()
            raise RepositoryDamaged("blob 123 is damaged")
        yield from plain(name)

    meddling.meddle = lambda: failed.wait(30)
    meddling.stream = failing  # type: ignore[method-assign]

    with pytest.raises(RepositoryDamaged, match="blob 123 is damaged") as error:
        bring_back(meddling, target, jobs=2)

    assert error.value.facts["table"] == "public.small"
    assert "is incomplete" in str(error.value.hint)
    assert no_sessions(target)
    assert no_threads()
    assert fetch(target, "SELECT count(*) FROM big") == [(0,)]


def test_an_error_of_the_server_is_noticed_at_once(meddling: Meddling, target: ConnInfo) -> None:
    """A row that the server refuses ends the table; the other 60,000 are not sent for nothing."""
    member = meddling.folder / meddling.big.removeprefix("archive/")
    data = member.read_bytes()
    member.write_bytes(data.replace(b"\n17\t", b"\nseventeen\t", 1))
    sent = []
    meddling.meddle = lambda: sent.append(1)
    meddling.after_pieces = 100

    with pytest.raises(
        RestoreError, match=r'loading public\.big, line 17, column i: invalid input syntax .*"seventeen"'
    ) as failed:
        bring_back(meddling, target)

    assert sent == []
    assert failed.value.facts["sqlstate"] == "22P02"


def test_interrupted_in_the_middle(meddling: Meddling, target: ConnInfo) -> None:
    """A signal reaches the main thread while the workers are busy."""
    import _thread

    meddling.meddle = _thread.interrupt_main

    with pytest.raises(KeyboardInterrupt) as interrupted:
        bring_back(meddling, target)

    assert "is incomplete" in interrupted.value.__notes__[0]
    assert no_sessions(target)
    assert no_threads()


def test_interrupted_while_waiting_for_a_lock(files: DumpFiles, target: ConnInfo) -> None:
    """Nothing arrives from the server then; the statement has to be cancelled."""
    bring_back(files, target, schema_only=True)
    with psycopg.connect(target.connect_string()) as holder:

        class Locking(SilentProgress):
            def phase(self, name: str) -> None:
                if name == "loading rows":
                    holder.execute("LOCK TABLE big, small, other IN SHARE MODE")
                    threading.Timer(1.0, __import__("_thread").interrupt_main).start()

        with pytest.raises(KeyboardInterrupt):
            bring_back(files, target, data_only=True, progress=Locking())
    assert no_sessions(target)
    assert no_threads()


# -- pg_restore


def test_what_pg_restore_says_is_passed_on_with_the_object(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(
        source,
        """CREATE TABLE stock AS SELECT 1 AS id; ALTER TABLE stock ADD CONSTRAINT "odd
name" UNIQUE (id); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    toc = files.folder / "toc.dat"
    toc.write_bytes(
        toc.read_bytes().replace(
            b'    ADD CONSTRAINT "odd\nname" UNIQUE (id);', b'    ADD CONSTRAINT "odd\nname" UNIQUE (ix);'
        )
    )

    with pytest.raises(RestoreError) as failed:
        bring_back(files, target)

    assert failed.value.facts["object"] == "constraint public.stock odd\nname"
    assert 'column "ix" named in key does not exist' in failed.value.message
    assert "1 of 1 tables loaded" in str(failed.value.hint)
    assert failed.value.exit_code == 1


def test_rows_without_the_row_they_refer_to_are_found(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """Such rows get into a database through disabled triggers, and pg_dump saves them as they are."""
    source, target = database(pg15), database(pg15)
    execute(
        source,
        """CREATE TABLE clients (id int PRIMARY KEY); CREATE TABLE orders (client int REFERENCES clients);
        INSERT INTO clients VALUES (1); INSERT INTO orders VALUES (1);
        SET session_replication_role = replica; DELETE FROM clients""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")

    with pytest.raises(RestoreError) as failed:
        bring_back(files, target)

    assert failed.value.facts["object"] == "fk constraint public.orders orders_client_fkey"
    assert "violates foreign key constraint" in failed.value.message
    assert no_sessions(target)


def test_passwords_in_statements_stay_out_of_errors(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    source, target = database(pg15), database(pg15)
    execute(
        source,
        """CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
        CREATE USER MAPPING FOR postgres SERVER s OPTIONS (password 'open sesame')""",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    toc = files.folder / "toc.dat"
    toc.write_bytes(
        toc.read_bytes().replace(b"FOR postgres SERVER s OPTIONS", b"FOR postgres SERVER x OPTIONS")
    )

    with pytest.raises(RestoreError, match='server "x" does not exist') as failed:
        bring_back(files, target)

    shown = f"{failed.value} {failed.value.hint} {failed.value.facts}"
    assert "user mapping" in shown
    assert "sesame" not in shown


def test_a_password_is_never_an_argument(
    files: DumpFiles, source: ConnInfo, target: ConnInfo, tmp_path: Path
) -> None:
    """A pg_restore of our own looks at its arguments and environment, then does the work."""
    from dataclasses import replace

    from pgstow.restore import RestoreOptions, restore

    tools = tools_for(source)
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "pg_restore"
    seen = tmp_path / "seen"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {seen}; env >> {seen}.env\nexec {tools.pg_restore} "$@"\n')
    wrapper.chmod(0o755)
    given = ConnInfo.parse(f"{target.connect_string()} password=sesame")

    report = restore(
        files,
        given,
        RestoreOptions(),
        tools=[replace(tools, bin_dir=tmp_path / "bin")],
        progress=SilentProgress(),
    )

    assert "sesame" not in seen.read_text()
    assert "PGPASSWORD=sesame" in Path(f"{seen}.env").read_text()
    assert "sesame" not in repr(report)


# -- what is left


def test_a_database_made_for_nothing_is_dropped_again(files: DumpFiles, source: ConnInfo) -> None:
    toc = files.folder / "toc.dat"
    toc.write_bytes(toc.read_bytes().replace(b"CREATE TABLE public.small", b"CREATE TABLE publix.small"))
    target = source.with_database("made_for_nothing")

    with pytest.raises(RestoreError, match='schema "publix" does not exist') as failed:
        bring_back(files, target, create=True)

    assert "made_for_nothing, which was created for this restore, was dropped again" in str(failed.value.hint)
    assert fetch(source, "SELECT 1 FROM pg_database WHERE datname = 'made_for_nothing'") == []


def test_a_database_with_rows_is_left_and_said(files: DumpFiles, source: ConnInfo) -> None:
    files.tamper(rows={"other": 100})
    target = source.with_database("half_restored")
    try:
        with pytest.raises(PgstowError) as failed:
            bring_back(files, target, create=True, jobs=1)

        assert "half_restored was created and is incomplete (1 of 3 tables loaded)" in str(failed.value.hint)
        assert fetch(target, "SELECT count(*) FROM big") == [(60_000,)]
        assert bring_back_fixed(files, target) == 60_199
    finally:
        execute(source, "DROP DATABASE IF EXISTS half_restored")


def bring_back_fixed(files: DumpFiles, target: ConnInfo) -> int:
    files.tamper(rows={"other": 99})
    return bring_back(files, target, create=True, clean=True, confirm=target.dbname).rows


def test_a_full_disk_names_the_table(
    files: DumpFiles, source: ConnInfo, pg15: Cluster, database: Databases
) -> None:
    """temp_file_limit stands in for the disk: the same class of error, met by an index."""
    target = database(pg15)
    execute(source, f"ALTER DATABASE \"{target.dbname}\" SET temp_file_limit = '64kB'")
    execute(source, "CREATE INDEX too_big ON big (filler, i)")
    files = dump(source, tools_for(source), files.folder.parent / "second")

    with pytest.raises(RestoreError, match=r"restoring index public\.too_big: temporary file size exceeds"):
        bring_back(files, target)


def test_permission_denied_names_the_table(
    files: DumpFiles, source: ConnInfo, target: ConnInfo, pg15: Cluster
) -> None:
    execute(target, "CREATE ROLE reader_only LOGIN")
    try:
        bring_back(files, target, schema_only=True)
        execute(
            target,
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_only; GRANT INSERT ON big, small TO reader_only",
        )
        as_reader = ConnInfo.parse(pg15.conninfo(target.dbname or "", user="reader_only"))

        with pytest.raises(RestoreError, match=r"loading public\.other: permission denied for table other"):
            bring_back(files, as_reader, data_only=True)
    finally:
        execute(target, "DROP OWNED BY reader_only; DROP ROLE reader_only")


def test_stopped_before_it_began(files: DumpFiles, target: ConnInfo) -> None:
    class Interrupting(SilentProgress):
        def phase(self, name: str) -> None:
            if name == "creating tables, types and functions":
                raise Interrupted("interrupted by SIGTERM")

    with pytest.raises(Interrupted) as stopped:
        bring_back(files, target, progress=Interrupting())
    assert stopped.value.hint == "the target was not touched"


def test_a_session_that_ends_before_large_objects_are_written(
    pg15: Cluster, database: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = database(pg15), database(pg15)
    execute(source, "SELECT lo_from_bytea(0, 'contract')")

    def open_and_lose(conninfo: ConnInfo, **options: Any) -> RawSession:
        session = open_raw(conninfo, **options)
        pid = session.connection.info.backend_pid
        execute(target.with_database("postgres"), f"SELECT pg_terminate_backend({pid}, 10000)")
        return session

    monkeypatch.setattr(large_objects, "open_raw", open_and_lose)
    with pytest.raises(ConnectionFailed, match="writing large objects"):
        bring_back(dump(source, tools_for(source), tmp_path / "dump"), target)
    assert no_sessions(target)
    assert no_threads()
