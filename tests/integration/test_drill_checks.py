"""What the checks of a restored database find, and that they find nothing where nothing is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pgstow.assurance.drill.checking import CODES
from pgstow.assurance.drill.checks import indexes
from pgstow.catalog.assertions import Assertion
from pgstow.catalog.drills import CheckRecord
from pgstow.catalog.manifest import Selection
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import RawSession
from pgstow.postgres.server import Cluster
from pgstow.restore import ArchiveFiles, RestoreReport
from support.backups import capture_into, files_of, memory_repository
from support.checked import (
    ATTRIBUTES,
    SUBSCRIPTION,
    WITH_HISTORY,
    WITH_HISTORY_SINCE_18,
    WITH_ICU,
    checked,
    copied,
    issues,
    make_roles,
    restored_in,
)
from support.every_kind import create_every_kind
from support.restoring import bring_back, execute, fetch

Databases = Callable[..., ConnInfo]

TOTAL = Assertion(name="total", sql="SELECT sum(balance) FROM app.accounts", equals="5000")
SAME = Assertion(name="same", sql="SELECT count(*) FROM app.orders", same_as_backup=True)
# Servers that come as a Python package have no amcheck; that is said, and fails no drill.
WITHOUT_AMCHECK = {("amcheck", "unknown", "warning"), ("tables", "unknown", "warning")}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A backup of a database with everything in it, and a server where it was restored."""

    source: ConnInfo
    cluster: Cluster
    files: ArchiveFiles
    target: ConnInfo
    report: RestoreReport

    def broken(self, name: str, statements: str, **context: Any) -> tuple[CheckRecord, ...]:
        """Return what is found in a copy of the restored database that ``statements`` have changed."""
        target = copied(self.cluster, name)
        for statement in filter(None, (one.strip() for one in statements.split(";\n"))):
            execute(target, statement)
        return checked(target, self.files, self.report, **context)


