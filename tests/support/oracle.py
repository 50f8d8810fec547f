"""What must hold for a repository whatever happened to the process that was writing to it."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgstow.assurance.verify import verify
from pgstow.catalog.backups import BackupFiles, BackupRecord, list_backups
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.api import Store
from pgstow.store.local import LocalStore
from support.restic import PASSWORD, Restic

__all__ = ["Oracle", "State", "Whole", "contents_of", "files_below", "state_of"]

Digests = Mapping[str, str]

_MOST_KNOWN = 100


@dataclass(frozen=True, slots=True, order=True)
class State:
    """What kind of state a repository is in: equal ones are the same to restic."""

    snapshots: int
    index_files: int
    packs: int
    unindexed_packs: int
    locks: int
    keys: int


def state_of(repository: Repository, *, unindexed_packs: int) -> State:
    """Return what is there, by counting."""
    folders = Counter(info.name.partition("/")[0] for info in repository.store.list(""))
    return State(
        folders["snapshots"],
        folders["index"],
        folders["data"],
        unindexed_packs,
        folders["locks"],
        folders["keys"],
    )


def contents_of(repository: Repository, record: BackupRecord) -> dict[str, str]:
    """Return the SHA-256 of every member of a backup, read through the repository."""
    files = BackupFiles(repository, record)
    found = {}
    for name, _ in files.members():
        digest = hashlib.sha256()
        for piece in files.stream(name):
            digest.update(piece)
        found[name] = digest.hexdigest()
    return found


def files_below(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path in there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What a repository holds in which nothing is wrong: by backup id, the SHA-256 of its members."""

    contents: Mapping[str, Digests]
    unindexed_packs: int


@dataclass(kw_only=True)
class Oracle:
    """Judges a repository. ``acknowledged`` are the backups that somebody was told of, and what was in them.

    ``rows`` are, by backup name, the table members that a backup of the present database has: one that nobody was
    told of is absent or has exactly these. ``restics`` judge each kind of state once, and all with ``is_thorough``;
    who ``take_turns`` see one state after the other, each by one of them.
    """

    restics: Sequence[Restic]
    scratch: Path
    acknowledged: dict[str, Digests] = field(default_factory=dict)
    rows: Mapping[str, Digests] = field(default_factory=dict)
    is_thorough: bool = False
    take_turns: bool = False
    judged: set[State] = field(default_factory=set)
    known: dict[bytes, Whole] = field(default_factory=dict)  # by the bytes that lay there: they are read once
    restic_runs: int = 0

    def check(self, store: Store) -> Repository:
        """Assert everything about what is in the store, and return it opened anew."""
        repository = Repository.open(store, Secret(PASSWORD))
        records = list_backups(repository)
        whole = self._whole(repository, records)
        contents = whole.contents
        for backup_id, digests in self.acknowledged.items():
            assert backup_id in contents, f"backup {backup_id} was acknowledged and is gone"
            assert contents[backup_id] == digests
        for record in records:
            if record.id not in self.acknowledged:
                assert self.rows[record.name].items() <= contents[record.id].items()
        self._ask_restic(repository, records, whole)
        return repository

    def acknowledge(self, repository: Repository, backup_id: str) -> None:
        """Take note of a backup that the program says is done."""
        repository.load_index()
        (record,) = [record for record in list_backups(repository) if record.id == backup_id]
        self.acknowledged[backup_id] = contents_of(repository, record)

    def _whole(self, repository: Repository, records: Sequence[BackupRecord]) -> Whole:
        """Return what is there, after everything was read and found right; the same bytes are not read twice."""
        lying = hashlib.sha256()
        for info in sorted(repository.store.list(""), key=lambda info: info.name):
            if not info.name.startswith(("pgstow/", "locks/")):
                content = hashlib.sha256(repository.store.get(info.name)).hexdigest()
                lying.update(f"{info.name} {content}\n".encode())
        whole = self.known.get(lying.digest())
        if whole is None:
            report = verify(repository, read_data=True)
            assert report.problems == ()
            contents = {record.id: contents_of(repository, record) for record in records}
            whole = Whole(contents=contents, unindexed_packs=report.unindexed_packs)
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[lying.digest()] = whole
        return whole

    def _ask_restic(self, repository: Repository, records: Sequence[BackupRecord], whole: Whole) -> None:
        state = state_of(repository, unindexed_packs=whole.unindexed_packs)
        if state in self.judged and not self.is_thorough:
            return
        self.judged.add(state)
        self.restic_runs += 1
        copy = self.scratch / "judged"
        shutil.rmtree(copy, ignore_errors=True)
        self._copy(repository.store, copy)
        turn = self.restics[len(self.judged) % len(self.restics)]
        for restic in (
            [turn] if self.take_turns else self.restics
        ):  # leftover locks belong to this very process
            restic(copy, "check", "--read-data", "--no-lock")
            for record in records:
                self._compare_restored(restic, copy, record, whole.contents[record.id])
        shutil.rmtree(copy / "locks", ignore_errors=True)
        (copy / "locks").mkdir()
        output = self.restics[-1](copy, "rewrite", "--exclude", "nothing-has-this-name").decode()
        assert "no snapshots were modified" in output
        shutil.rmtree(copy)

    def _compare_restored(self, restic: Restic, copy: Path, record: BackupRecord, expected: Digests) -> None:
        target = self.scratch / "restored"
        restic(copy, "restore", record.snapshot.id or "", "--target", target, "--no-lock")
        (root,) = target.iterdir()
        assert files_below(root) == expected
        shutil.rmtree(target)

    @staticmethod
    def _copy(store: Store, folder: Path) -> None:
        if isinstance(store, LocalStore):
            shutil.copytree(store.location, folder, ignore=shutil.ignore_patterns("tmp"))
        else:
            for info in store.list(""):
                path = folder / info.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(store.get(info.name))
        for name in ("data", "index", "keys", "locks", "snapshots"):
            (folder / name).mkdir(exist_ok=True)
