"""Plain SQL becomes a backup: run on a throwaway server by somebody who is no superuser, and backed up from there."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import server_binaries
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import ArchiveError, PgstowError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import PieceReader
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.script_server import ScriptServer, server_settings
from pgstow.postgres.server import Cluster
from pgstow.postgres.session import CAPTURE_SETTINGS, connect
from pgstow.postgres.tools import ClientTools
from support.backups import memory_repository, tools_for
from support.dumps import content_of
from support.every_kind import create_every_kind
from support.foreign_dumps import dump_to, files_of_import, import_into
from support.restoring import assert_equal_rows, bring_back, execute, fetch

DatabaseFactory = Callable[..., ConnInfo]


@pytest.fixture(scope="module")
def source(pg18: Cluster, shared_database: DatabaseFactory) -> ConnInfo:
    source = shared_database(pg18, "scripted")
    execute(source.with_database("postgres"), "CREATE ROLE script_owner")
    create_every_kind(source, role="script_owner")
    return source


def test_plain_dump_of_everything_comes_back(
    source: ConnInfo,
    pg18: Cluster,
    database: DatabaseFactory,
    client_tools: list[ClientTools],
    tmp_path: Path,
) -> None:
    dump = dump_to(tmp_path / "plain.sql", source, tools_for(source), "-Fp", "--create")
    packed = tmp_path / "plain.sql.gz"
    packed.write_bytes(gzip.compress(dump.read_bytes()))
    repository = memory_repository()
    imported = import_into(repository, packed, client_tools)
    record = imported.manifest.imported
    assert record is not None
    assert (record.format, record.compression, record.is_dated) == ("plain", "gzip", False)
    assert imported.manifest.name == "scripted"
    assert imported.manifest.server.system_identifier is None
    target = database(pg18)
    bring_back(files_of_import(repository, imported), target)
    assert_equal_rows(source, target)
    tools = tools_for(source)
    assert content_of(target, tools, "--schema-only") == content_of(source, tools, "--schema-only")


# -- what a dump must not do


@pytest.fixture(scope="module")
def script_server() -> Iterator[ScriptServer]:
    """One server for many scripts: those that fail leave it as it was before."""
    with Cluster(server_binaries(18), settings=server_settings(18)) as cluster:
        yield ScriptServer(
            cluster=cluster, progress=SilentProgress(), default_database="evil", default_encoding="UTF8"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\n\\! touch {marker}\n", r"evil.sql, line 2: \\! touch .* is a command to psql"),
        ("\\i /etc/passwd\n", r"line 1: \\i /etc/passwd is a command to psql"),
        ("\\restrict key\n\\connect postgres\n", r"line 2: \\connect postgres is a command"),
        (
            "CREATE TABLE programmed (a text);\n\nCOPY programmed FROM PROGRAM 'touch {marker}';\n",
            r"evil.sql, line 3, statement 2: permission denied to COPY .* external program",
        ),
        ("COPY (SELECT 1) TO PROGRAM 'touch {marker}';\n", "line 1, statement 1: permission denied"),
        ("CREATE TABLE t (a text); COPY t FROM '/etc/passwd';\n", "statement 2: permission denied"),
        ("SELECT pg_read_file('/etc/passwd');\n", "permission denied for function pg_read_file"),
        ("SELECT lo_import('/etc/passwd');\n", "permission denied for function lo_import"),
        ("ALTER ROLE postgres SUPERUSER; COPY (SELECT 1) TO '{marker}';\n", "denied"),
        ("DO $$BEGIN EXECUTE 'ALTER ROLE postgres SUPERUSER'; END$$;\n", "permission denied to alter role"),
        (
            "GRANT pg_execute_server_program TO postgres; COPY (SELECT 1) TO PROGRAM 'touch {marker}';",
            "denied",
        ),
        (
            "ALTER FUNCTION pg_catalog.pg_read_file(text) OWNER TO postgres;\nSELECT pg_read_file('x');",
            "denied",
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO postgres; SELECT pg_read_file('x');",
            "denied",
        ),
        (
            """CREATE FUNCTION f() RETURNS void SECURITY DEFINER LANGUAGE sql AS $$SELECT pg_read_file('x')$$;
            ALTER FUNCTION f() OWNER TO pg_read_server_files; SELECT f();""",
            "denied",
        ),
        ("ALTER TABLE a ADD COLUMN b text DEFAULT pg_read_file('x'), OWNER TO postgres;", "does not exist"),
        ("SELECT 1;\nSELECT 1 / 0;\n", "line 2, statement 2: division by zero"),
        ("CREATE TABLE z (); -- \0\nCREATE TABLE \0 y ();", "line 2: the statement holds a zero byte"),
        ("COPY information_schema.sql_features FROM stdin;\n1\n\\.\n", "statement 1: permission denied"),
        ("COPY (SELECT 1) TO stdout;\n", "evil.sql, line 1, statement 1"),
        (
            "CREATE ROLE r PASSWORD $$x$$;",
            "line 1: CREATE ROLE r PASSWORD .* is not written as pg_dumpall writes it",
        ),
        ("ALTER ROLE r SET a.b = '\\'; COPY x TO PROGRAM $$y$$ --';", "is not written as pg_dumpall"),
        ("SELECT 'a", "cut off: the statement that begins in line 1"),
        ("SET client_encoding = 'SJIS';\nSELECT 1;", "line 1: scripts in the encoding SJIS"),
    ],
)
def test_a_hostile_or_broken_script_is_refused(
    text: str, message: str, script_server: ScriptServer, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    tmp_path.chmod(0o777)
    data = text.replace("{marker}", str(marker)).encode()
    with pytest.raises(PgstowError, match=message):
        script_server.run(PieceReader(iter([data]), what="evil.sql"), name="evil.sql")
    assert not marker.exists()


def test_a_script_that_fails_leaves_no_backup_and_no_server(
    client_tools: list[ClientTools], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = memory_repository()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account has to get there
        monkeypatch.setattr(tempfile, "tempdir", name)
        (folder / "short.sql").write_text("--\n-- PostgreSQL database dump\n--\nCREATE TABLE t ();\n")
        with pytest.raises(ArchiveError, match=r"short.sql is cut off: the line .* at its end is missing"):
            import_into(repository, folder / "short.sql", client_tools)
        assert [path.name for path in folder.iterdir()] == ["short.sql"]
        monkeypatch.undo()
    assert list_backups(repository) == []


def test_event_triggers_of_older_releases_see_nothing_that_a_superuser_does(tmp_path: Path) -> None:
    """Before release 17 they cannot be switched off."""
    tmp_path.chmod(0o777)
    marker = tmp_path / "marker"
    text = f"""SET check_function_bodies = off; CREATE COLLATION public.plain (provider = libc, locale = 'C');
        CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;
        COMMENT ON EXTENSION hstore IS 'it''s (key, value)'; CREATE EXTENSION pageinspect;
        CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
        IF current_setting('is_superuser') = 'on' THEN COPY (SELECT 1) TO PROGRAM 'touch {marker}'; END IF; END$$;
        CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f();
        CREATE FOREIGN DATA WRAPPER w; COMMENT ON FOREIGN DATA WRAPPER w IS 'x'; CREATE TABLE t ();
        ALTER EVENT TRIGGER e OWNER TO boss; ALTER FOREIGN DATA WRAPPER w OWNER TO boss;
        GRANT USAGE ON FOREIGN DATA WRAPPER w TO boss; CREATE PUBLICATION p FOR ALL TABLES;
        COPY information_schema.sql_features FROM stdin;\n\\.\n"""
    with Cluster(server_binaries(15), settings=server_settings(15)) as cluster:
        server = ScriptServer(
            cluster=cluster, progress=SilentProgress(), default_database="d", default_encoding="UTF8"
        )
        server.run(PieceReader(iter([text.encode()]), what="x.sql"), name="x.sql")
        made = fetch(
            server.conninfo("d"),
            "SELECT evtname, evtowner::regrole::text FROM pg_event_trigger UNION ALL"
            " SELECT fdwname, fdwowner::regrole::text FROM pg_foreign_data_wrapper UNION ALL"
            " SELECT pubname, pubowner::regrole::text FROM pg_publication",
        )
        assert sorted(made) == [("e", "boss"), ("p", "postgres"), ("w", "boss")]
    assert not marker.exists()


_ATTACK = """CREATE FUNCTION public.attack() RETURNS int LANGUAGE plpgsql AS $$BEGIN
    IF pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on' THEN
    COPY (SELECT 1) TO '{marker}'; END IF; RETURN 1; END$$;
