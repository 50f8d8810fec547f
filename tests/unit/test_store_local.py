"""LocalStore against the file system: durability, errors, links, what killed processes leave."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path

import pytest

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pgstow.store.local import LocalStore
from pgstow.store.temporaries import is_stale, new_temporary_name

DAY_S = 24 * 3600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def failing(code: int) -> Callable[..., None]:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


class CallOrder:
    """Lets the real calls through and writes down which came when, on what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.calls: list[str] = []
        self._root = root
        for name in ("fsync", "mkdir"):
            monkeypatch.setattr(os, name, self._recording(name, getattr(os, name)))
        for name in ("link", "replace"):
            monkeypatch.setattr(os, name, self._naming(name, getattr(os, name)))

    def _path(self, file: int) -> str:
        path = os.path.relpath(Path(f"/proc/self/fd/{file}").readlink(), self._root)
        return "tmp/..." if path.startswith("tmp/") else path

    def _recording(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(target: int | str | Path, *args: object, **kwargs: object) -> object:
            if name == "fsync" and isinstance(target, int):
                self.calls.append(f"fsync {self._path(target)}")
            else:
                self.calls.append(f"{name} {Path(str(target)).name}")
            return real(target, *args, **kwargs)

        return call

    def _naming(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> object:
            self.calls.append(f"{name} {self._path(src_dir_fd)} -> {self._path(dst_dir_fd)}/{target}")
            return real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        return call


@pytest.mark.parametrize(("if_absent", "naming"), [(True, "link"), (False, "replace")])
def test_a_name_is_given_after_the_bytes_are_on_disk_and_synced_after(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch, if_absent: bool, naming: str
) -> None:
    store.put("data/ab/first", b"makes the folders")
    order = CallOrder(monkeypatch, root)

    store.put("data/ab/object", b"bytes", if_absent=if_absent)

    assert order.calls == ["fsync tmp/...", f"{naming} tmp -> data/ab/object", "fsync data/ab"]


def test_new_folders_are_on_disk_before_anything_is_named_in_them(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = CallOrder(monkeypatch, root)

    store.put("data/ab/object", b"bytes")

    assert order.calls == [
        "mkdir store",
        "fsync ..",
        "mkdir tmp",
        "fsync .",
        "mkdir data",
        "fsync .",
        "mkdir ab",
        "fsync data",
        "fsync tmp/...",
        "replace tmp -> data/ab/object",
        "fsync data/ab",
    ]


def test_a_folder_another_process_made_is_synced_too(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "tmp").mkdir(parents=True)
    (root / "data").mkdir()
    order = CallOrder(monkeypatch, root)

    store.put("data/object", b"bytes")

    assert order.calls.count("fsync .") == 2
    assert order.calls.index("mkdir data") < order.calls.index("fsync tmp/...")


def test_only_the_owner_may_read_and_delete_needs_no_chmod(store: LocalStore, root: Path) -> None:
    store.put("data/ab/object", b"bytes")

    assert stat.S_IMODE((root / "data/ab/object").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in [root, root / "data", root / "data/ab"]} == {0o700}


def test_put_hands_the_callers_buffer_to_the_system_uncopied(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(b"x" * 100_000)
    real = os.write
    owners: list[object] = []

    def write_a_little(file: int, view: memoryview) -> int:
        owners.append(view.obj)
        return real(file, view[:33_000])

    monkeypatch.setattr(os, "write", write_a_little)
    store.put("object", data)
    monkeypatch.undo()

    assert len(owners) == 4
    assert all(owner is data for owner in owners)
    assert store.get("object") == data


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EACCES, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.ESTALE, StoreUnavailable),
        (errno.ETIMEDOUT, StoreUnavailable),
        (errno.EIO, StoreError),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failed_put_is_translated_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[StoreError], call: str
) -> None:
    store = LocalStore(tmp_path)
    store.put("data/there", b"old")
    monkeypatch.setattr(os, call, failing(code))

    with pytest.raises(StoreError, match="cannot write data/there") as caught:
        store.put("data/there", b"new")

    monkeypatch.undo()
    assert type(caught.value) is expected
    assert store.get("data/there") == b"old"
    assert files_below(tmp_path) == ["data/there"]


def test_a_disk_that_fills_in_mid_write_leaves_nothing(store: LocalStore, root: Path) -> None:
    store.put("data/there", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreFull) as caught:
            store.put("data/large", bytes(3 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.hint is not None
    assert files_below(root) == ["data/there"]
    store.put("data/large", bytes(3 << 20))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Run the test as somebody who has no power over permissions; yields a folder of that user."""
    folder = Path(tempfile.mkdtemp(prefix="pgstow-store-"))
    folder.chmod(0o755)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(folder)


def test_missing_permissions_are_said(unprivileged: Path) -> None:
    store = LocalStore(unprivileged / "store")
    store.put("data/object", b"bytes")
    (unprivileged / "store/data").chmod(0o500)

    with pytest.raises(StoreDenied, match="cannot write data/other") as caught:
        store.put("data/other", b"bytes")
    with pytest.raises(StoreDenied, match="cannot delete data/object"):
        store.delete("data/object")
    assert store.get("data/object") == b"bytes"
    (unprivileged / "store/data").chmod(0o000)
    with pytest.raises(StoreDenied, match="cannot read data/object"):
        store.get("data/object")
    with pytest.raises(StoreDenied, match="cannot list data"):
        list(store.list("data/"))

    assert f"user id {os.geteuid()}" in str(caught.value.hint)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_create_if_absent_works_without_hard_links(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", failing(code))

    def create(worker: int) -> bytes | None:
        try:
            store.put("config", b"%d" % worker, if_absent=True)
        except ObjectExists:
            return None
        return b"%d" % worker

    with ThreadPoolExecutor(8) as pool:
        winners = [data for data in pool.map(create, range(40)) if data is not None]

    assert winners == [store.get("config")]
    assert files_below(root) == ["config"]


def test_a_link_that_was_made_though_the_server_says_it_exists_is_ours(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        raise FileExistsError(errno.EEXIST, "what an NFS server says to a repeated request")

    monkeypatch.setattr(os, "link", link)
    store.put("config", b"ours", if_absent=True)

    assert store.get("config") == b"ours"
    assert files_below(root) == ["config"]


def test_links_lead_nowhere(store: LocalStore, root: Path, tmp_path: Path) -> None:
    store.put("keys/k", b"1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"not yours")
    (root / "data").symlink_to(outside, target_is_directory=True)
    (root / "keys/linked").symlink_to(outside / "secret")

    operations: list[Callable[[], object]] = [
        lambda: store.get("data/secret"),
        lambda: store.get("keys/linked"),
        lambda: store.stat("keys/linked"),
        lambda: store.put("data/new", b"1"),
        lambda: store.delete("data/secret"),
        lambda: list(store.list("data/")),
        lambda: list(store.list("keys/")),
        lambda: list(store.list("")),
    ]
    for operation in operations:
        with pytest.raises(StoreError, match="is a symbolic link"):
            operation()

    store.put("keys/linked", b"replaces the link, not what it points to")
    assert files_below(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"not yours"


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")
    LocalStore(root).put("data/object", b"1")

    assert (tmp_path / "disk/data/object").read_bytes() == b"1"


def test_what_is_no_object_is_not_shown_and_not_read(store: LocalStore, root: Path) -> None:
    store.put("data/object", b"1")
    (root / "tmp/pgstow-unfinished").write_bytes(b"1")
    (root / "data/object-tmp-123456").write_bytes(b"unfinished file of restic")
    (root / "data/naïve").write_bytes(b"1")
    os.mkfifo(root / "data/fifo")
    (root / "lost+found").mkdir(mode=0o000)

    assert [info.name for info in store.list("")] == ["data/object"]
    with pytest.raises(ObjectNotFound):
        store.get("data/fifo")


def test_a_folder_that_vanishes_is_not_quietly_made_anew(store: LocalStore, root: Path) -> None:
    """An unmounted disk leaves an empty folder behind; the backup must not go there."""
    store.put("data/object", b"1")
    shutil.rmtree(root)
    root.mkdir()

    with pytest.raises(StoreError, match="cannot write data/other") as caught:
        store.put("data/other", b"2")

    assert type(caught.value) is StoreError
    assert "mounted" in str(caught.value.hint)
    assert files_below(root) == []


def test_reading_makes_no_folders(store: LocalStore, root: Path) -> None:
    with pytest.raises(ObjectNotFound):
        store.get("config")
    assert list(store.list("")) == []
    store.delete("config")
    assert store.remove_stale_temporaries() == 0

    assert not root.exists()


def open_below(folder: Path) -> list[Path]:
    """Return the files and folders below one that this process has open; other threads have others."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(descriptor.readlink())
    return [path for path in found if path.is_relative_to(folder)]


def test_no_descriptor_stays_open(store: LocalStore, root: Path) -> None:
    store.put("data/object", b"1")
    with (root / "data/object").open():
        assert open_below(root) == [root / "data/object"]
    for _ in range(20):
        store.put("data/object", b"1")
        with pytest.raises(ObjectExists):
            store.put("data/object", b"1", if_absent=True)
        store.get("data/object")
        with pytest.raises(ObjectNotFound):
            store.get("data/gone/x")
        next(store.list("data/"))
        store.delete("gone")

    assert open_below(root) == []


CHILD = """
import os, sys, time
from pathlib import Path
from pgstow.store.local import LocalStore

def never_on_disk(file):
    print("writing", flush=True)
    time.sleep(600)

store = LocalStore(Path(sys.argv[1]))
store.put("data/whole", b"1")
os.fsync = never_on_disk
store.put("data/torn", b"2")
"""


def test_what_a_killed_process_was_writing_is_removed_at_once_and_not_before(
    store: LocalStore, root: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        assert store.remove_stale_temporaries() == 0
        assert len(files_below(root)) == 2
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()

    assert store.remove_stale_temporaries() == 1
    assert files_below(root) == ["data/whole"]
    assert store.remove_stale_temporaries() == 0


def test_an_unfinished_put_of_another_machine_is_left_alone_for_a_day(root: Path) -> None:
    now = time.time()
    name = "pgstow-0123456789abcdef0123456789abcdef-4026531836-77-1000-00ff"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp" / name).write_bytes(b"1")
    (root / "tmp/somebody-elses").write_bytes(b"1")

    assert LocalStore(root, clock=lambda: now + DAY_S - 60).remove_stale_temporaries() == 0
    assert LocalStore(root, clock=lambda: now + DAY_S + 60).remove_stale_temporaries() == 1
    assert files_below(root) == ["tmp/somebody-elses"]


def test_a_reused_process_id_does_not_keep_a_dead_owner_alive() -> None:
    own = new_temporary_name()
    prefix, boot, namespace, pid, started, chance = own.split("-")

    assert not is_stale(own, age_s=10 * DAY_S)
    assert is_stale("-".join([prefix, boot, namespace, pid, str(int(started) - 1), chance]), age_s=0)
    assert not is_stale("-".join([prefix, boot, str(int(namespace) + 1), pid, "1", chance]), age_s=0)
    assert not is_stale("somebody-elses", age_s=10 * DAY_S)


@pytest.mark.parametrize(
    "size", [2**20 - 1, 2**20, 2**20 + 1, 2**20 + 4095, 3 * 2**20 + 4096, 5 * 2**20 + 17]
)
@pytest.mark.parametrize("offset", [0, 1, 512])
@pytest.mark.parametrize("folder", ["disk", "memory"])
def test_large_objects_of_any_size_and_place_in_memory(
    tmp_path: Path, size: int, offset: int, folder: str
) -> None:
    """Large data is written past the cache where device and file system can, in blocks; the rest as ever."""
    with mmap(-1, offset + size) as memory, contextlib.ExitStack() as stack:
        memory[offset:] = random.Random(size).randbytes(size)
        place = (
            tmp_path
            if folder == "disk"
            else Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        )
        store = LocalStore(place)
        with memoryview(memory) as view, view[offset:] as data:
            store.put("data/large", data)
        assert store.get("data/large") == memory[offset:]
    assert list((tmp_path / "tmp").glob("*")) == []


def test_an_interruption_between_two_folders_closes_nothing_twice(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may come when any call returns: by then the number may be that of another thread's file."""
    store.put("a/b/c", b"1")
    real, closed = os.close, 0

    def interrupted(file: int) -> None:
        nonlocal closed
        real(file)  # fails for what is closed already
        closed += 1
        if closed == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get("a/b/c")
    monkeypatch.undo()
    assert closed == 2
