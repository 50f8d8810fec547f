"""The repository: everything above it talks to this class only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from pgstow.core.errors import (
    ObjectNotFound,
    RepositoryDamaged,
    RepositoryLocked,
    StoreDenied,
    StoreError,
)
from pgstow.core.secrets import Secret
from pgstow.repository.claims import claim_copy, void_run
from pgstow.repository.files import CONFIG, FileKind, SealedFiles, list_ids, pack_name
from pgstow.repository.found_leases import LeasedDatabase, lease_folder
from pgstow.repository.holder import Holder
from pgstow.repository.holdings import Holdings
from pgstow.repository.identity import Identity, RepositoryKin, find_identity, make_identity
from pgstow.repository.ids import BlobId, BlobKind
from pgstow.repository.index import (
    BlobIndex,
    Location,
    PackContents,
    encode_index,
    grouped,
)
from pgstow.repository.keys import KeyInfo, list_keys, remove_key, search_keys, store_key
from pgstow.repository.leases import Lease
from pgstow.repository.loaded_index import LoadedIndex
from pgstow.repository.lock import RepositoryLock
from pgstow.repository.lock_times import LockTimes
from pgstow.repository.marks import Marks
from pgstow.repository.pack_check import PackCheck, check_pack, intact_blobs
from pgstow.repository.packs import PackEntry, read_header
from pgstow.repository.reader import BlobReader, ahead
from pgstow.repository.records import Records
from pgstow.repository.snapshot import Snapshot, copied_snapshot, decode_snapshot, encode_snapshot
from pgstow.repository.transfer import StoredBlob, read_pack, stored_blobs
from pgstow.repository.tree import Node, TreeError, decode_tree
from pgstow.repository.unlocking import Obstacle, find_obstacles, remove_obstacle
from pgstow.repository.writer import BlobWriter
from pgstow.store.api import Store

__all__ = ["Repository"]

_Held = TypeVar("_Held", RepositoryLock, Lease)

_THREADS = 8


class Repository:
    """A restic repository of format 2 in a store. Safe to use from several threads.

    The index is read on demand: ``load_index()`` before anything that looks up or saves blobs.
    """

    def __init__(self, store: Store, identity: Identity) -> None:
        self.store = store
        self.key_id = identity.key_id
        self._config = identity.config
        self._key = identity.key
        self._files = SealedFiles(store, identity.key)
        self.lock_times = LockTimes()
        self._locks: list[RepositoryLock | Lease] = []
        self.config_problem = identity.config_problem
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="repository")
        self._loaded = LoadedIndex(self._files, self._threads)
        self._index = self._loaded.blobs
        self._reader = BlobReader(store, self._key, self._index, self._threads)

    @classmethod
    def init(
        cls,
        store: Store,
        password: Secret,
        *,
        hostname: str,
        username: str,
        kin: RepositoryKin | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Repository:
        """Make an empty repository; see ``make_identity()``."""
        identity = make_identity(store, password, hostname=hostname, username=username, kin=kin, sleep=sleep)
        return cls(store, identity)

    @classmethod
    def open(cls, store: Store, password: Secret, *, without_config: bool = False) -> Repository:
        """Return the repository in ``store``; see ``find_identity()``."""
        return cls(store, find_identity(store, password, without_config=without_config))

    def save_config(self) -> None:
        """Store the configuration in the place of one that is lost."""
        self.check_locks()
        self.store.put(CONFIG, self._key.seal(self._config.encode()))
        self.config_problem = None

    @property
    def id(self) -> str:
        return self._config.id

    @property
    def kin(self) -> RepositoryKin:
        """What ``init()`` needs to make a repository that shares this one's master key."""
        return RepositoryKin(key=self._key, chunker_polynomial=self._config.chunker_polynomial)

    def shares_key_with(self, other: Repository) -> bool:
        """Whether both have the same master key: what is sealed in one can be read in the other."""
        return self._key.equals(other._key)

    def key_files(self) -> list[KeyInfo]:
        """Return the key files, the oldest first; ``key_id`` is the one that opened this session."""
        return list_keys(self.store)

    def add_key(self, password: Secret, *, hostname: str, username: str) -> str:
        """Make ``password`` open the repository too; return the id of its key file, proven to open it."""
        self.check_locks()
        return store_key(self.store, self._key, password, hostname=hostname, username=username)

    def remove_key(self, key_id: str, *, kept_id: str | None = None) -> None:
        """Remove a key file while ``kept_id`` (the one in use) stays. Needs an exclusive lock."""
        self.check_locks()
        remove_key(self.store, key_id, kept_id=kept_id or self.key_id)

    def keys_opened_by(self, password: Secret) -> tuple[str, ...]:
        """Return the ids of the key files that ``password`` opens."""
        return tuple(key_id for key_id, _ in search_keys(self.store, password).opened)

    def snapshots(
        self, *, damaged: list[RepositoryDamaged] | None = None, except_ids: Collection[str] = ()
    ) -> list[Snapshot]:
        """Return every snapshot but ``except_ids``, oldest first, whoever made it; needs no index.

        The first unreadable one raises, unless the caller gives a list to collect them in.
        """
        listed = {snapshot_id for snapshot_id, _ in list_ids(self.store, FileKind.SNAPSHOT)}
        ids = sorted(listed.difference(except_ids))
        found: list[Snapshot] = []
        for result in ahead(self._threads, self._read_snapshot, ids, _THREADS * 2):
            if isinstance(result, Snapshot):
                found.append(result)
            elif result is not None:
                if damaged is None:
                    raise result
                damaged.append(result)
        return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))

    def _read_snapshot(self, snapshot_id: str) -> Snapshot | RepositoryDamaged | None:
        name = FileKind.SNAPSHOT.name_of(snapshot_id)
        try:
            content = self._files.load_present(FileKind.SNAPSHOT, snapshot_id)
            return None if content is None else decode_snapshot(content, snapshot_id)
        except ValueError as exc:
            return RepositoryDamaged(f"{name} is not a snapshot: {exc}", file=name)
        except RepositoryDamaged as exc:
            return exc

    def save_snapshot(self, snapshot: Snapshot) -> str:
        """Store a snapshot and return its id; durable on return.

        Everything it refers to must be durable before: call the writer's ``flush()``.
        """
        self.check_locks()
        return self._files.save(FileKind.SNAPSHOT, encode_snapshot(snapshot))

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot; an absent one is fine. What only it refers to stays until a prune."""
        self._files.remove(FileKind.SNAPSHOT, snapshot_id)

    def copy_of_snapshot(self, snapshot: Snapshot) -> bytes:
        """Return a stored snapshot as ``save_copied_snapshot()`` of another repository takes it."""
        snapshot_id = snapshot.id or ""
        content = self._files.load_present(FileKind.SNAPSHOT, snapshot_id) if snapshot_id else None
        if content is None:
            raise RepositoryDamaged(f"snapshots/{snapshot_id} is no longer there")
        return copied_snapshot(content, snapshot_id)

    def save_copied_snapshot(
        self, content: bytes, *, identity: str, is_same: Callable[[Snapshot], bool]
    ) -> str:
        """Store a snapshot of another repository and return its id; as ``save_snapshot()``.

        Of copies with one ``identity`` that are made at once, by whatever processes, one file comes: that of the first. What
        stands in its place and is not ``is_same`` does not count.
        """
        self.check_locks()
        sealed = claim_copy(self._files, self.id, identity, self._files.seal(content))
        try:
            first = decode_snapshot(self._files.unseal("the claim of a copy", sealed), "")
            counts = is_same(first)
        except (RepositoryDamaged, ValueError):
            counts = False
        self.check_locks()  # who was stopped while it claimed may have been taken for dead, and what it needs pruned
        return self._files.save_sealed(FileKind.SNAPSHOT, sealed if counts else self._files.seal(content))

    def load_index(self, *, damaged: list[RepositoryDamaged] | None = None) -> None:
        """Bring the index in memory up to date with the index files in the store.

        The first unreadable one raises, unless the caller gives a list to collect them in: what only those list
        is unknown then. A file that a prune replaces meanwhile is not damage: everything is read again.
        """
        self._loaded.load(damaged)

    def lose_missing_packs(self) -> int:
        """Look which packs that the loaded index lists are missing in the store, or cut off; return how many.

        What only they hold is unknown from then on, for as long as this object lives: a writer stores it again. One request
        to a bucket for a thousand packs. A change within a pack is not seen.
        """
        return self._loaded.lose_missing_packs()

    def indexed_packs(self, *, damaged: list[RepositoryDamaged] | None = None) -> Iterator[PackContents]:
        """Yield what the loaded index files say about every pack, read again.

        A pack that stands in several index files comes several times. ``damaged`` is as in ``load_index()``.
        """
        return self._loaded.packs(damaged)

    def index_ids(self) -> list[str]:
        """Return the names of the index files in the store."""
        return self._loaded.names()

    def index_file(self, index_id: str) -> list[PackContents]:
        """Return what one index file lists. Raises RepositoryDamaged."""
        return self._loaded.file(index_id)

    def use_index(self, index: BlobIndex) -> None:
        """Look blobs up in ``index`` from now on, until the next ``load_index()``, which reads everything anew."""
        self._loaded.use(index)

    def replace_index(self, packs: Iterable[PackContents], *, remove: Iterable[str]) -> None:
        """List ``packs`` in new index files; once those are durable, remove the index files named by ``remove``.

        A crash in between leaves packs listed twice, which is harmless.
        """
        for group in grouped(packs):
            self.check_locks()
            self._files.save(FileKind.INDEX, encode_index(group))
        for index_id in remove:
            self.check_locks()
            self._files.remove(FileKind.INDEX, index_id)

    def pack_header(self, pack_id: bytes, size_bytes: int) -> PackContents:
        """Return what a pack of ``size_bytes`` says it holds; RepositoryDamaged if its header cannot be read."""
        name = pack_id.hex()
        try:
            return PackContents(pack_id, read_header(self.store, name, size_bytes, self._key))
        except ObjectNotFound as exc:
            raise RepositoryDamaged(f"pack {name} is missing", file=pack_name(name)) from exc

    def move_intact(self, contents: PackContents, writer: BlobWriter) -> int:
        """Give the writer the blobs of a damaged pack that are whole; return how many it stored."""
        return sum(
            writer.save_sealed(entry.kind, entry.id, sealed, entry.plain_length).is_new
            for entry, sealed in intact_blobs(self.store, self._key, *contents)
        )

    def save_note(self, name: str, content: bytes) -> None:
        """Store an object of our own below ``pgstow/``, sealed like an index file; it replaces one of that name.

        Where nobody may overwrite, one that is there with this very content will do.
        """
        self.check_locks()
        try:
            self._files.save_as(name, content)
        except StoreDenied:
            with contextlib.suppress(StoreError, RepositoryDamaged):  # the first error matters
                if self._files.load_as(name) == content:
                    return
            raise

    def read_note(self, name: str) -> bytes:
        """Return what ``save_note()`` stored. Raises RepositoryDamaged, ObjectNotFound."""
        return self._files.load_as(name)

    def open_note(self, name: str, sealed: bytes) -> bytes:
        """Return the content of an object of our own whose bytes were had in another way. Raises RepositoryDamaged."""
        return self._files.unseal(name, sealed)

    def pack_sizes(self) -> dict[bytes, int]:
        """Return the packs that are in the store and their sizes."""
        return {
            bytes.fromhex(pack_id): info.size_bytes for pack_id, info in list_ids(self.store, FileKind.PACK)
        }

    def check_pack(self, contents: PackContents) -> PackCheck:
        """Read a whole pack and check its name, its header and every blob that the index places in it."""
        return check_pack(self.store, self._key, contents)

    def pack_of(self, kind: BlobKind, blob_id: BlobId) -> bytes | None:
        """Return the id of the pack that holds a blob, or None if it is in no index file."""
        place = self._index.find(kind, blob_id)
        return None if place is None else place.pack_id

    def has_blob(self, kind: BlobKind, blob_id: BlobId) -> bool:
        """Whether an index file lists a blob."""
        return self._index.has(kind, blob_id)

    def locate(self, kind: BlobKind, blob_id: BlobId) -> Location | None:
        """Return where a blob lies, or None if it is in no index file."""
        return self._index.find(kind, blob_id)

    def read_pack(self, pack_id: bytes) -> tuple[PackContents, bytes]:
        """Return what a pack lists and all of its bytes, which match its name; RepositoryDamaged otherwise."""
        return read_pack(self.store, self._key, pack_id)

    def stored_blobs(self, pack_id: bytes, entries: Sequence[PackEntry]) -> Iterator[StoredBlob]:
        """Yield blobs of one pack as they are stored, each opened and checked.

        Where a blob is damaged another copy of it is taken; RepositoryDamaged if there is none.
        """
        return stored_blobs(self.store, self._key, self._index, pack_id, entries)

    def places_of(self, kind: BlobKind, blob_id: BlobId) -> list[Location]:
        """Return where the copies of a blob lie, as far as the index remembers them: two at most."""
        places = (self._index.find(kind, blob_id), self._index.find_other(kind, blob_id))
        return [place for place in places if place is not None]

    def blob_size(self, kind: BlobKind, blob_id: BlobId) -> int | None:
        """Return the plaintext length of a blob, or None if it is in no index file."""
        place = self._index.find(kind, blob_id)
        return None if place is None else place.size_bytes

    def read_blob(self, kind: BlobKind, blob_id: BlobId) -> bytes:
        """Return the plaintext of a blob, checked; RepositoryDamaged if no copy is intact."""
        return self._reader.read(kind, blob_id)

    def stream(self, ids: Iterable[BlobId], *, read_ahead: int = 4) -> Generator[bytes, None, None]:
        """Yield the plaintext of data blobs in order, each checked.

        ``read_ahead`` spans of about 4 MiB are fetched and decoded in threads; closing the generator stops them.
        """
        return self._reader.stream(ids, read_ahead)

    def read_tree(self, tree_id: BlobId) -> list[Node]:
        """Return the nodes of a folder in the order of their names."""
        try:
            return decode_tree(self.read_blob(BlobKind.TREE, tree_id))
        except TreeError as exc:
            raise RepositoryDamaged(
                f"tree {tree_id.hex()} is not readable: {exc}", blob=tree_id.hex()
            ) from exc

    def holdings(self) -> Holdings:
        """Return access to index files, packs and prune records one by one, for what rearranges them."""
        return Holdings(self._files, self._key, self._threads, guard=self.check_locks)

    def marks(self) -> Marks:
        """Return access to holds, proofs and the databases that are gone."""
        return Marks(self._files, self.id, self._threads, guard=self.check_locks)

    def records(self, folder: str) -> Records:
        """Return access to the sealed documents of one folder below ``pgstow/``; ``folder`` ends in a slash."""
        return Records(self._files, folder, self._threads, guard=self.check_locks)

    def writer(self) -> BlobWriter:
        """Return a writer, to be used in a with block. It stops when a lock taken by ``lock()`` is lost."""
        return BlobWriter(
            self._files,
            self._key,
            self._index,
            guard=self.check_locks,
            indexed=self._loaded.note_written,
            unlisted=self._loaded.note_unlisted,
        )

    @contextlib.contextmanager
    def lock(
        self,
        *,
        exclusive: bool = False,
        early: bool = False,
        wait_s: float = 0.0,
        times: LockTimes | None = None,
        on_wait: Callable[[RepositoryLocked], None] = lambda _: None,
    ) -> Iterator[RepositoryLock]:
        """Hold a restic lock for a block. Raises RepositoryLocked when someone else's forbids it for ``wait_s``.

        With ``early`` the block begins before that is certain. What it reads meanwhile counts once the lock's
        ``check()`` has passed, which every write waits for. Who is ready to wait begins when it is certain.
        ``on_wait`` is told before each pause why.
        """
        times = times or self.lock_times

        def make() -> RepositoryLock:
            return RepositoryLock(
                self._files,
                is_exclusive=exclusive,
                holder=Holder.current(),
                times=times,
                is_early=early and not wait_s,
            )

        with self._held(make, times, wait_s, on_wait) as lock:
            yield lock

    @contextlib.contextmanager
    def lease(
        self,
        database: LeasedDatabase,
        *,
        run_id: str,
        early: bool = False,
        wait_s: float = 0.0,
        times: LockTimes | None = None,
        on_wait: Callable[[RepositoryLocked], None] = lambda _: None,
        supersedes: Collection[str] = (),
    ) -> Iterator[Lease]:
        """Hold the lease of a database for a block, so that no other run backs it up. All else is as in ``lock()``.

        Runs that this one ``supersedes`` are not waited for.
        """
        times = times or self.lock_times

        def make() -> Lease:
            return Lease(
                self._files,
                folder=lease_folder(self.id, database),
                database=database.name,
                run_id=run_id,
                holder=Holder.current(),
                times=times,
                is_early=early and not wait_s,
                supersedes=supersedes,
            )

        with self._held(make, times, wait_s, on_wait) as lease:
            yield lease

    def void_run(self, run_id: str) -> bool:
        """Make sure that a run that was given up never publishes; False if it has, or may be about to."""
        return void_run(self._files, run_id, by=str(Holder.current()))

    @contextlib.contextmanager
    def _held(
        self,
        make: Callable[[], _Held],
        times: LockTimes,
        wait_s: float,
        on_wait: Callable[[RepositoryLocked], None],
    ) -> Iterator[_Held]:
        deadline_s = times.clock_s() + wait_s
        pause_s = times.conflict_s
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    held = stack.enter_context(make())
                    break
                except RepositoryLocked as exc:
                    left_s = deadline_s - times.clock_s()
                    if left_s <= 0:
                        raise
                    on_wait(exc)
                times.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 1.5, times.longest_conflict_s)
            self._locks.append(held)
            stack.callback(self._locks.remove, held)
            yield held

    def obstacles(self, *, now: datetime | None = None) -> list[Obstacle]:
        """Return every lock and held lease, dead or alive; ``now`` is as in ``find_obstacles()``."""
        return find_obstacles(self._files, self.lock_times, now)

    def remove_obstacle(self, obstacle: Obstacle, *, is_forced: bool) -> bool:
        """Remove a lock or end a lease, one with a live holder only if ``is_forced``; return whether that was done."""
        return remove_obstacle(self._files, obstacle, self.lock_times, is_forced=is_forced)

    def check_locks(self) -> None:
        """Raise RepositoryLocked if a lock or lease taken here is no longer ours to rely on."""
        for lock in list(self._locks):
            lock.check()
