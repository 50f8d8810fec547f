"""Each condition of reuse is taken away by itself, and the backup is then wrong, or would have been allowed.

This is how the tests are known to be able to fail. docs/reliability.md lists every condition beside its test; the last
test here holds the two lists together.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.capture import conditions, destinations, large_objects, logical, reuse
from pgstow.capture.bases import Base
from pgstow.capture.conditions import SERVER_CONDITIONS, TABLE_CONDITIONS, Source
from pgstow.capture.destinations import Destinations
from pgstow.capture.reuse import KnownRange, Reuse
from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres import fingerprints
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.session import CAPTURE_SETTINGS
from support import backups
from support.shop import Shop, ranges, table

Databases = Callable[..., ConnInfo]
Removal = Callable[[pytest.MonkeyPatch], None]

# Three ranges; a row's number is its place, so that a change can be put where it is wanted.
TABLE = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = mood);
CREATE DOMAIN word AS pair;
CREATE TABLE ledger (id int PRIMARY KEY, note text NOT NULL, how mood DEFAULT 'good', two word DEFAULT ROW(1, 'x')::pair,
    many mood[] DEFAULT '{good}', band span DEFAULT '[good,bad]', at timestamptz DEFAULT '2026-01-01Z')
    WITH (autovacuum_enabled = off);
INSERT INTO ledger SELECT i, md5(i::text) || repeat('.', 40) FROM generate_series(1, 24000) i;
"""


def without(*removed: Callable[..., str | None]) -> Removal:
    """Return what takes these conditions away, and no other."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for name in ("SERVER_CONDITIONS", "TABLE_CONDITIONS"):
            left = tuple(one for one in getattr(conditions, name) if one not in removed)
            patch.setattr(conditions, name, left)

    return remove


def the_checks(patch: pytest.MonkeyPatch) -> None:
    """Take away the reading of one range to be sure, which might by chance be the one that is wrong."""
    patch.setattr(Reuse, "alarm", lambda *_: None)


def assert_needed(shop: Shop, monkeypatch: pytest.MonkeyPatch, *removals: Removal) -> Manifest:
    """Assert that the next backup is right, and would be wrong without what ``removals`` take away."""
    twin = shop.fork()
    right = shop.backup()
    with monkeypatch.context() as patch:
        for remove in (the_checks, *removals):
            remove(patch)
        wrong, differing = twin.compare()
    assert wrong.reuse.base is not None
    assert differing, "without the condition the backup was right all the same"
    return right


@pytest.fixture
def shop(pg15: Cluster, database: Databases, tmp_path: Path) -> Shop:
    made = Shop(database(pg15), tmp_path)
    made.run(TABLE)
    return made


@pytest.fixture
def own(make_cluster: Callable[..., Cluster], tmp_path: Path) -> tuple[Cluster, Shop]:
    """Return a server that may be stopped, and the database in it."""
    cluster = make_cluster(15, settings={"autovacuum": "off"})
    made = Shop(ConnInfo.parse(cluster.conninfo()), tmp_path)
    made.run(TABLE)
    return cluster, made


# -- the server


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def test_same_start(own: tuple[Cluster, Shop], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data directory is put back from a copy: transaction ids come again, for other transactions."""
    cluster, shop = own
    cluster.stop()
    _copy(cluster.data_dir, tmp_path / "copy")
    cluster.start()
    shop.run("UPDATE ledger SET note = 'in the first life' WHERE id = 20000")
    assert shop.backup().reuse.is_base
    cluster.stop()
    _copy(tmp_path / "copy", cluster.data_dir)
    cluster.start()
    shop.run("UPDATE ledger SET note = 'in the second one' WHERE id = 20000")

    right = assert_needed(shop, monkeypatch, without(conditions.same_start))
    assert right.reuse.refused == "the server was restarted"