"""
# Called if the first question of a session, which sets what names mean, left that to the database's owner.
_LAID_FOR_SESSIONS = """CREATE SCHEMA evil;
    CREATE FUNCTION evil.lower(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.attack(); RETURN pg_catalog.lower($1); END';
    CREATE FUNCTION evil.set_config(pg_catalog.text, pg_catalog.text, bool) RETURNS pg_catalog.text LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.attack(); RETURN pg_catalog.set_config($1, $2, $3); END';
    CREATE FUNCTION evil.same(pg_catalog.text, pg_catalog.text) RETURNS bool LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.attack(); RETURN $1 OPERATOR(pg_catalog.=) $2; END';
    CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.same);
    CREATE FUNCTION evil.unnest(pg_catalog.text[], pg_catalog.text[]) RETURNS TABLE (name pg_catalog.text,
    value pg_catalog.text) LANGUAGE plpgsql AS 'BEGIN PERFORM public.attack(); RETURN; END';
    CREATE DOMAIN evil.text AS pg_catalog.text CHECK (public.attack() IS NOT NULL);
    ALTER DATABASE postgres SET search_path = evil, pg_catalog;
    CREATE FOREIGN DATA WRAPPER evil_wrapper;
"""
# Called if what a database holds were asked with public among the places to look in.
_LAID_FOR_QUESTIONS = """CREATE FUNCTION public.matches(name, name) RETURNS bool LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.attack(); RETURN true; END';
    CREATE OPERATOR public.~ (LEFTARG = name, RIGHTARG = name, FUNCTION = public.matches);
