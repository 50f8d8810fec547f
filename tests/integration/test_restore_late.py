"""What a server refuses at the end is told and ends no recovery: it was all that was missing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pgstow.core.errors import RestoreError, TargetRefused
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.restore import engine
from pgstow.restore.late import restore_late
from pgstow.restore.sections import Sections
from support.backups import tools_for
from support.dumps import DumpFiles, dump
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

SOURCE = """
    CREATE TABLE visits (id int PRIMARY KEY, who text); INSERT INTO visits VALUES (1, 'a'), (2, 'b'), (3, 'c');
    CREATE POLICY own ON visits USING (id < 3);
    ALTER TABLE visits OWNER TO late_owner; ALTER TABLE visits ENABLE ROW LEVEL SECURITY; ALTER TABLE visits FORCE ROW LEVEL SECURITY;
    CREATE MATERIALIZED VIEW seen AS SELECT * FROM visits WITH NO DATA; ALTER MATERIALIZED VIEW seen OWNER TO late_owner;
    CREATE UNIQUE INDEX ON seen (id); REFRESH MATERIALIZED VIEW seen;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM seen;
    SET app.tenant = '7';
    CREATE MATERIALIZED VIEW of_tenant AS SELECT current_setting('app.tenant')::int AS tenant;
    CREATE MATERIALIZED VIEW over_that AS SELECT * FROM of_tenant;
    SET allow_system_table_mods = on;
    INSERT INTO pg_seclabel VALUES ('visits'::regclass, 'pg_class'::regclass, 0, 'nobody', 'for your eyes only');
    CREATE PUBLICATION everything FOR ALL TABLES; COMMENT ON PUBLICATION everything IS 'all of it';
    CREATE FUNCTION quiet() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION quiet();
"""


@pytest.fixture(scope="module")
def publisher() -> Iterator[socket.socket]:
    """What a subscription would connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture(scope="module")
def source(pg15: Cluster, shared_database: Databases, publisher: socket.socket) -> Iterator[ConnInfo]:
    made = shared_database(pg15, "late_source")
    execute(made, "CREATE ROLE late_owner; GRANT CREATE ON SCHEMA public TO late_owner")
    execute(made, SOURCE)
    execute(
        made,
        f"CREATE SUBSCRIPTION news CONNECTION 'host=127.0.0.1 port={publisher.getsockname()[1]} user=u password=hidden'"
        " PUBLICATION p WITH (connect = false, slot_name = 'news')",
    )
    yield made
    without_subscriptions(made)
    execute(made, "REASSIGN OWNED BY late_owner TO postgres; DROP OWNED BY late_owner; DROP ROLE late_owner")


@pytest.fixture(scope="module")
def files(source: ConnInfo, tmp_path_factory: pytest.TempPathFactory) -> DumpFiles:
    return dump(source, tools_for(source), tmp_path_factory.mktemp("late") / "dump")


@pytest.fixture
def target(pg15: Cluster, database: Databases) -> Iterator[ConnInfo]:
    made = database(pg15)
    yield made
    without_subscriptions(made)