def make_world(major: int, request: pytest.FixtureRequest) -> World:
    origin: Cluster = request.getfixturevalue(f"pg{major}")
    make_roles(origin)
    source = request.getfixturevalue("shared_database")(origin)
    create_every_kind(source, role="checks_owner")
    execute(source, WITH_HISTORY)
    if major >= 18:
        execute(source, WITH_HISTORY_SINCE_18)
    name = source.dbname
    execute(source, f"ALTER DATABASE {name} SET work_mem = '5MB'")
    execute(source, f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC")
    execute(source, f"GRANT CREATE ON DATABASE {name} TO checks_reader")
    execute(source, f"ALTER ROLE checks_owner IN DATABASE {name} SET enable_sort = off")
    execute(source, SUBSCRIPTION)
    repository = memory_repository()
    backup = capture_into(
        repository,
        source,
        time_columns={"app.status": "at", "app.events": "at", "app.no_columns": "at"},
        assertions=(TOTAL, SAME),
    )
    execute(source, "DROP SUBSCRIPTION far_away")
    files = files_of(repository, backup)
    cluster: Cluster = request.getfixturevalue("make_module_cluster")(major)
    target, report = restored_in(cluster, files)
    return World(source=source, cluster=cluster, files=files, target=target, report=report)


@pytest.fixture(scope="module")
def world_of(request: pytest.FixtureRequest) -> Callable[[int], World]:
    """Make the world of a release when the first test asks."""
    return functools.cache(lambda major: make_world(major, request))


@pytest.fixture(params=[15, 18], ids=lambda major: f"pg{major}")
def every_world(request: pytest.FixtureRequest, world_of: Callable[[int], World]) -> World:
    return world_of(request.param)


@pytest.fixture
def world(world_of: Callable[[int], World]) -> World:
    """The one that has amcheck."""
    return world_of(15)


def found(records: tuple[CheckRecord, ...]) -> set[tuple[str, str]]:
    return {(one.code, one.subject or "") for one in records if one.outcome == "fail"}


def of(records: tuple[CheckRecord, ...], code: str, subject: str | None = None) -> CheckRecord:
    matching = [one for one in records if one.code == code and (subject is None or one.subject == subject)]
    assert len(matching) == 1, matching
    return matching[0]


def test_nothing_is_found_where_nothing_is_wrong(every_world: World) -> None:
    world = every_world
    records = checked(world.target, world.files, world.report, assertions=(TOTAL, SAME))

    odd = {(one.code, one.outcome, one.severity) for one in issues(records)}
    assert odd <= (WITHOUT_AMCHECK if world.cluster.version[0] != 15 else set()), issues(records)
    assert [code for code in CODES if code not in {one.code for one in records}] == []
    passed = {one.code for one in records if one.outcome == "pass"}
    assert passed | {"amcheck", "tables"} == set(CODES), [one for one in records if one.outcome == "skipped"]


def test_what_was_broken_in_definitions_is_found(world: World) -> None:
    breakages = {
        "DROP INDEX app.orders_account": ("indexes", "app.orders_account"),
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.status_expr'::regclass": (
            "indexes",
            "app.status_expr",
        ),
        "ALTER TABLE app.orders DROP CONSTRAINT orders_self_fkey": ("constraints", "app.orders orders_self_fkey"),
        "UPDATE pg_constraint SET convalidated = false WHERE conname = 'orders_account_fkey'": (
            "constraints",
            "app.orders orders_account_fkey",
        ),
        "UPDATE pg_constraint SET convalidated = false WHERE conname = 'even'": ("constraints", "app.status even"),
        "ALTER TABLE app.status DROP CONSTRAINT status_kind_check": ("constraints", "app.status status_kind_check"),
        "ALTER DOMAIN app.positive DROP CONSTRAINT positive_check": (
            "constraints",
            "app.positive positive_check",
        ),
        "ALTER TABLE app.parent DROP CONSTRAINT never_held": ("constraints", "app.parent never_held"),
        "SELECT setval('app.counter', 50, true)": ("sequences", "app.counter"),
        "SELECT setval('app.untouched', 1, true)": ("sequences", "app.untouched"),
        "DROP TRIGGER stamped ON app.parent": ("objects", "trigger app.parent stamped"),
        "DROP POLICY own ON app.accounts": ("objects", "policy app.accounts own"),
        "ALTER TABLE app.accounts DISABLE ROW LEVEL SECURITY": ("objects", "row security app.accounts"),
        "DROP FUNCTION app.atomic(text)": ("objects", "function app.atomic(text)"),
        "DROP OPERATOR app.@@@ (bigint, bigint)": ("objects", "operator app.@@@"),
        "DROP VIEW app.some_status": ("objects", "view app.some_status"),
        "DROP EVENT TRIGGER watch_ddl": ("objects", "event trigger watch_ddl"),
        "ALTER TABLE app.events DETACH PARTITION app.events_rest": ("objects", "table attach app.events_rest"),
        "ALTER PUBLICATION pub DROP TABLE app.orders": ("objects", "publication table app.pub orders"),
        "ALTER TABLE app.status NO FORCE ROW LEVEL SECURITY": ("definitions", "table app.status"),
        "ALTER TABLE app.kinds ALTER words DROP NOT NULL": ("definitions", "table app.kinds"),
        "ALTER TABLE app.status ENABLE TRIGGER sleeping": ("definitions", "trigger app.status sleeping"),
        "CREATE OR REPLACE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'": (
            "definitions",
            "function app.noted()",
        ),
        "ALTER TABLE app.many_pages OWNER TO checks_reader": ("owners", "table app.many_pages"),
        "REVOKE INSERT ON app.status FROM checks_reader": ("privileges", "acl app.TABLE status"),
        "GRANT DELETE ON app.status TO PUBLIC": ("privileges", "acl app.TABLE status"),
        "GRANT EXECUTE ON FUNCTION app.total(int) TO checks_owner": None,  # more than before is told of objects that have some
        "REFRESH MATERIALIZED VIEW app.totals WITH NO DATA": ("materialized_views", "app.totals"),
        "SELECT lo_unlink(900003)": ("large_objects", "900003"),
        "SELECT lo_put(900002, 3100000, 'z')": ("large_objects", "900002"),
        "SELECT lo_put(900001, 12, '!')": ("large_objects", "900001"),
        "ALTER LARGE OBJECT 900001 OWNER TO checks_reader": ("owners", "large object 900001"),
        "ALTER DATABASE broken_definitions RESET work_mem": ("settings", ""),
        "REVOKE CREATE ON DATABASE broken_definitions FROM checks_reader": ("privileges", "the database itself"),
        "GRANT SELECT ON app.kinds TO PUBLIC": ("privileges", "acl app.TABLE kinds"),
        "ALTER TABLE app.turned DETACH PARTITION app.turned_1": ("objects", "table attach app.turned_1"),
        "ALTER TABLE app.child NO INHERIT app.parent": ("definitions", "table app.child"),
        "ALTER TABLE app.only_generated ALTER one DROP EXPRESSION": ("definitions", "table app.only_generated"),
        "ALTER TABLE app.numbered ALTER g SET GENERATED ALWAYS": ("definitions", "sequence app.numbered_g_seq"),
        "ALTER SEQUENCE other.down NO CYCLE": ("definitions", "sequence other.down"),
        "ALTER TABLE app.numbered ALTER id SET DEFAULT nextval('other.owned')": ("definitions", "table app.numbered"),
        "ALTER TABLE app.orders ALTER CONSTRAINT orders_account_fkey NOT DEFERRABLE": ("definitions", "fk constraint app.orders orders_account_fkey"),
        "ALTER TABLE app.booked DROP CONSTRAINT booked_during_excl": ("constraints", "app.booked booked_during_excl"),
        "DROP RULE kept ON app.numbered": ("objects", "rule app.numbered kept"),
        "DROP STATISTICS app.of_expression": ("objects", "statistics app.of_expression"),
        "ALTER TEXT SEARCH CONFIGURATION app.words ALTER MAPPING FOR word WITH simple": ("definitions", "text search configuration app.words"),
        "DROP COLLATION app.mycoll": ("objects", "collation app.mycoll"),
        "DROP CAST (app.pair AS text)": ("objects", "cast CAST (app.pair AS text)"),
        "ALTER TABLE app.unlogged SET LOGGED": ("definitions", "table app.unlogged"),
        "ALTER SUBSCRIPTION far_away CONNECTION 'host=nowhere.example password=other'": ("definitions", "subscription far_away"),
        "ALTER PUBLICATION some_rows SET TABLE app.status (id, n) WHERE (id < 7 AND id <> 9)": ("definitions", "publication table app.some_rows status"),
        "ALTER DEFAULT PRIVILEGES FOR ROLE checks_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC": ("privileges", "default acl DEFAULT PRIVILEGES FOR FUNCTIONS"),
        "CREATE OR REPLACE VIEW app.rich AS SELECT * FROM app.accounts WHERE balance < 50": ("definitions", "view app.rich"),
        "ALTER TYPE app.mood ADD VALUE 'more'": ("definitions", "type app.mood"),
        "COMMENT ON COLUMN app.accounts.balance IS 'cents'": ("definitions", "comment app.COLUMN accounts.balance"),
        "COMMENT ON LARGE OBJECT 900001 IS NULL": ("definitions", "comment LARGE OBJECT 900001"),
        "ALTER FOREIGN TABLE app.far ADD more int": ("definitions", "foreign table app.far"),
        "UPDATE app.status SET at = '2030-01-01' WHERE id = 377": ("newest_rows", "app.status"),
    }  # fmt: skip
    records = world.broken("broken_definitions", ";\n".join(["SET allow_system_table_mods = on", *breakages]))
    there = found(records)
    assert [what for what, where in breakages.items() if where is not None and where not in there] == []
    # nothing else but what hangs on these
    assert {code for code, _ in there} <= {where[0] for where in breakages.values() if where is not None}
    newest = of(records, "newest_rows", "app.status")
    assert (newest.expected, newest.found) == ("2026-11-20 02:06:40+00", "2030-01-01 00:00:00+00")
    counter = of(records, "sequences", "app.counter")
    assert (counter.expected, counter.found) == ("49", "50")
    assert "1, which was not given yet" in (of(records, "sequences", "app.untouched").expected or "")