"""


def test_what_a_superuser_asks_calls_nothing_that_the_script_made(tmp_path: Path) -> None:
    """The owner of a database chooses what names mean in it, until a session says otherwise."""
    tmp_path.chmod(0o777)
    marker = tmp_path / "marker"
    attack = _ATTACK.replace("{marker}", str(marker))
    text = "\n".join(
        [
            *("\\connect postgres", attack, _LAID_FOR_SESSIONS),
            *("\\connect template1", attack, _LAID_FOR_QUESTIONS, "CREATE TABLE public.price (euro money);"),
        ]
    )
    with Cluster(server_binaries(18), settings=server_settings(18)) as cluster:
        server = ScriptServer(
            cluster=cluster, progress=SilentProgress(), default_database=None, default_encoding="UTF8"
        )
        server.run(PieceReader(iter([text.encode()]), what="x.sql"), name="x.sql")
        assert server.databases == ["postgres", "template1"]
        assert any("type money" in warning for warning in server.warnings)
        with connect(server.conninfo("postgres", "postgres"), settings=CAPTURE_SETTINGS):
            pass
    assert not marker.exists()


def test_no_extension_is_installed_for_a_script_that_could_have_laid_a_trap(
    script_server: ScriptServer,
) -> None:
    """An extension's own script runs as a superuser, and may call by mistake what stands in its schema."""
    text = b"CREATE FUNCTION trap() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE EXTENSION vector;"
    with pytest.raises(PgstowError, match="statement 2: permission denied to create extension"):
        script_server.run(PieceReader(iter([text]), what="x.sql"), name="x.sql")


def test_a_script_with_two_databases_is_refused(script_server: ScriptServer) -> None:
    text = b"CREATE DATABASE one; CREATE DATABASE two;"
    with pytest.raises(ArchiveError, match="several databases"):
        script_server.run(PieceReader(iter([text]), what="all.sql"), name="all.sql")


