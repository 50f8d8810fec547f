"""``pgstow repo prune`` and ``repo stats`` as a user runs them, interrupted too."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgstow.repository import LockTimes
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.pruning import assert_sound, objects, remove_snapshots, restored
from support.repositories import init_repository, random_bytes, save_backup
from support.restic import PASSWORD, Restic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def pgstow(folder: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(folder), "PGSTOW_PASSWORD": PASSWORD})


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStore]:
    """A repository in which a prune has much to do: 60 packs, of which a third is needed in part."""
    monkeypatch.setattr("pgstow.repository.writer.PACK_BYTES", 128 << 10)
    store = LocalStore(folder)
    repository = init_repository(store)
    ids = [
        save_backup(repository, {"f": [random_bytes(40_000, seed) for seed in seeds]}, run=f"{seeds}")
        for seeds in (range(60), range(50, 110), range(100, 160), range(0, 110, 3))
    ]
    remove_snapshots(store, ids[0], ids[2])
    return store


def test_plan_prune_and_count(pgstow: Pgstow, store: LocalStore) -> None:
    before = {name: store.stat(name).size_bytes for name in objects(store, "data")}
    planned = pgstow("repo", "prune", "--dry-run", "--json")
    assert planned.code == 0, planned.stderr
    assert planned.json()["dry_run"] is True
    assert planned.json()["result"] is None
    assert before.keys() == objects(store, "data")
    shown = pgstow("repo", "prune", "--dry-run")
    assert re.search(r"repack: \d+ packs \([\d.]+ MiB\), of which [\d.]+ MiB are needed", shown.stdout)
    expected = restored(store)
    done = pgstow("repo", "prune", "--json")
    assert done.code == 0, done.stderr
    assert done.json()["plan"] == planned.json()["plan"]
    assert before.keys() <= objects(store, "data")
    stats = pgstow("repo", "stats", "--json").json()
    waiting = done.json()["plan"]["unused"]["packs"] + done.json()["plan"]["repack"]["packs"]
    assert stats["waiting"]["packs"] == waiting
    assert stats["snapshots"] == 2
    assert stats["sources"] == [{"name": "shop", "backups": 2, "size_bytes": 40_000 * (60 + 37)}]
    assert stats["stored_bytes"] == sum(
        info.size_bytes for info in store.list("data/") if info.name.startswith("data/")
    )
    early = pgstow("repo", "prune", "--json").json()["plan"]
    assert (early["wait"]["packs"], early["remove"]["packs"]) == (waiting, 0)
    ended = pgstow("repo", "prune", "--grace", "0")
    assert ended.code == 0
    assert f"remove now: {waiting} packs" in ended.stderr
    assert re.match(r"[\d.]+ MiB freed; 0 B more can be removed", ended.stdout)
    assert restored(store) == expected
    assert_sound(store)
    assert "nothing to do" in pgstow("repo", "prune").stdout
    assert pgstow("repo", "stats").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grace", "tomorrow"), "'tomorrow' is not a duration"),
        (("--wait", "-1"), "'-1' is not a duration"),
        (("--max-unused", "101%"), "'101%' is no percentage"),
        (("--max-unused", "much"), "'much' is no percentage"),
    ],
)
def test_arguments_that_make_no_sense(
    pgstow: Pgstow, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = pgstow("repo", "prune", *arguments)
    assert ended.code == 2
    assert message in ended.stderr


def test_while_somebody_works(pgstow: Pgstow, folder: Path) -> None:
    repository = init_repository(LocalStore(folder))
    with repository.lock(times=LockTimes(settle_s=0)):
        ended = pgstow("repo", "prune", "--wait", "0s")
        assert ended.code == 11
        assert "locked by PID" in ended.stderr
        assert pgstow("repo", "prune", "--dry-run").code == 0
        assert pgstow("repo", "stats").code == 0
    with (
        contextlib.ExitStack() as held,
        pgstow.start("repo", "prune", "--wait", "60s", "--json") as waiting,
    ):
        held.enter_context(repository.lock(times=LockTimes(settle_s=0)))
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2.5)
        held.close()
        stdout, stderr = waiting.communicate()
        assert waiting.returncode == 0, stdout + stderr
    with repository.lock(exclusive=True, times=LockTimes(settle_s=0)):
        assert pgstow("repo", "stats").code == 11


def test_damage_makes_it_refuse(pgstow: Pgstow, store: LocalStore) -> None:
    (snapshot, *_) = sorted(objects(store, "snapshots"))
    data = store.get(snapshot)
    store.put(snapshot, data[:-1])
    for command in ("prune", "stats"):
        ended = pgstow("repo", command)
        assert ended.code == 1
        assert snapshot.rpartition("/")[2] in ended.stderr
        assert "HINT: pgstow repo repair" in ended.stderr
    assert objects(store, "pgstow") == objects(store, "pgstow/audit")


def test_interrupted_at_any_point_then_repeated(
    pgstow: Pgstow, store: LocalStore, folder: Path, newest_restic: Restic
) -> None:
    """Interrupted whenever a file appears or goes in a folder that a prune changes, as far as that can be hit."""
    expected = restored(store)
    chance = random.Random(42)
    ended = 0
    for changed in ("data", "pgstow", "index"):
        before = objects(store, changed) if (folder / changed).exists() else set()
        with pgstow.start("repo", "prune", "--grace", "0", "--max-unused", "0") as process:
            while process.poll() is None and names(folder / changed) == before:
                os.sched_yield()
            try:
                process.wait(chance.uniform(0, 0.02))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                ended += 1
            _, stderr = process.communicate()
        assert process.returncode in (0, 130), stderr
        assert b"Traceback" not in stderr
        assert restored(store) == expected
        assert_sound(store)
    assert ended >= 1, "none was ended in mid work for this to mean anything"
    newest_restic(folder, "check", "--read-data", "--no-lock")
    for _ in range(2):
        assert pgstow("repo", "prune", "--grace", "0", "--max-unused", "0").code == 0
    stats = pgstow("repo", "stats", "--json").json()
    assert (stats["waiting"]["packs"], stats["orphans"]["packs"], stats["unused_bytes"]) == (0, 0, 0)
    assert not list((folder / "tmp").glob("*"))
    assert restored(store) == expected
    assert_sound(store)


def names(folder: Path) -> set[str]:
    """Return the objects below a folder of a repository, cheaply."""
    root = folder.parent
    return {str((Path(at) / file).relative_to(root)) for at, _, files in os.walk(folder) for file in files}
