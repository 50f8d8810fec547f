"""Large objects that did not change are taken over, and never one that only looks unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgstow.capture.large_objects import KnownLargeObjects, LargeObjectIndex
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.fingerprints import Fingerprint
from pgstow.postgres.server import Cluster
from pgstow.repository import BlobIds
from support.shop import Shop

Databases = Callable[..., ConnInfo]

# 1000 to 1019, of a few pages each; one of more than a megabyte, one with a hole, one that is empty.
OBJECTS = """
SELECT lo_from_bytea(n::oid, convert_to(repeat('object ' || n || ' ', 700), 'UTF8')) FROM generate_series(1000, 1019) n;
SELECT lo_from_bytea(2000, convert_to(repeat('large ', 400000), 'UTF8'));
SELECT lo_create(3000);
SELECT lo_put(3000, 50000, 'behind a hole');
SELECT lo_create(4000);
"""
COUNT = 23
NOT_EMPTY = 22


@pytest.fixture
def shop(cluster: Cluster, database: Databases, tmp_path: Path) -> Shop:
    made = Shop(database(cluster), tmp_path)
    made.run(OBJECTS)
    return made


@pytest.fixture
def shop15(pg15: Cluster, database: Databases, tmp_path: Path) -> Shop:
    made = Shop(database(pg15), tmp_path)
    made.run(OBJECTS)
    return made


def test_only_what_changed_is_read(shop: Shop) -> None:
    first = shop.backup().large_objects
    assert (first.count, first.reused, first.ranges) == (COUNT, 0, "ranges/large_objects")
    assert first.reuse_refused == "no backup of this database can be a base"

    same = shop.backup()
    assert same.large_objects.reused == NOT_EMPTY - 1  # one is read to be sure
    assert same.large_objects.reuse_refused is None
    assert same.reuse.checked_ranges == 1
    assert 0 < same.large_objects.reused_bytes < same.large_objects.size_bytes

    shop.run("SELECT lo_put(1003, 3000, 'in place')")
    assert shop.backup().large_objects.reused == NOT_EMPTY - 2


# What is done to two objects, {a} and {b}, of their own; " | " ends a transaction.
CHANGES = {
    "put in place": "SELECT lo_put({a}, 2100, 'PUT')",
    "put beyond the end": "SELECT lo_put({a}, 90000, 'PUT')",
    "truncated": "BEGIN; SELECT lo_truncate(lo_open({a}, 131072), 100); COMMIT",
    "truncated to nothing": "BEGIN; SELECT lo_truncate(lo_open({a}, 131072), 0); COMMIT",
    "a hole filled": "SELECT lo_put(3000, 100, 'filled')",
    "unlinked, and made again": "SELECT lo_unlink({a}); SELECT lo_from_bytea({a}, 'another')",
    "unlinked, and made again in the same places": "SELECT lo_unlink({a}) | VACUUM pg_largeobject |"
    " SELECT lo_from_bytea({a}, convert_to(repeat('OBJECT ' || {a} || ' ', 700), 'UTF8'))",
    "unlinked, and made again with nothing in it": "SELECT lo_unlink({a}); SELECT lo_create({a})",
    "numbers exchanged": "SELECT lo_unlink({a}), lo_unlink({b}) | VACUUM pg_largeobject |"
    " SELECT lo_from_bytea({a}, convert_to(repeat('object ' || {b} || ' ', 700), 'UTF8'));"
    " SELECT lo_from_bytea({b}, convert_to(repeat('object ' || {a} || ' ', 700), 'UTF8'))",
    "aborted": "BEGIN; SELECT lo_put({a}, 0, 'never'), lo_unlink({b}); ROLLBACK",
    "frozen": "VACUUM FREEZE pg_largeobject",
    "one more": "SELECT lo_from_bytea(999, 'one more')",
    "unlinked": "SELECT lo_unlink({a})",
}


def test_the_content_is_right_after_each_change(shop15: Shop) -> None:
    before = shop15.backup()
    for number, (name, change) in enumerate(CHANGES.items()):
        for statements in change.format(a=1000 + number, b=1019 - number).split(" | "):
            shop15.run(statements)
        after, differing = shop15.compare(full_read_every=99)
        assert not differing, name
        assert after.reuse.base == before.backup_id
        assert NOT_EMPTY - 6 <= after.large_objects.reused <= NOT_EMPTY, name
        before = after


def test_when_the_rows_were_moved_all_are_read(shop15: Shop) -> None:
    shop15.backup()
    shop15.run("VACUUM FULL pg_largeobject")
    moved = shop15.backup().large_objects
    assert (moved.reused, moved.reuse_refused) == (0, "pg_largeobject was rewritten")
    assert shop15.backup().large_objects.reused == NOT_EMPTY - 1


def test_a_full_read_compares_them(shop15: Shop) -> None:
    shop15.backup()
    full = shop15.backup(full_read=True)
    assert full.large_objects.reused == 0
    assert full.reuse.checked_ranges == NOT_EMPTY


@pytest.mark.parametrize("full_read", [False, True])
def test_one_that_differs_although_its_rows_do_not_is_an_alarm(
    shop15: Shop, monkeypatch: pytest.MonkeyPatch, full_read: bool
) -> None:
    first = shop15.backup()
    honest = KnownLargeObjects.content

    def lying(self: KnownLargeObjects, oid: int) -> tuple[BlobIds, int] | None:
        return honest(self, 2000 if oid != 2000 else 1000)

    with monkeypatch.context() as patch:
        patch.setattr(KnownLargeObjects, "content", lying)
        alarmed = shop15.backup(full_read=full_read)
    assert any("differs although no version of its rows does" in alarm for alarm in alarmed.reuse.alarms)
    assert alarmed.reuse.distrusted == (first.backup_id,)
    assert alarmed.large_objects.reused == 0


@pytest.fixture
def plain_role(pg15: Cluster, database: Databases) -> Iterator[tuple[ConnInfo, ConnInfo]]:
    """The database as its superuser and as a role that owns large objects but may not read pg_largeobject."""
    admin = database(pg15)
    with psycopg.connect(admin.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE ROLE keeper LOGIN")
        connection.execute(OBJECTS)
        for (oid,) in connection.execute("SELECT oid FROM pg_largeobject_metadata").fetchall():
            connection.execute(f"ALTER LARGE OBJECT {oid} OWNER TO keeper")
    yield admin, ConnInfo.parse(f"{admin.connect_string()} user=keeper")
    with psycopg.connect(admin.connect_string(), autocommit=True) as connection:
        connection.execute("DROP OWNED BY keeper; REASSIGN OWNED BY keeper TO postgres; DROP ROLE keeper")


def test_a_role_that_may_not_look_reads_all(plain_role: tuple[ConnInfo, ConnInfo], tmp_path: Path) -> None:
    admin, keeper = plain_role
    shop = Shop(keeper, tmp_path, admin=admin)
    shop.backup()
    shop.flush()
    blind = shop.backup().large_objects
    assert (blind.count, blind.reused, blind.ranges) == (COUNT, 0, None)
    assert blind.reuse_refused == "this role may not read pg_largeobject"

    shop.run("GRANT SELECT ON pg_largeobject TO keeper")
    assert shop.backup().large_objects.reuse_refused == "the base does not say what they were"
    assert shop.backup().large_objects.reused == NOT_EMPTY - 1


def test_while_they_are_being_moved_all_are_read(shop15: Shop) -> None:
    shop15.backup()
    with psycopg.connect(shop15.source.connect_string()) as other:
        other.execute("LOCK TABLE pg_largeobject IN SHARE UPDATE EXCLUSIVE MODE")  # a plain VACUUM
        assert shop15.backup().large_objects.reused == NOT_EMPTY - 1


def test_an_index_that_is_none_is_not_believed() -> None:
    index = LargeObjectIndex()
    for oid in (3, 70000, 4294967295):
        index.append(oid, Fingerprint(oid, -oid, oid))
    other = LargeObjectIndex()
    for oid, rows in ((2, 2), (3, 3), (70000, 1), (4294967295, 4294967295)):
        other.append(oid, Fingerprint(rows, -oid, oid))
    assert index.same(other.encode()) == bytes([1, 0, 1])
    assert other.same(index.encode()) == bytes([0, 1, 0, 1])
    for damaged in (b"", other.encode()[:-1], b"X" + other.encode()[1:]):
        with pytest.raises(RepositoryDamaged):
            index.same(damaged)