def test_settings_of_the_server_are_told_for_information(world: World) -> None:
    name = "set_otherwise"
    copy = copied(world.cluster, name)
    records = checked(copy, world.files, world.report)
    assert of(records, "settings", "configuration").outcome == "pass"
    execute(copy, f"ALTER DATABASE {name} SET TimeZone = 'Asia/Tokyo'")
    differing = of(checked(copy, world.files, world.report), "settings", "configuration")
    assert differing.outcome == "skipped"
    assert "TimeZone (Etc/UTC in the source, Asia/Tokyo here)" in differing.message


def test_secrets_in_definitions_and_settings_are_not_told(world: World) -> None:
    execute(
        copy := copied(world.cluster, "leaking"),
        "ALTER SUBSCRIPTION far_away CONNECTION 'host=x password=other'",
    )
    execute(copy, "ALTER DATABASE leaking RESET ALL")
    told = [
        one
        for one in issues(checked(copy, world.files, world.report))
        if one.code in {"definitions", "settings"}
    ]
    assert {one.subject for one in told} == {"subscription far_away", None}
    shown = "".join(one.model_dump_json() for one in told)
    assert "password" not in shown and "5MB" not in shown


def test_missing_roles_and_memberships_are_found(world: World) -> None:
    server = world.target.with_database("postgres")
    execute(server, "CREATE ROLE stand_in")
    try:
        execute(server, "REVOKE checks_reader FROM checks_owner")
        execute(server, "ALTER ROLE checks_reader NOCREATEDB CONNECTION LIMIT 8")
        execute(server, "ALTER ROLE checks_reader RESET search_path")
        execute(server, "REVOKE ADMIN OPTION FOR pg_monitor FROM checks_reader")
        changed = [one for one in checked(world.target, world.files, world.report) if one.code == "roles"]
        told = {(one.message.partition(" with ")[0], one.severity, one.subject) for one in changed}
        assert told == {
            ("the role has other attributes than in the source", "error", "checks_reader"),
            ("settings of the role did not come back: search_path", "warning", "checks_reader"),
            ("checks_reader is a member of pg_monitor", "warning", "checks_reader"),
            ("checks_owner is not a member of checks_reader", "error", "checks_owner"),
        }
        expected = {one.expected for one in changed if "attributes" in one.message}
        assert expected == {"CREATEDB, BYPASSRLS, CONNECTION LIMIT 7, VALID UNTIL 2030-12-31 19:00:00+00"}
        execute(server, ATTRIBUTES)
        execute(server, "ALTER ROLE checks_reader RENAME TO gone_reader")
        records = checked(world.target, world.files, world.report)
        assert ("roles", "checks_reader") in found(records)
        execute(server, "ALTER ROLE gone_reader RENAME TO checks_reader")
        records = checked(world.target, world.files, world.report)
        assert of(records, "roles").message == "checks_owner is not a member of checks_reader"
    finally:
        execute(server, "GRANT checks_reader TO checks_owner")
        execute(server, "DROP ROLE stand_in")


