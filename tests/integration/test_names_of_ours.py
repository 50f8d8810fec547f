"""Whatever users call their columns, tables and functions: what we ask of the server means what we mean.

A column that stands nearer than ours takes its place silently, and a backup once was wrong for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pgstow
from pgstow.capture import logical
from pgstow.capture.tables import TableTask
from pgstow.catalog.assertions import Assertion
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.catalog.manifest import Manifest, NewestRow
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.checked import checked, issues
from support.restoring import assert_equal_rows, bring_back, execute, fetch
from support.shop import Shop, ranges, table

pytestmark = pytest.mark.integration

Databases = Callable[..., ConnInfo]

_SQL = re.compile(r"\b(SELECT|FROM|WHERE|JOIN|AS|GROUP BY|COPY|LOCK)\b")
_NAME = re.compile(r"\b[a-z_][a-z0-9_]{0,62}\b")
_REFUSED = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}  # by the server, as names of columns
_MOST_COLUMNS = 1500

# What stands before pg_catalog where the owner of the database says so. Whoever calls these learns of it.
_TRAPS = """
CREATE SCHEMA trap;
CREATE DOMAIN trap.int8 AS pg_catalog.int8 CHECK (false);
CREATE DOMAIN trap.tid AS pg_catalog.tid CHECK (false);
CREATE DOMAIN trap.regclass AS pg_catalog.regclass CHECK (false);
CREATE FUNCTION trap.spring() RETURNS bool LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'a trap'; END$$;
CREATE FUNCTION trap.age(pg_catalog.xid) RETURNS int LANGUAGE sql AS 'SELECT trap.spring()::int';
CREATE FUNCTION trap.hashtidextended(pg_catalog.tid, pg_catalog.int8) RETURNS pg_catalog.int8 LANGUAGE sql AS 'SELECT trap.spring()::int';
CREATE FUNCTION trap.format(text, pg_catalog.int8) RETURNS text LANGUAGE sql AS 'SELECT trap.spring()::text';
CREATE FUNCTION trap.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT trap.spring()::text';
CREATE FUNCTION trap.quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT trap.spring()::text';
CREATE FUNCTION trap.same(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT trap.spring()';
CREATE FUNCTION trap.same("char", "char") RETURNS bool LANGUAGE sql AS 'SELECT trap.spring()';
CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.same);
CREATE OPERATOR trap.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = trap.same);
CREATE TABLE trap.pg_class (oid int, relname text); INSERT INTO trap.pg_class VALUES (1, 'a');
CREATE TABLE trap.pg_attribute (attname text); INSERT INTO trap.pg_attribute VALUES ('a');
CREATE TABLE trap.pg_locks (pid int); INSERT INTO trap.pg_locks VALUES (1);
CREATE TABLE trap.pg_largeobject (loid int); INSERT INTO trap.pg_largeobject VALUES (1);
"""


def names_of_ours() -> Iterator[str]:
    """Yield every name in a text that may be SQL, and many that are none."""
    folder = Path(pgstow.__file__).parent
    for part in ("postgres", "capture", "restore", "assurance"):
        for path in sorted((folder / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                value = node.value if isinstance(node, ast.Constant) else None
                text = value.decode("latin-1") if isinstance(value, bytes) else value
                if isinstance(text, str) and _SQL.search(text):
                    yield from _NAME.findall(text)


def fill(source: ConnInfo) -> None:
    """Make a table with all these columns, and one value in all of them, on three page ranges of as many rows."""
    words = {word for (word,) in fetch(source, "SELECT word FROM pg_get_keywords()")}
    ours = set(names_of_ours())
    assert {"page", "raw", "hash", "bucket", "start", "versions", "of_range", "t", "rows", "wanted"} <= ours
    names = sorted((ours | words) - _REFUSED)
    assert len(names) < _MOST_COLUMNS, "two tables are needed now"
    columns = ", ".join(f'"{name}" smallint' for name in names)
    execute(source, f"CREATE TABLE t ({columns}) WITH (autovacuum_enabled = off)")
    execute(source, f"INSERT INTO t SELECT {', '.join('0' for _ in names)} FROM generate_series(1, 1600)")
    execute(source, "DELETE FROM t WHERE ctid >= '(384,0)'")
    execute(source, "VACUUM t")
    assert fetch(source, "SELECT pg_relation_size('t') / 8192") == [(384,)]


def test_every_name_of_our_queries(
    pg15: Cluster, database: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = database(pg15), database(pg15)
    fill(source)
    execute(source, "SELECT lo_from_bytea(7, 'small')")
    execute(source, _TRAPS)
    for one in (source, target):
        execute(one, f'ALTER DATABASE "{one.dbname}" SET search_path = trap, public, pg_catalog')
    shop = Shop(source, tmp_path)
    total = Assertion(name="sum", sql="SELECT sum(page) FROM public.t", same_as_backup=True)

    def backup(**options: Any) -> Manifest:
        return shop.backup(time_columns={"public.t": "t"}, assertions=(total,), **options)

    def changed(page: int, **options: Any) -> Manifest:
        shop.run(f"UPDATE public.t SET page = {page}, t = {page} WHERE ctid = '({page},2)'")
        manifest = backup(**options)
        assert manifest.reuse.alarms == ()
        assert ranges(manifest, "t") == (2, 4)
        return manifest

    backup()
    changed(200)
    monkeypatch.setattr(logical, "TableTask", lambda **facts: TableTask(**{**facts, "is_big": True}))
    changed(201)
    manifest = changed(202, split_big_tables=True)

    assert table(manifest, "t").newest == NewestRow(column="t", value="202")
    (record,) = [one for one in list_backups(shop.repository) if one.id == manifest.backup_id]
    files = BackupFiles(shop.repository, record)
    report = bring_back(files, target, compare=True, report_differences=True)
    assert report.compared and all(one.is_equal for one in report.compared)
    assert_equal_rows(source, target)
    found = checked(target, files, report, assertions=(total,))
    assert [one for one in issues(found) if one.code not in {"amcheck", "tables"}] == []