def without_subscriptions(there: ConnInfo) -> None:
    """Drop them, so that the database can be dropped."""
    with psycopg.connect(there.connect_string(), autocommit=True) as connection:
        connection.execute("SET event_triggers = on") if connection.info.server_version >= 170000 else None
        query = "SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()"
        for (name,) in connection.execute(query).fetchall():
            connection.execute(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
            connection.execute(f"DROP SUBSCRIPTION {name}")


def test_what_is_refused_at_the_end_ends_no_recovery(
    files: DumpFiles, target: ConnInfo, publisher: socket.socket
) -> None:
    report = bring_back(files, target, compare=True)

    assert report.is_partial
    lost = {one.what: one.why for one in report.skipped if one.is_loss}
    assert lost.keys() == {
        "security label public.TABLE visits",
        "rows of materialized view public.of_tenant",
        "rows of materialized view public.over_that",
    }
    assert "label provider" in lost["security label public.TABLE visits"]
    assert "for your eyes only" not in str(report)
    view = lost["rows of materialized view public.of_tenant"]
    assert 'unrecognized configuration parameter "app.tenant"' in view
    assert "REFRESH MATERIALIZED VIEW public.of_tenant" in view
    (filled,) = (one for one in report.warnings if "seen was filled with what row level security" in one)
    assert filled.endswith('query would be affected by row-level security policy for table "visits"')
    assert not any("counted" in one for one in report.warnings), "nothing was wrong with it"
    # What could be had is there, and the views hold what they held in the source.
    assert fetch(target, "SELECT * FROM seen ORDER BY 1") == [(1, "a"), (2, "b")]
    assert fetch(target, "SELECT n FROM counted") == [(2,)]
    assert fetch(target, "SELECT count(*) FROM visits") == [(3,)]
    assert fetch(target, "SELECT evtname, pubname FROM pg_event_trigger, pg_publication") == [
        ("watch", "everything")
    ]
    assert fetch(target, "SELECT subname, subenabled FROM pg_subscription JOIN pg_database d ON d.oid = subdbid"
                 " WHERE datname = current_database()") == [("news", False)]  # fmt: skip
    with pytest.raises(BlockingIOError):
        publisher.accept()


def test_who_is_no_superuser_gets_everything_else(files: DumpFiles, pg15: Cluster, target: ConnInfo) -> None:
    """As on a managed server: rows and tables come back, and what needs a superuser is named with the remedy."""
    name = f"late_{target.dbname}"
    admin = target.with_database("postgres")
    execute(admin, f"CREATE ROLE {name} LOGIN")
    execute(admin, f"ALTER DATABASE {target.dbname} OWNER TO {name}")
    execute(target, f"ALTER SCHEMA public OWNER TO {name}")
    try:
        as_owner = ConnInfo.parse(pg15.conninfo(target.dbname, user=name))
        report = bring_back(files, as_owner, no_owner=True)
        lost = {one.what: one.why for one in report.skipped if one.is_loss}
        assert {"publication everything", "subscription news", "event trigger watch"} < lost.keys()
        assert "could not be restored" in lost["comment PUBLICATION everything"]
        assert "superuser" in lost["event trigger watch"]
        assert "hidden" not in str(report)
        assert fetch(target, "SELECT (SELECT count(*) FROM visits), (SELECT n FROM counted)") == [(3, 2)]
    finally:
        execute(target, f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
        execute(admin, f"ALTER DATABASE {target.dbname} OWNER TO postgres; DROP ROLE {name}")


def test_a_full_disk_is_no_remark(
    files: DumpFiles, source: ConnInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "pg_restore failed: could not extend file: No space left on device"

    def full(*_: object, **__: object) -> None:
        raise RestoreError(said)

    monkeypatch.setattr(Sections, "restore", full)
    flags = {"flags": (), "settings": {}}
    with Sections.opened(tools_for(source), source, files.toc, **flags) as sections:  # type: ignore[arg-type]
        for kind in (b"MATERIALIZED VIEW DATA", b"EVENT TRIGGER"):
            entries = [one for one in files.toc.entries if one.desc == kind]
            with pytest.raises(RestoreError, match="No space left"):
                restore_late(sections, entries, jobs=1, maintenance_work_mem=1 << 20)


def test_a_session_that_was_ended_is_no_remark(
    pg15: Cluster, database: Databases, target: ConnInfo, tmp_path: Path
) -> None:
    """A server that fell over has emptied unlogged tables: what came before cannot be taken for restored."""
    source = database(pg15, "ending")
    execute(
        source,
        "CREATE MATERIALIZED VIEW ending AS SELECT pg_terminate_backend(pg_backend_pid()) WITH NO DATA;"
        " SET allow_system_table_mods = on; UPDATE pg_class SET relispopulated = true WHERE relname = 'ending'",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    with pytest.raises(RestoreError, match="terminating connection") as caught:
        bring_back(files, target)
    assert "incomplete" in str(caught.value.hint)


def test_labels_of_a_provider_that_is_not_there_are_not_tried_for_ever(
    files: DumpFiles, source: ConnInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (label,) = (one for one in files.toc.entries if one.desc == b"SECURITY LABEL")
    tried = []

    def refuse(_: Sections, entries: Sequence[TocEntry], **__: object) -> None:
        tried.extend(entries if len(entries) == 1 else [])
        if entries:
            raise RestoreError("pg_restore failed: no such provider")

    monkeypatch.setattr(Sections, "restore", refuse)
    labels = [replace(label, dump_id=10**6 + number, dependencies=()) for number in range(100)]
    other = replace(label, dump_id=1, dependencies=(), defn=b"SECURITY LABEL FOR another ON TABLE t IS 'x';")
    with Sections.opened(tools_for(source), source, files.toc, flags=(), settings={}) as sections:
        done = restore_late(sections, [*labels, other], jobs=1, maintenance_work_mem=1 << 20)
    assert [one.dump_id for one in tried] == [*(one.dump_id for one in labels[:20]), 1]
    assert len(done.skipped) == 101 and all(one.is_loss for one in done.skipped)


# -- settings of the database


def test_settings_that_the_server_refuses_or_that_let_nobody_in(
    pg15: Cluster, database: Databases, tmp_path: Path
) -> None:
    """They come from a server that knows them: here they are put into the archive."""
    source = database(pg15, "settled")
    execute(
        source,
        "CREATE TABLE t AS SELECT 1 AS a; ALTER DATABASE settled SET work_mem TO '5MB';"
        " ALTER DATABASE settled SET app.note TO 'a; b'; COMMENT ON DATABASE settled IS 'it''s; SET x TO y'",
    )
    files = dump(source, tools_for(source), tmp_path / "dump")
    more = (
        b"ALTER DATABASE settled SET no_such_setting TO 'confidential';\n"
        b"ALTER DATABASE settled SET session_preload_libraries TO 'no_such_library', 'nor_this';\n"
        b"ALTER DATABASE settled SET local_preload_libraries TO 'gone';\n"
    )
    entries = tuple(
        replace(entry, defn=(entry.defn or b"") + more) if entry.desc == b"DATABASE PROPERTIES" else entry
        for entry in files.toc.entries
    )
    files.toc = replace(files.toc, entries=entries)
    target = source.with_database("settled_again")
    try:
        report = bring_back(files, target, create=True)
        settings = "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'settled_again'"
        assert {row[0] for row in fetch(target, settings)} == {"work_mem=5MB", "app.note=a; b"}
        assert fetch(target, "SELECT a, shobj_description(d.oid, 'pg_database') FROM t, pg_database d"
                     " WHERE datname = current_database()") == [(1, "it's; SET x TO y")]  # fmt: skip
    finally:
        execute(source, "DROP DATABASE IF EXISTS settled_again WITH (FORCE)")
    said = "\n".join(report.warnings)
    assert "the setting no_such_setting of the database was not restored: unrecognized" in said
    assert "session_preload_libraries" in said and "no_such_library" in said and "install these" in said
    assert "confidential" not in said


def test_a_database_with_subscriptions_is_not_replaced(files: DumpFiles, source: ConnInfo) -> None:
    with pytest.raises(TargetRefused, match="while it has the subscription news") as caught:
        bring_back(files, source, create=True, clean=True, confirm=source.dbname, disconnect_others=True)
    assert "DROP SUBSCRIPTION" in str(caught.value.hint)
    with pytest.raises(TargetRefused, match="cannot be cleaned while it has the subscription news"):
        bring_back(files, source, clean=True, confirm=source.dbname)
    with contextlib.closing(psycopg.connect(source.connect_string())):
        pass


def test_the_memory_of_builds_is_what_was_said(
    files: DumpFiles, target: ConnInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    kept = engine.restore_late

    def looking(*arguments: object, **named: object) -> object:
        seen.append(named["maintenance_work_mem"])
        return kept(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "restore_late", looking)
    bring_back(files, target, build_bytes=17 << 20, schema_only=True)
    assert seen == [17 << 20]