class Meddler(SilentProgress):
    """Changes rows of the target after all was loaded, before they are read back."""

    def __init__(self, target: ConnInfo) -> None:
        self._target = target

    def phase(self, name: str) -> None:
        if name.startswith("comparing"):
            execute(
                self._target, "SET session_replication_role = replica; DELETE FROM app.accounts WHERE id = 50"
            )
            execute(self._target, "UPDATE app.orders SET self = NULL WHERE id = 77")
            execute(self._target, "INSERT INTO app.events VALUES (999, '2024-07-01', 'more')")


def test_lost_changed_and_added_rows_are_found(world: World) -> None:
    execute(world.target.with_database("postgres"), "DROP DATABASE IF EXISTS meddled")
    meddled = ConnInfo.parse(world.cluster.conninfo("meddled"))
    target, report = restored_in(world.cluster, world.files, "meddled", progress=Meddler(meddled))
    records = checked(target, world.files, report, assertions=(TOTAL, SAME))

    there = found(records)
    content = {subject for code, subject in there if code == "content"}
    assert {"app.accounts", "app.orders"} < content and len(content) == 3
    counts = {subject for code, subject in there if code == "row_counts"}
    assert "app.accounts" in counts and "app.orders" not in counts and len(counts) == 2
    total = of(records, "assertion", "total")
    assert (total.outcome, total.expected, total.found) == ("fail", "5000", "4900")
    assert "it held when the backup was made" in total.message


def test_a_table_that_nobody_compared_is_unknown(world: World) -> None:
    report = replace(
        world.report, compared=tuple(one for one in world.report.compared if one.name != "orders")
    )
    records = checked(world.target, world.files, report)
    assert of(records, "content").outcome == of(records, "row_counts").outcome == "unknown"
    assert of(records, "content").subject == "app.orders"