def test_a_dump_of_a_whole_server_with_one_database_brings_its_roles(
    pg18: Cluster, database: DatabaseFactory, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    """As pg_dumpall writes it; made up, since the server of the tests has many databases."""
    source = database(pg18, "solo")
    execute(source, "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); INSERT INTO s.t VALUES (1), (2)")
    one = dump_to(tmp_path / "solo.sql", source, tools_for(source), "-Fp", "--create").read_text()
    roles = (
        "--\n-- PostgreSQL database cluster dump\n--\n\\restrict abc\nSET default_transaction_read_only = off;\n"
        "CREATE ROLE boss;\nALTER ROLE boss WITH SUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$x';\n"
        "CREATE ROLE postgres;\nGRANT pg_monitor TO boss WITH INHERIT TRUE GRANTED BY postgres;\n\\unrestrict abc\n"
        "\\connect template1\n"
    )
    dump = tmp_path / "all.sql"
    dump.write_text(
        f"{roles}{one}ALTER TABLE s.t OWNER TO boss;\n-- PostgreSQL database cluster dump complete\n"
    )
    repository = memory_repository()
    imported = import_into(
        repository, dump, client_tools, name="renamed", taken=datetime(2026, 1, 31, 2, tzinfo=UTC)
    )
    manifest = imported.manifest
    assert (manifest.name, manifest.server.database) == ("renamed", "solo")
    assert (manifest.globals.roles, manifest.globals.has_passwords) == (("boss", "postgres"), True)
    assert "boss" in manifest.owners
    files = files_of_import(repository, imported)
    kept = files.read("globals.sql").decode()
    assert "ALTER ROLE boss WITH SUPERUSER LOGIN PASSWORD" in kept
    assert "GRANT pg_monitor TO boss" in kept
    assert files.record.time == datetime(2026, 1, 31, 2, tzinfo=UTC)
    assert [table.rows for table in manifest.tables] == [2]


def test_rows_that_users_added_to_a_table_of_an_extension(tmp_path: Path) -> None:
    """As PostGIS keeps reference systems: the table is the extension's, and pg_dump saves the rows that users added."""
    install = b"CREATE EXTENSION tablefunc;\n\\stop here\n"
    as_postgis_does = """
        CREATE TABLE public.config (id int PRIMARY KEY, t text); ALTER EXTENSION tablefunc ADD TABLE public.config;
        CREATE TABLE public.ours (id int, t text);
        UPDATE pg_extension SET extconfig = ARRAY['public.config'::regclass::oid], extcondition = ARRAY['WHERE id > 9']
        WHERE extname = 'tablefunc'; INSERT INTO public.config VALUES (1, 'its own')"""
    rows = b"COPY public.%b (id, t) FROM stdin;\n10\ta user's\n11\t\\N\n\\.\nSELECT 1;\n"
    with Cluster(server_binaries(15), settings=server_settings(15)) as cluster:
        server = ScriptServer(
            cluster=cluster, progress=SilentProgress(), default_database="geo", default_encoding="UTF8"
        )

        def run(text: bytes) -> None:
            server.run(PieceReader(iter([text]), what="geo.sql"), name="geo.sql")

        with pytest.raises(ArchiveError, match="is a command to psql"):
            run(install)
        execute(server.conninfo("geo"), as_postgis_does)
        for text in (
            rows.replace(b"FROM stdin", b"FROM stdin WHERE id > 10") % b"config",  # which would be evaluated
            b"BEGIN;\n" + rows % b"config",
            rows % b"ours",
        ):
            with pytest.raises(PgstowError, match="permission denied for table"):
                run(text)
        run(rows % b"config")
        found = fetch(server.conninfo("geo"), "SELECT id, t FROM public.config ORDER BY 1")
        assert found == [(1, "its own"), (10, "a user's"), (11, None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", "# pgstow\n\nBackups, proven.\n", "README.md is no dump that pg_dump"),
        ("data.json", '{"a": 1}\n', "data.json is no dump"),
        ("my.sql", "-- MySQL dump 10.13\n/*!40101 SET NAMES utf8 */;\n", "but one of MySQL or MariaDB"),
    ],
)
def test_what_is_no_sql_starts_no_server(
    name: str, content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "__enter__", lambda _: pytest.fail("a server was started"))
    path = tmp_path / name
    path.write_text(content)
    repository = memory_repository()
    with pytest.raises(ArchiveError, match=message) as caught:
        import_into(repository, path, [])
    assert "custom, directory and tar archives and SQL" in str(caught.value.hint)
