"""Settings of server and database in a backup, as far as they hold no secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pgstow.catalog.manifest import ConfigurationRecord, SettingRecord
from pgstow.postgres.configuration import differing_in_results, read_configuration
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession
from pgstow.postgres.server import Cluster
from support.backups import capture_into, memory_repository
from support.restoring import execute

Databases = Callable[..., ConnInfo]


class ToldSession:
    """A session whose server answers what a test says."""

    def __init__(self, *rows: tuple[str, ...]) -> None:
        self._rows = [tuple(one.encode() for one in row) for row in rows]

    def rows(self, statement: bytes, **_: Any) -> list[tuple[bytes, ...]]:
        assert b"pg_settings" in statement
        return self._rows

    def value(self, statement: bytes, **_: Any) -> bytes:
        assert b"pg_read_all_settings" in statement
        return b"t"

    def decode(self, value: bytes) -> str:
        return value.decode()


def test_values_that_may_be_secret_are_left_out() -> None:
    file, text = "configuration file", "string"
    session = ToldSession(
        ("shared_buffers", "32768", "16384", "integer", file, "256MB"),
        ("archive_command", "curl -H token:hidden", "", text, file, "curl -H token:hidden"),
        ("primary_conninfo", "host=a password=hidden", "", text, file, "host=a password=hidden"),
        ("ssl_passphrase_command", "echo hidden", "", text, "command line", "echo hidden"),
        ("new_setting_of_20", "hidden", "", text, file, "hidden"),
        ("app.jwt_secret", "hidden", "", text, "database", "hidden"),
        ("shared_preload_libraries", "pg_cron", "", text, file, "pg_cron"),
        ("wal_level", "logical", "replica", "enum", file, "logical"),
        ("fsync", "on", "on", "bool", file, "on"),
        ("work_mem", "1", "4096", "integer", "user", "1kB"),
        ("search_path", "x", "public", text, "session", "x"),
        ("max_connections", "100", "100", "integer", "default", "100"),
    )
    found = {one.name: one.value for one in read_configuration(cast("RawSession", session)).settings}
    assert found == {
        "shared_buffers": "256MB",
        "archive_command": None,
        "primary_conninfo": None,
        "ssl_passphrase_command": None,
        "new_setting_of_20": None,
        "app.jwt_secret": None,
        "shared_preload_libraries": "pg_cron",
        "wal_level": "logical",
    }


def test_what_differs() -> None:
    there = {"TimeZone": "Europe/Berlin", "work_mem": "5MB", "search_path": "app"}
    here = {"TimeZone": "Etc/UTC", "work_mem": "8MB", "xmloption": "document"}
    assert list(differing_in_results(there, here)) == [
        ("TimeZone", "Europe/Berlin", "Etc/UTC"),
        ("search_path", "app", "the default"),
        ("xmloption", "the default", "document"),
    ]


def take(source: ConnInfo) -> tuple[ConfigurationRecord, bytes]:
    manifest = capture_into(memory_repository(), source).manifest
    assert manifest.configuration is not None
    assert [warning for warning in manifest.warnings if warning.code == "configuration"] == []
    return manifest.configuration, manifest.to_json()


def test_what_a_backup_records(pg18: Cluster, database: Databases) -> None:
    source = database(pg18)
    execute(source, f"ALTER DATABASE {source.dbname} SET app.jwt_secret = 'not-to-be-told'")
    execute(source, f"ALTER DATABASE {source.dbname} SET search_path = app, public")
    found, manifest = take(source)
    assert (found.is_captured, found.is_complete, found.missing) == (True, True, ())
    settings = {one.name: one for one in found.settings}
    assert (
        "app.jwt_secret" not in settings
    )  # of no library: the server does not list it, and the archive has it
    assert settings["search_path"].value == "app, public"
    assert settings["TimeZone"] == SettingRecord(
        name="TimeZone", value="Etc/UTC", source="configuration file"
    )
    assert settings["fsync"].value == "off"
    assert not settings.keys() & {"statement_timeout", "client_encoding", "application_name", "bytea_output"}
    assert b"not-to-be-told" not in manifest


def test_a_role_that_may_not_see_all(pg15: Cluster, database: Databases) -> None:
    source = database(pg15)
    execute(source, "CREATE ROLE short_sighted LOGIN; CREATE TABLE t (); GRANT SELECT ON t TO short_sighted")
    try:
        found, _ = take(ConnInfo.parse(pg15.conninfo(source.dbname, user="short_sighted")))
        assert (found.is_captured, found.is_complete) == (True, False)
        assert found.missing == ("settings that only members of pg_read_all_settings may see",)
        assert "fsync" in {one.name for one in found.settings}
    finally:
        execute(source, "DROP OWNED BY short_sighted; DROP ROLE short_sighted")


def test_functions_of_the_database_are_not_called(pg15: Cluster, database: Databases) -> None:
    """The owner of a database may put a schema of his before pg_catalog, for whoever comes to back it up."""
    source = database(pg15)
    execute(
        source,
        """CREATE TABLE called (by text);
        CREATE FUNCTION lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.called VALUES (current_user);
            RETURN pg_catalog.lower($1); END $$;
        CREATE FUNCTION same(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.called VALUES (current_user);
            RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
        CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = same)""",
    )
    execute(source, f"ALTER DATABASE {source.dbname} SET search_path = public, pg_catalog")
    captured = capture_into(memory_repository(), source)
    assert captured.manifest.totals.rows == 0
    execute(source, "DO $$ BEGIN IF EXISTS (SELECT FROM public.called) THEN RAISE 'called'; END IF; END $$")