def test_without_pg_dump_definitions_are_unknown(world: World) -> None:
    records = checked(world.target, world.files, world.report, tools=None)
    assert {one.code for one in issues(records)} == {
        "objects",
        "definitions",
        "owners",
        "privileges",
        "settings",
    }
    assert all(one.severity == "error" and one.outcome == "unknown" for one in issues(records))


def test_broken_pages_are_found(world: World) -> None:
    """In files of a server that is stopped: a key of an index, the head of a table's page, an index that is cut off."""
    target = copied(world.cluster, "broken_pages")
    paths = {
        name: Path(fetch(target, f"SELECT pg_relation_filepath('{name}')")[0][0])
        for name in ("app.orders_pkey", "app.many_pages", "app.status_pkey")
    }
    world.cluster.stop()
    try:
        data = world.cluster.data_dir
        _overwrite(data / paths["app.orders_pkey"], 2 * 8192 - 24, b"\xff\xff\xff\x7f")
        _overwrite(data / paths["app.many_pages"], 4 * 8192, b"\xa5" * 24)
        (data / paths["app.status_pkey"]).write_bytes(b"")
    finally:
        world.cluster.start()
    records = checked(target, world.files, world.report)
    there = found(records)
    assert {
        ("amcheck", "app.orders_pkey"),
        ("tables", "app.many_pages"),
        ("amcheck", "app.status_pkey"),
    } <= there


def _overwrite(path: Path, offset: int, garbage: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(garbage)


def test_a_row_that_an_index_lacks_is_found(world: World) -> None:
    target = copied(world.cluster, "unindexed")
    execute(target, "UPDATE pg_index SET indisready = false WHERE indexrelid = 'app.accounts_pkey'::regclass")
    execute(target, "INSERT INTO app.accounts VALUES (51, 0)")
    execute(target, "UPDATE pg_index SET indisready = true WHERE indexrelid = 'app.accounts_pkey'::regclass")
    execute(
        target, "ALTER DATABASE unindexed SET default_transaction_read_only = on"
    )  # which does not keep amcheck out
    records = checked(target, world.files, world.report)
    assert "lacks matching index tuple" in of(records, "amcheck").message
    assert of(records, "amcheck").subject == "app.accounts_pkey"


def test_a_server_that_breaks_down_proves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """amcheck itself may die of what it finds; what was still to be looked at is unknown then."""

    def die(session: RawSession, *_: Any, **__: Any) -> bytes | None:
        world.cluster.kill()
        return session.value(b"SELECT 1", doing="checking the index")

    monkeypatch.setattr(indexes, "broken_index", die)
    target = copied(world.cluster, "breaking_down")
    try:
        records = checked(target, world.files, world.report, jobs=1, assertions=(TOTAL,))
    finally:
        world.cluster.start()
    broken = [one for one in issues(records) if one.code == "amcheck"]
    assert any("the server broke down" in one.message and one.subject for one in broken), records
    assert of(records, "assertion").outcome == of(records, "content").outcome == "pass"


def test_assertions(world: World) -> None:
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "equal": ({"sql": "SELECT 1", "equals": "1"}, "pass", "it holds: 1"),
        "number": (
            {"sql": "SELECT sum(amount) - 25.50 FROM app.kinds", "equals": "125349.5"},
            "pass",
            "it holds: 125349.50",
        ),
        "boolean": (
            {"sql": "SELECT count(*) = 200 FROM app.orders", "equals": "true"},
            "pass",
            "it holds: t",
        ),
        "unequal": ({"sql": "SELECT 1", "equals": "2"}, "fail", "whether it held in the source is not known"),
        "null": ({"sql": "SELECT NULL", "is_null": True}, "pass", "it holds: NULL"),
        "range": ({"sql": "SELECT 3.5", "at_least": Decimal(3), "at_most": Decimal(4)}, "pass", ""),
        "beyond": ({"sql": "SELECT 5", "at_most": Decimal(4)}, "fail", "more than 4"),
        "rows": ({"sql": "SELECT id FROM app.orders", "equals": "1"}, "unknown", "more than one row"),
        "columns": ({"sql": "SELECT 1, 2", "equals": "1"}, "unknown", "2 columns"),
        "missing": ({"sql": "SELECT 1 FROM app.nothing", "equals": "1"}, "unknown", "does not exist"),
        "writing": ({"sql": "SELECT nextval('app.counter')", "equals": "1"}, "unknown", "read-only"),
        "ending": ({"sql": "COMMIT", "equals": "1"}, "unknown", "syntax error"),
        "unrecorded": (
            {"sql": "SELECT 1", "same_as_backup": True},
            "unknown",
            "the backup does not hold what to compare with",
        ),
        "same": (
            {"sql": SAME.sql, "same_as_backup": True},
            "pass",
            "it is what it was when the backup was made: 200",
        ),
        "total": ({"sql": "SELECT 5000", "same_as_backup": True}, "unknown", "another query under this name"),
    }
    assertions = tuple(Assertion(name=name, **given) for name, (given, _, _) in cases.items())
    mild = Assertion(name="mild", sql="SELECT 1", equals="2", severity="warning")
    records = checked(world.target, world.files, world.report, assertions=(*assertions, mild))
    for name, (_, outcome, message) in cases.items():
        record = of(records, "assertion", name)
        assert record.outcome == outcome, record
        assert message in record.message, record
        is_old = name in {"unrecorded", "total"}  # no backup of before can know: that fails no drill
        assert record.severity == ("warning" if is_old else "error"), record
    assert of(records, "assertion", "mild").severity == "warning"
    assert fetch(world.target, "SELECT last_value FROM app.counter") == [(49,)]


