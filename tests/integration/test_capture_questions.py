"""What a backup records for those who check a restore: newest rows and assertions, under its own snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from pgstow.app.backup_request import BackupRequest
from pgstow.capture.options import CapturedBackup
from pgstow.catalog.assertions import Assertion
from pgstow.catalog.manifest import NewestRow, Selection
from pgstow.core.errors import UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.backups import capture_into, memory_repository
from support.restoring import execute, fetch

Databases = Callable[..., ConnInfo]

LEDGER = """
    CREATE TABLE entries (id int PRIMARY KEY, amount numeric(12,2), at timestamptz);
    INSERT INTO entries SELECT i, i, '2026-11-20 10:00:00+02'::timestamptz + i * interval '1 minute' FROM generate_series(1, 100) i;
    CREATE TABLE empty (at timestamptz);
    CREATE TABLE old_entries () INHERITS (entries);
    INSERT INTO old_entries VALUES (1, 1, '2030-01-01');
    CREATE TABLE "Events" (id int, day date) PARTITION BY RANGE (day);
    CREATE TABLE events_1 PARTITION OF "Events" FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE events_2 PARTITION OF "Events" FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    INSERT INTO "Events" SELECT i, '2026-06-01'::date + i FROM generate_series(1, 60) i
"""
COLUMNS = {"entries": "at", "public.empty": "at", "public.Events": "day"}


def assertion(name: str, sql: str, **conditions: Any) -> Assertion:
    return Assertion(name=name, sql=sql, **conditions)


@pytest.fixture(scope="module")
def ledger(pg15: Cluster, shared_database: Databases) -> ConnInfo:
    source = shared_database(pg15)
    execute(source, LEDGER)
    return source


def take(source: ConnInfo, **options: Any) -> CapturedBackup:
    return capture_into(memory_repository(), source, **options)


def test_what_is_recorded_is_of_the_snapshot(pg18: Cluster, database: Databases) -> None:
    source = database(pg18)
    execute(source, LEDGER)

    def later(step: str) -> None:
        if step == "catalog read":
            execute(
                source,
                "INSERT INTO entries VALUES (101, 5, now() + interval '1 year'); UPDATE entries SET amount = 0",
            )

    held = assertion("sum", "SELECT sum(amount) FROM public.entries", equals="5051.00")
    manifest = take(source, time_columns=COLUMNS, assertions=(held,), checkpoint=later).manifest

    assert manifest.newest_rows() == {
        ("public", "entries"): NewestRow(column="at", value="2026-11-20 09:40:00+00"),
        ("public", "empty"): NewestRow(column="at", value=None),
        ("public", "Events"): NewestRow(column="day", value="2026-07-31"),
    }
    assert {table.name for table in manifest.tables if table.newest} == {"entries", "empty"}
    (recorded,) = manifest.recorded
    assert (recorded.name, recorded.sql, recorded.value, recorded.error) == (
        held.name,
        held.sql,
        "5051.00",
        None,
    )
    assert manifest.warnings == ()


def test_what_has_no_answer_is_a_warning(ledger: ConnInfo) -> None:
    asked = {
        "table": ("SELECT 1 FROM public.nothing", 'relation "public.nothing" does not exist'),
        "path": ("SELECT count(*) FROM entries", "does not exist"),  # the search path is ours
        "columns": ("SELECT 1, 2", "2 columns"),
        "rows": ("SELECT generate_series(1, 3000000000)", "more than one row"),
        "none": ("SELECT 1 WHERE false", "no row"),
        "slow": ("SELECT pg_catalog.pg_sleep(3600)", "no answer within 5 s"),
        "commit": ("COMMIT", "syntax error"),
        "end": ("SELECT 1; COMMIT", "multiple commands"),
        "writing": ("SELECT pg_catalog.nextval('public.s')", "read-only"),
        "deleting": (
            "WITH d AS (DELETE FROM public.entries RETURNING 1) SELECT count(*) FROM d",
            "must not contain",
        ),
        "false": ("SELECT 1", "does not hold in the source: it is '1' and not '2'"),
        "low": ("SELECT 1", "less than 2"),
    }
    execute(ledger, "CREATE SEQUENCE s")
    conditions: dict[str, dict[str, Any]] = {"false": {"equals": "2"}, "low": {"at_least": Decimal(2)}}
    manifest = take(
        ledger,
        assertions=tuple(
            assertion(name, query, **conditions.get(name, {"same_as_backup": True}))
            for name, (query, _) in asked.items()
        ),
        time_columns={"public.nothing": "at", "entries": "nothing", "empty": "at"},
        question_timeout_s=5.0,
    ).manifest

    assert manifest.totals.rows == 161 and manifest.attempts == 1
    messages = [warning.message for warning in manifest.warnings]
    for name, (_, complaint) in asked.items():
        assert any(f"assertion {name} " in message and complaint in message for message in messages), name
    assert any("no table public.nothing" in message for message in messages)
    assert any(
        "newest nothing of public.entries" in message and "does not exist" in message for message in messages
    )
    assert [one.name for one in manifest.recorded] == list(asked)
    assert {one.name for one in manifest.recorded if one.error is None} == {"false", "low"}
    assert set(manifest.newest_rows()) == {("public", "empty")}
    assert fetch(ledger, "SELECT is_called FROM s") == [(False,)]


def test_warnings_come_in_the_order_of_the_questions(ledger: ConnInfo) -> None:
    """Not of the answers, of which there are several at a time."""
    slow = assertion("slow", "SELECT count(*) FROM pg_catalog.pg_sleep(0.7)", equals="2")
    quick = assertion("quick", "SELECT 1", equals="2")
    manifest = take(ledger, assertions=(slow, quick), jobs=2).manifest
    assert [warning.message.split()[2] for warning in manifest.warnings] == ["slow", "quick"]


def test_tables_that_are_not_saved_have_no_newest_row(ledger: ConnInfo) -> None:
    critical = take(ledger, time_columns=COLUMNS, selection=Selection(tables=("public.Events",)))
    assert set(critical.manifest.newest_rows()) == {("public", "Events")}
    rest = take(ledger, time_columns=COLUMNS, selection=Selection(exclude_table_data=("entries",)))
    assert set(rest.manifest.newest_rows()) == {("public", "Events"), ("public", "empty")}
    assert rest.manifest.warnings == ()


def test_behind_a_queued_exclusive_lock_the_holder_of_our_locks_asks(ledger: ConnInfo) -> None:
    begun = threading.Event()

    def lock() -> None:
        with psycopg.connect(ledger.connect_string()) as other:
            begun.set()
            other.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")

    other = threading.Thread(target=lock)

    def wait_for_it(step: str) -> None:
        if step == "catalog read":
            other.start()
            begun.wait()
            while not fetch(ledger, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                time.sleep(0.05)

    asked = assertion("count", "SELECT count(*) FROM ONLY public.entries", equals="100")
    manifest = take(
        ledger, time_columns={"entries": "at"}, assertions=(asked,), checkpoint=wait_for_it
    ).manifest
    other.join()
    assert manifest.recorded[0].value == "100"
    assert manifest.newest_rows()["public", "entries"].value is not None
    assert manifest.warnings == ()


def test_queries_and_values_in_another_encoding(pg15: Cluster, database: Databases) -> None:
    source = database(pg15, options="ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    execute(source, 'CREATE TABLE "größe" ("né" text); INSERT INTO "größe" VALUES (\'é\')')
    asked = (
        assertion("accent", 'SELECT max("né") FROM public."größe" WHERE "né" <> \'ü\'', equals="é"),
        assertion("snowman", "SELECT '☃'", equals="☃"),
    )
    manifest = take(source, assertions=asked, time_columns={"größe": "né"}).manifest
    assert manifest.recorded[0].value == "é"
    assert manifest.newest_rows()["public", "größe"].value == "é"
    assert [warning.message for warning in manifest.warnings] == [
        "the assertion snowman has no value: its query cannot be written in LATIN1"
    ]


def test_requests_that_cannot_be_meant(ledger: ConnInfo) -> None:
    one = assertion("one", "SELECT 1", equals="1")
    with pytest.raises(UsageError, match="same name"):
        BackupRequest(source=ledger, assertions=(one, one)).check()
    with pytest.raises(UsageError, match="--checks cannot be combined with --all-databases"):
        BackupRequest(source=ledger, assertions=(one,)).check_for_all()