def test_same_timeline(
    own: tuple[Cluster, Shop], make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that never got the last transactions is promoted, and gives their ids to others."""
    primary, shop = own
    shop.run("CHECKPOINT")
    standby = make_cluster(15, standby_of=primary)
    standby.stop()
    shop.run("UPDATE ledger SET note = 'on the primary' WHERE id = 20000")
    assert shop.backup().reuse.is_base
    primary.stop("immediate")
    standby.start()
    promoted = shop.fork()
    promoted.source = promoted._admin = ConnInfo.parse(standby.conninfo())
    promoted.run("SELECT pg_promote()")
    promoted.run("UPDATE ledger SET note = 'on the standby' WHERE id = 20000")

    right = assert_needed(promoted, monkeypatch, without(conditions.same_timeline, conditions.same_start))
    assert right.reuse.refused == "the server is on another timeline"


def test_same_settings(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(CAPTURE_SETTINGS, "timezone", "Asia/Tokyo")  # type: ignore[arg-type]  # a dict in truth
        shop.compare()
    right = assert_needed(shop, monkeypatch, without(conditions.same_settings))
    assert right.reuse.refused == "the rows of the base were written under other settings"


@pytest.fixture
def judged(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> tuple[Manifest, Source]:
    """Return a base and a source that nothing is to be said against."""
    seen: list[tuple[Manifest, Source]] = []

    def looking(base: Manifest, source: Source) -> str | None:
        seen.append((base, source))
        return conditions.refuse_server(base, source)

    monkeypatch.setattr(reuse, "refuse_server", looking)
    shop.backup()
    shop.backup()
    ((base, source),) = seen
    return base, source


def _server(base: Manifest, **changes: Any) -> Manifest:
    return base.model_copy(update={"server": base.server.model_copy(update=changes)})


SERVER_CHANGES: dict[str, tuple[Callable[..., str | None], Callable[[Manifest], Manifest]]] = {
    "system": (conditions.same_system, lambda base: _server(base, system_identifier="1")),
    "system unknown": (conditions.same_system, lambda base: _server(base, system_identifier=None)),
    "database": (conditions.same_database, lambda base: _server(base, database_oid=5)),
    "standby": (conditions.no_standby, lambda base: _server(base, is_standby=True)),
    "timeline": (conditions.same_timeline, lambda base: _server(base, timeline=77)),
    "timeline unknown": (conditions.same_timeline, lambda base: _server(base, timeline=None)),
    "start": (
        conditions.same_start,
        lambda base: _server(base, postmaster_start=base.server.postmaster_start + timedelta(microseconds=1)),  # type: ignore[operator]  # known here
    ),
    "release": (conditions.same_release, lambda base: _server(base, version_num=150001)),
    "encoding": (conditions.same_release, lambda base: _server(base, encoding="LATIN1")),
    "settings": (conditions.same_settings, lambda base: base.model_copy(update={"settings": {}})),
    "extensions": (conditions.same_extensions, lambda base: base.model_copy(update={"extensions": ()})),
    "too many transactions": (
        conditions.few_transactions,
        lambda base: _server(base, oldest_xid=base.server.oldest_xid - (1 << 31)),  # type: ignore[operator]  # known here
    ),
    "counter set back": (conditions.few_transactions, lambda base: _server(base, next_xid=1 << 40)),
    "ids unknown": (conditions.few_transactions, lambda base: _server(base, oldest_xid=None)),
}


def test_each_condition_of_the_server_refuses_by_itself(
    judged: tuple[Manifest, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose absence no test can turn into a wrong backup, because another stands behind them."""
    base, source = judged
    assert conditions.refuse_server(base, source) is None
    for name, (condition, change) in SERVER_CHANGES.items():
        changed = change(base)
        assert conditions.refuse_server(changed, source) == condition(changed, source) is not None, name
        with monkeypatch.context() as patch:
            without(condition)(patch)
            assert conditions.refuse_server(changed, source) is None, name
    assert {condition for condition, _ in SERVER_CHANGES.values()} == set(SERVER_CONDITIONS)
    unseen = replace(source, system_identifier=None)
    assert conditions.refuse_server(base, unseen) == "this role may not see which server this is"


# -- the base


def test_durable_base(own: tuple[Cluster, Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that was seen but not on disk is undone when any backend crashes; its id goes to another one."""
    _, shop = own
    (writer,) = [
        int(pid) for pid in [shop.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")]
    ]
    shop.run("CHECKPOINT")
    os.kill(writer, signal.SIGSTOP)
    try:
        shop.run("SET synchronous_commit = off; UPDATE ledger SET note = 'lost' WHERE id = 20000")
        twin = shop.fork()
        assert not shop.backup().reuse.is_base
        with monkeypatch.context() as patch:
            patch.setattr(logical, "_is_durable", lambda *_: True)
            assert twin.backup().reuse.is_base
        with psycopg.connect(shop.source.connect_string()) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        _wait_for(shop, is_up=False)  # else the writer would save some of it before it is told to end
    finally:
        os.kill(writer, signal.SIGCONT)
    _wait_for(shop)
    assert shop.ask("SELECT note LIKE 'lost' FROM ledger WHERE id = 20000") == "False"
    shop.run("UPDATE ledger SET note = 'kept' WHERE id = 20000")
    for _ in range(3):  # while the counter is behind the base's, that alone refuses
        shop.flush()

    assert shop.backup().reuse.refused == "no backup of this database can be a base"
    with monkeypatch.context() as patch:
        the_checks(patch)
        wrong, differing = twin.compare()
    assert wrong.reuse.refused is None
    assert differing


def _wait_for(shop: Shop, *, is_up: bool = True) -> None:
    for _ in range(600):
        try:
            shop.run("SELECT 1")
        except psycopg.Error:
            if not is_up:
                return
        else:
            if is_up:
                return
        time.sleep(0.05)
    pytest.fail("the server did not come back, or did not go")


def test_trusted_base(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs in one backup may have come from the one before; nothing older than the alarm is a base."""
    shop.backup()
    shop.run("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'")
    with monkeypatch.context() as patch:
        the_checks(patch)
        without(conditions.same_shape)(patch)
        oldest_wrong, differing = shop.compare()
        newest_wrong, _ = shop.compare()
    assert differing
    assert newest_wrong.reuse.base == oldest_wrong.backup_id
    with monkeypatch.context() as patch:
        patch.setattr(
            logical, "_is_durable", lambda *_: False
        )  # the one with the alarm cannot be a base either
        alarmed = shop.backup(full_read=True)
    assert alarmed.reuse.alarms
    assert not alarmed.reuse.is_base

    def untrusting(destinations: Destinations, *_: object) -> Any:
        (record,) = [one for one in backups.list_backups(shop.repository) if one.id == oldest_wrong.backup_id]
        files = backups.BackupFiles(twin.repository, record)
        return Base(
            record=record,
            manifest=files.manifest,
            copies=[(destinations.names[0], files)],
            destinations=destinations,
        ), ()

    twin = shop.fork()
    assert shop.backup().reuse.refused == "no backup of this database can be a base"
    with monkeypatch.context() as patch:
        the_checks(patch)
        patch.setattr(backups, "base_of", untrusting)
        _, differing = twin.compare()
    assert differing


# -- the table


def test_same_storage(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLUSTER gives the rows of one transaction each other's places."""
    shop.run("CREATE INDEX backwards ON ledger ((-id))")
    shop.backup()
    shop.run("CLUSTER ledger USING backwards")
    right = assert_needed(shop, monkeypatch, without(conditions.same_storage))
    assert table(right).reuse_refused == "it was rewritten"


SHAPES = {
    "a column with a default": "ALTER TABLE ledger ADD extra text DEFAULT 'everywhere'",
    "a column less": "ALTER TABLE ledger DROP at",
    "an enum's label": "ALTER TYPE mood RENAME VALUE 'bad' TO 'awful'",
    "a composite's attribute": "ALTER TYPE pair ADD ATTRIBUTE c int",
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES.keys())
def test_same_shape(shop: Shop, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """The label is found in a range of an enum, the attribute in a domain over a composite."""
    shop.backup()
    shop.run(change)
    right = assert_needed(shop, monkeypatch, without(conditions.same_shape))
    assert table(right).reuse_refused == "columns or types changed"


def test_proven_types(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("CREATE ROLE renamed_later")
    try:
        shop.run("""CREATE TABLE named AS SELECT i, 'ledger'::regclass AS class, repeat('x', 100) AS f FROM generate_series(1, 20000) i;
            CREATE TABLE allowed AS SELECT i, ARRAY[makeaclitem('renamed_later'::regrole, 10, 'SELECT', false)] AS acl,
            repeat('x', 100) AS f FROM generate_series(1, 20000) i""")  # fmt: skip
        shop.backup()
        shop.run("ALTER TABLE ledger RENAME TO journal")
        assert_needed(shop, monkeypatch, without(conditions.proven_types))
        shop.run("ALTER ROLE renamed_later RENAME TO renamed")
        right = assert_needed(shop, monkeypatch, without(conditions.proven_types))
    finally:
        shop.run("DROP TABLE allowed; DROP ROLE IF EXISTS renamed, renamed_later")
    assert table(right, "named").reuse_refused == "type regclass may print the same value in different ways"
    assert table(right, "allowed").reuse_refused == "type aclitem may print the same value in different ways"


# -- the range


def test_same_versions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.backup()
    shop.run("UPDATE ledger SET note = 'changed' WHERE id = 20000")
    right = assert_needed(
        shop, monkeypatch, lambda patch: patch.setattr(KnownRange, "is_same", lambda *_: True)
    )
    assert 0 < ranges(right)[0] < ranges(right)[1]


def test_same_makers(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number and places of the rows are the same; only who made them is not."""

    def by_place_alone(patch: pytest.MonkeyPatch) -> None:
        blind = fingerprints._VERSIONS.replace(b"hashtidextended(ctid, raw)", b"hashtidextended(ctid, 0)")
        assert blind != fingerprints._VERSIONS
        patch.setattr(fingerprints, "_VERSIONS", blind)

    shop.run("INSERT INTO ledger SELECT 24001, 'the old one' || repeat('.', 60)")
    twin = shop.fork()
    shop.backup()
    with monkeypatch.context() as patch:
        by_place_alone(patch)
        twin.backup()
    place = shop.ask("SELECT ctid FROM ledger WHERE id = 24001")
    shop.run("DELETE FROM ledger WHERE id = 24001")
    shop.run("VACUUM (INDEX_CLEANUP ON) ledger")  # else the place stays taken
    shop.run("INSERT INTO ledger SELECT 24001, 'the new one' || repeat('.', 60)")
    assert shop.ask("SELECT ctid FROM ledger WHERE id = 24001") == place
    shop.backup()
    with monkeypatch.context() as patch:
        the_checks(patch)
        by_place_alone(patch)
        _, differing = twin.compare()
    assert differing


@pytest.mark.parametrize("major", [15, 18])
def test_no_young_versions(
    make_cluster: Callable[..., Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    """Past 2**32 a new transaction has the 32-bit id of an old one whose rows were frozen and still bear it."""
    cluster = make_cluster(major, settings={"autovacuum": "off"})
    shop = Shop(ConnInfo.parse(cluster.conninfo()), tmp_path)
    shop.run("SELECT lo_from_bytea(7, 'large')")
    shop.run(TABLE)
    for _ in range(5):  # so that the other rows are older
        shop.flush()
    shop.run("INSERT INTO ledger SELECT 24001, 'the old one' || repeat('.', 60)")
    place, old = shop.ask("SELECT ctid FROM ledger WHERE id = 24001"), int(_xmin(shop))
    for name in ("postgres", "template1"):
        with psycopg.connect(cluster.conninfo(name), autocommit=True) as connection:
            connection.execute("VACUUM (FREEZE)")
    cluster.stop()
    _reset(cluster, old - 20)
    cluster.start()
    while int(shop.ask("SELECT pg_snapshot_xmax(pg_current_snapshot())")) < (1 << 32) + old - 1:
        shop.flush()

    base = shop.backup()
    assert (base.server.oldest_xid, base.server.next_xid) == ((1 << 32) + old - 1, (1 << 32) + old - 1)
    shop.run("DELETE FROM ledger WHERE id = 24001")
    shop.run("VACUUM (INDEX_CLEANUP ON) ledger")  # else the place stays taken
    shop.run("INSERT INTO ledger SELECT 24001, 'the new one' || repeat('.', 60)")
    assert (shop.ask("SELECT ctid FROM ledger WHERE id = 24001"), int(_xmin(shop))) == (place, old)

    right = assert_needed(shop, monkeypatch, lambda patch: patch.setattr(reuse, "_window", lambda *_: None))
    assert right.reuse.refused is None
    assert 0 < ranges(right)[0] < ranges(right)[1]


def _xmin(shop: Shop) -> str:
    return shop.ask("SELECT xmin FROM ledger WHERE id = 24001")


def _reset(cluster: Cluster, xid: int) -> None:
    """Set the next transaction id to ``xid`` in the second round of the counter."""
    owner = cluster.data_dir.stat()
    subprocess.run(
        [cluster.binaries.bin_dir / "pg_resetwal", "-e", "1", "-x", str(xid), "-D", cluster.data_dir],
        check=True,
        stdout=subprocess.DEVNULL,
        user=owner.st_uid if os.geteuid() == 0 else None,
        group=owner.st_gid if os.geteuid() == 0 else None,
    )


def test_whole_blobs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the repository no longer lists is read. Without that the backup is not wrong but fails, at its very end."""
    shop.run("CREATE TABLE quiet AS SELECT i, repeat('q', 80) AS f FROM generate_series(1, 30000) i")
    shop.backup()
    store = shop.repository.store
    first = [one.name for one in store.list("") if one.name.startswith(("index/", "data/"))]
    last = "UPDATE quiet SET f = f || '!' WHERE i = 30000"
    shop.run(f"UPDATE ledger SET note = 'changed' WHERE id = 20000; {last}")
    second = shop.backup()
    assert second.reuse.base is not None
    for name in first:
        store.delete(name)
    shop.run(last)
    lost = shop.fork()
    twin = shop.fork()
    right = lost.backup()
    assert right.reuse.base == second.backup_id
    assert 0 < ranges(right)[0] < ranges(right)[1]
    assert (
        table(right, "quiet").reuse_refused == "every page range changed, or is missing where the backup goes"
    )
    with monkeypatch.context() as patch:
        the_checks(patch)
        patch.setattr(destinations, "_holds", lambda *_: True)
        with pytest.raises(RepositoryDamaged, match="no longer in the repository"):
            twin.backup()


# -- large objects


def test_same_object_versions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("SELECT lo_from_bytea(n::oid, 'before') FROM generate_series(7, 9) n")
    shop.backup()
    shop.run("SELECT lo_put(8, 0, 'behind')")

    def believing(self: large_objects.LargeObjectIndex, base: bytes) -> bytearray:
        return bytearray(b"\x01" * len(self))

    monkeypatch.setattr(large_objects.secrets, "choice", lambda places: places[0])
    right = assert_needed(
        shop, monkeypatch, lambda patch: patch.setattr(large_objects.LargeObjectIndex, "same", believing)
    )
    assert right.large_objects.reused == 1


# -- the list


def test_the_list_is_complete() -> None:
    """Every condition that has a name stands in the table of docs/reliability.md, with a test that is there."""
    page = (Path(__file__).parent.parent.parent / "docs" / "reliability.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", page, re.MULTILINE))
    assert {one.__name__ for one in (*SERVER_CONDITIONS, *TABLE_CONDITIONS)} <= rows.keys()
    here = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.MULTILINE))
    assert set(rows.values()) <= here