def test_what_was_so_in_the_source_already_is_said(world: World, pg15: Cluster, database: Databases) -> None:
    source = database(pg15)
    execute(source, "CREATE TABLE t AS SELECT 1 AS a")
    wrong = Assertion(name="wrong", sql="SELECT count(*) FROM public.t", equals="2")
    unasked = Assertion(name="unasked", sql="SELECT count(*) FROM public.u", same_as_backup=True)
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source, assertions=(wrong, unasked)))
    target, report = restored_in(world.cluster, files, "was_so")
    execute(target, "CREATE TABLE u ()")
    records = checked(target, files, report, assertions=(wrong, unasked))
    assert "it was so already when the backup was made (1)" in of(records, "assertion", "wrong").message
    assert "it had no value when the backup was made" in of(records, "assertion", "unasked").message


def test_extensions_that_may_be_missing(world: World, pg15: Cluster, database: Databases) -> None:
    source = database(pg15)
    execute(source, WITH_ICU)
    execute(
        source,
        """CREATE EXTENSION pg_trgm; CREATE EXTENSION citext; CREATE TABLE words (id int PRIMARY KEY, w text, c citext);
        CREATE INDEX trgm ON words USING gin (w gin_trgm_ops); INSERT INTO words VALUES (1, 'one', 'Two')""",
    )
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, source, time_columns={"words": "id"}))
    target, report = restored_in(world.cluster, files, "extended")
    assert issues(checked(target, files, report)) == []

    execute(target, "DROP EXTENSION pg_trgm CASCADE")
    records = checked(target, files, report)
    assert {("extensions", "pg_trgm"), ("indexes", "public.trgm")} <= found(records)
    records = checked(target, files, report, optional_extensions=frozenset({"pg_trgm"}))
    assert issues(records) == []
    assert of(records, "extensions", "pg_trgm").outcome == "skipped"

    execute(target, "UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'citext'")
    records = checked(target, files, report, optional_extensions=frozenset({"pg_trgm"}))
    (older,) = issues(records)
    assert (older.code, older.subject, older.severity, older.found) == (
        "extensions",
        "citext",
        "warning",
        "1.0",
    )

    execute(target, "DROP EXTENSION citext CASCADE")  # and with it a column, not the table
    records = checked(target, files, report, optional_extensions=frozenset({"pg_trgm", "citext"}))
    assert issues(records) == []
    assert of(records, "newest_rows").outcome == "skipped"


def test_a_newer_server_prints_definitions_in_its_own_way(
    world: World, world_of: Callable[[int], World]
) -> None:
    target, report = restored_in(world_of(18).cluster, world.files, "from_15")
    records = checked(target, world.files, report, assertions=(TOTAL, SAME))
    odd = {(one.code, one.outcome, one.severity) for one in issues(records)}
    assert odd == WITHOUT_AMCHECK, issues(records)
    assert of(records, "definitions").outcome == of(records, "privileges").outcome == "skipped"
    assert of(records, "objects").outcome == of(records, "owners").outcome == "pass"


def test_a_database_of_ours_on_a_given_server(world: World, request: pytest.FixtureRequest) -> None:
    """As an ordinary role that owns the database: what it may not do is said, and fails nothing."""
    server = world.target.with_database("postgres")
    execute(server, "CREATE ROLE tenant LOGIN CREATEDB")
    execute(server, "CREATE DATABASE given OWNER tenant")
    target = ConnInfo.parse(world.cluster.conninfo("given", user="tenant"))
    origin = request.getfixturevalue("shared_database")(request.getfixturevalue("pg15"))
    execute(
        origin,
        "CREATE TABLE t (id serial PRIMARY KEY, a text CHECK (a <> '')); INSERT INTO t (a) VALUES ('x')",
    )
    repository = memory_repository()
    files = files_of(repository, capture_into(repository, origin))
    report = bring_back(
        files, target, compare=True, report_differences=True, no_owner=True, no_privileges=True
    )
    records = checked(target, files, report, is_throwaway=False)
    assert {(one.code, one.outcome, one.severity) for one in issues(records)} == WITHOUT_AMCHECK
    assert {one.code for one in records if one.outcome == "skipped"} >= {"roles", "owners", "privileges"}

    execute(target, "DROP TABLE t")
    assert {"objects", "sequences", "constraints"} <= {
        code for code, _ in found(checked(target, files, report, is_throwaway=False))
    }


def test_chosen_tables_alone(world: World, pg15: Cluster, database: Databases) -> None:
    """A foreign key to a table that was not chosen cannot be set: said, and no failure."""
    source = database(pg15)
    execute(
        source,
        """CREATE TABLE accounts (id int PRIMARY KEY); INSERT INTO accounts VALUES (1);
        CREATE TABLE orders (id int PRIMARY KEY, account int REFERENCES accounts); INSERT INTO orders VALUES (7, 1)""",
    )
    total = Assertion(name="total", sql="SELECT count(*) FROM public.accounts", equals="1")
    same = Assertion(name="same", sql="SELECT max(id) FROM public.orders", same_as_backup=True)
    repository = memory_repository()
    backup = capture_into(
        repository, source, selection=Selection(tables=("public.orders",)), assertions=(total, same)
    )
    files = files_of(repository, backup)
    target, report = restored_in(world.cluster, files, "chosen")
    records = checked(target, files, report, assertions=(total, same))
    assert issues(records) == []
    unset = of(records, "constraints")
    assert (unset.outcome, unset.subject) == ("skipped", "public.orders orders_account_fkey")
    assert of(records, "assertion", "total").outcome == "skipped"
    assert of(records, "assertion", "same").outcome == "pass"


@pytest.mark.parametrize("encoding", ["EUC_JP", "SQL_ASCII"])
def test_other_encodings(encoding: str, world: World, pg15: Cluster, database: Databases) -> None:
    source = database(pg15, options=f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    word = "日本" if encoding == "EUC_JP" else "Größe é"
    execute(
        source,
        f"""SET client_encoding = 'UTF8'; CREATE SCHEMA "{word}";
        CREATE TABLE "{word}"."{word}" ("{word}" text PRIMARY KEY CONSTRAINT "{word} x" CHECK ("{word}" <> 'ö'), b serial);
        INSERT INTO "{word}"."{word}" VALUES ('{word}');
        CREATE MATERIALIZED VIEW "{word}".m AS SELECT '{word}' AS c""".replace(
            "'ö'", "'ö'" if encoding != "EUC_JP" else "'x'"
        ),
    )
    total = Assertion(
        name="total", sql=f'SELECT max("{word}") FROM "{word}"."{word}"', equals=word, same_as_backup=True
    )
    repository = memory_repository()
    backup = capture_into(repository, source, assertions=(total,), time_columns={f"{word}.{word}": word})
    files = files_of(repository, backup)
    target, report = restored_in(world.cluster, files, f"in_{encoding.lower()}")
    assert issues(checked(target, files, report, assertions=(total,))) == []
    execute(
        target, f"""SET client_encoding = 'UTF8'; ALTER TABLE "{word}"."{word}" DROP CONSTRAINT "{word} x" """
    )
    (lost, other) = issues(checked(target, files, report, assertions=(total,)))
    assert (lost.code, lost.subject) == ("definitions", f"table {word}.{word}")
    assert (other.code, other.subject) == ("constraints", f"{word}.{word} {word} x")
