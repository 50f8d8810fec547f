"""Adding entries: what a host keeps, what waits, and what it does where somebody else writes its chain."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from pgstow.audit.anchoring import anchor_when_due
from pgstow.audit.checking import verify
from pgstow.audit.journal import Book, Journal, read_waiting
from pgstow.audit.keys import HostKey
from pgstow.audit.trail import FOLDER, read_trail
from pgstow.audit.writing import Written, look, send, write
from pgstow.core.errors import StateError, StoreDenied
from pgstow.repository import Repository
from pgstow.store.memory import MemoryStore
from support.repositories import WatchedStore, init_repository
from support.trails import MOMENT, Host, draft, kinds


@pytest.fixture
def repository() -> Repository:
    return init_repository(MemoryStore())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "one")


def refusing(store: WatchedStore) -> None:
    def refuse(method: str, name: str) -> None:
        if method == "put" and name.startswith(FOLDER):
            raise StoreDenied("read-only")

    store.before = refuse


def test_one_access_costs_one_put_and_one_list(host: Host) -> None:
    store = WatchedStore()
    repository = init_repository(store)
    host.writes(repository, "init")
    store.calls.clear()
    host.writes(repository, "list")
    assert [method for method, _ in store.calls] == ["list", "put"]


def test_the_first_access_of_a_month_costs_one_list_more(host: Host) -> None:
    store = WatchedStore()
    repository = init_repository(store)
    host.writes(repository, "init")
    host.now += timedelta(days=30)
    store.calls.clear()
    host.writes(repository, "list")
    assert [method for method, _ in store.calls] == ["list", "list", "put"]


def test_what_a_store_refuses_waits_and_goes_in_order(host: Host) -> None:
    store = WatchedStore()
    repository = init_repository(store)
    host.writes(repository, "init")
    refusing(store)
    with pytest.raises(StoreDenied):
        host.writes(repository, "list")
    with pytest.raises(StoreDenied):
        host.writes(repository, "show")
    assert len(read_trail(repository).entries) == 1
    with host.journal.book(repository.id) as book:
        kept = [read_waiting(*each) for each in book.waiting()]
    assert [each.entry.action for each in kept if each] == ["list", "show"]

    store.before = lambda method, name: None
    host.writes(repository, "backup")
    trail = read_trail(repository)
    assert [each.entry.action for each in trail.entries] == ["init", "list", "show", "backup"]
    assert verify(trail).is_intact
    with host.journal.book(repository.id) as book:
        assert book.waiting() == []


def test_killed_between_keeping_and_sending(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    host.keeps(repository, "restore")  # and here it ends
    host.writes(repository, "list")
    trail = read_trail(repository)
    assert [each.entry.action for each in trail.entries] == ["init", "restore", "list"]
    assert verify(trail).is_intact


def test_killed_between_sending_and_forgetting(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    host.keeps(repository, "restore")
    with host.journal.book(repository.id) as book:
        waiting = [read_waiting(*each) for each in book.waiting()]
    send(repository, host.journal)
    with host.journal.book(repository.id) as book:
        assert waiting[0] is not None
        book.keep(waiting[0].raw)  # as it was before
    host.writes(repository, "list")
    trail = read_trail(repository)
    assert [each.entry.action for each in trail.entries] == ["init", "restore", "list"]
    assert verify(trail).is_intact


def test_unfinished_files_are_no_entries(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    host.keeps(repository, "restore")
    folder = host.folder / repository.id / "pending"
    (folder / ".begun").write_bytes(b"half")
    torn = folder / next(folder.iterdir()).name.replace("0000000002", "0000000003")
    torn.write_bytes(b"half")
    host.writes(repository, "list")
    assert [each.entry.action for each in read_trail(repository).entries] == ["init", "restore", "list"]
    assert not (folder / ".begun").exists()


def test_entries_name_the_other_heads(repository: Repository, host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "two")
    host.writes(repository, "init", "list")
    other.writes(repository, "list")
    newest = read_trail(repository).chains[other.key.chain][-1].entry
    assert [(head.chain, head.number) for head in newest.heads] == [(host.key.chain, 2)]


def test_no_more_heads_than_are_of_use(repository: Repository, host: Host, tmp_path: Path) -> None:
    """Containers that begin a chain each."""
    for number in range(20):
        Host(tmp_path / f"container {number}").writes(repository, "backup")
    host.writes(repository, "list")
    assert len(read_trail(repository).chains[host.key.chain][0].entry.heads) == 16
    host.anchors(repository)
    assert len(read_trail(repository).anchors[0].anchor.heads) == 21


def test_entries_name_heads_of_other_repositories(repository: Repository, host: Host) -> None:
    second = init_repository(MemoryStore())
    host.writes(repository, "init", "backup")
    host.writes(second, "init")
    (foreign,) = read_trail(second).entries[0].entry.elsewhere
    assert (foreign.repository, foreign.head) == (repository.id, read_trail(repository).heads[0])


def test_entries_that_were_not_sent_are_no_heads_elsewhere(repository: Repository, host: Host) -> None:
    """Else a check would miss in one repository what this host still keeps."""
    second = init_repository(MemoryStore())
    host.writes(repository, "init")
    host.keeps(repository, "backup")
    host.writes(second, "init")
    (foreign,) = read_trail(second).entries[0].entry.elsewhere
    assert foreign.head.number == 1


def test_a_machine_set_back_begins_a_new_chain(repository: Repository, host: Host, tmp_path: Path) -> None:
    host.writes(repository, "init")
    chain = host.key.chain
    shutil.copytree(host.folder, tmp_path / "image")
    host.writes(repository, "backup")
    restored = Host(tmp_path / "image", now=host.now)
    written = restored.writes(repository, "list")
    assert "set back" in written.warnings[0]
    assert restored.key.chain != chain
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert {head.chain: head.number for head in verdict.heads} == {chain: 2, restored.key.chain: 1}
    assert restored.writes(repository, "list").warnings == ()


def test_two_machines_with_one_key_at_one_time(repository: Repository, host: Host, tmp_path: Path) -> None:
    """Neither saw the other: both entries stay, the fork is found, and the next entry begins a new chain."""
    host.writes(repository, "init")
    shutil.copytree(host.folder, tmp_path / "image")
    twin = Host(tmp_path / "image", now=host.now + timedelta(seconds=1))
    sights = [look(repository, each.journal, now=MOMENT) for each in (host, twin)]
    for each, sight, action in zip((host, twin), sights, ("backup", "prune"), strict=True):
        write(repository, each.journal, [draft(action)], sight)
        send(repository, each.journal)
    problems = verify(read_trail(repository)).problems
    assert [(each.kind, each.number) for each in problems] == [("forked", 2)]
    chain = host.key.chain
    assert host.writes(repository, "list").warnings
    assert host.key.chain != chain


def test_a_given_key_goes_on_without_state(repository: Repository, tmp_path: Path) -> None:
    """A container with PGSTOW_AUDIT_KEY_FILE, whose state folder is new each time, or cannot be written."""
    key = HostKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    for number in (1, 2):
        journal = Journal(tmp_path / f"state {number}", key_file=tmp_path / "key.pem")
        write(repository, journal, [draft()], look(repository, journal, now=MOMENT))
        send(repository, journal)
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "state", key_file=tmp_path / "key.pem")
    written = write(repository, journal, [draft()], look(repository, journal, now=MOMENT))
    send(repository, journal, written.unkept)
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert [(head.chain, head.number) for head in verdict.heads] == [(key.chain, 3)]


def test_a_host_that_can_keep_nothing(repository: Repository, tmp_path: Path) -> None:
    """A chain for each access, and it is said."""
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "state")
    for _ in range(2):
        written = write(repository, journal, [draft(), draft("show")], look(repository, journal, now=MOMENT))
        assert "cannot be kept" in written.warnings[0]
        send(repository, journal, written.unkept)
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert [head.number for head in verdict.heads] == [2, 2]


def test_a_key_file_that_holds_no_key(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nonsense")
    journal = Journal(tmp_path / "state", key_file=tmp_path / "key.pem")
    with pytest.raises(StateError, match=r"key\.pem"):
        next(journal.key_choices())
    written = write(repository, journal, [draft()], look(repository, journal, now=MOMENT))
    assert len(written.unkept) == 1


def test_the_key_is_its_owners_alone(host: Host) -> None:
    assert host.key.chain == host.key.chain
    assert (host.folder / "host.key").stat().st_mode & 0o777 == 0o600
    assert host.folder.stat().st_mode & 0o777 == 0o700


def test_lost_state_with_the_key_kept(repository: Repository, host: Host) -> None:
    """Somebody cleared the state but for the key: the chain goes on where the repository has it."""
    host.writes(repository, "init", "list")
    shutil.rmtree(host.folder / repository.id)
    host.writes(repository, "show")
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert verdict.heads[0].number == 3


def test_an_anchor_a_day(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    for hours in (1, 2, 30):
        anchor_when_due(repository, host.journal, now=MOMENT + timedelta(hours=hours - 1))
    assert len(read_trail(repository).anchors) == 2
    assert kinds(verify(read_trail(repository)).problems) == []


def test_objects_that_somebody_put_into_the_chain(repository: Repository, host: Host) -> None:
    """Whoever can write to the store gives an object any name: the host goes on after its own entries."""
    host.writes(repository, "init")
    name = next(info.name for info in repository.store.list(FOLDER))
    for number in (1, 2, 9999999999):
        forgery = name.replace("0000000001", f"{number:010d}")[:-64] + "f" * 64
        repository.store.put(forgery, b"nonsense")
    assert host.writes(repository, "backup").warnings == ()
    chain = read_trail(repository).chains[host.key.chain]
    assert [each.entry.action for each in chain] == ["init", "backup"]

    shutil.rmtree(host.folder / repository.id)  # and so does a container that has the key alone
    assert host.writes(repository, "list").warnings == ()
    assert [each.entry.number for each in read_trail(repository).chains[host.key.chain]] == [1, 2, 3]


def test_a_long_backlog_is_sent_bit_by_bit(repository: Repository, host: Host) -> None:
    """Each command waits ten seconds at most, and its process ends: the next goes on where it was."""
    host.keeps(repository, *["list"] * 50)
    sent = 0

    def put(name: str, raw: bytes) -> None:
        nonlocal sent
        if sent == 45:
            raise SystemExit  # the process is over, no block is left in order
        repository.save_note(name, raw)
        sent += 1

    with (
        patch.object(Book, "settle", autospec=True, side_effect=Book.settle) as settle,
        pytest.raises(SystemExit),
    ):
        send(repository, host.journal, put=put)
    assert settle.call_count == 3
    assert [len(call.args[1]) for call in settle.call_args_list[:2]] == [20, 20]


def test_a_host_without_memory_leaves_the_anchor_to_others(
    repository: Repository, host: Host, tmp_path: Path
) -> None:
    """Containers with a new state folder each time: one anchor a day all in all."""
    host.writes(repository, "init")
    now = datetime.now(UTC)
    for number in range(3):
        container = Host(tmp_path / f"container {number}")
        container.writes(repository, "backup")
        anchor_when_due(repository, container.journal, now=now)
    assert len(read_trail(repository).anchors) == 1
    anchor_when_due(repository, host.journal, now=now)
    host.writes(repository, "list")
    anchor_when_due(repository, host.journal, now=now + timedelta(days=1))
    assert len(read_trail(repository).anchors) == 2


def test_a_damaged_memory_is_none(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    mark = host.folder / repository.id / "heads" / host.key.chain
    for content in (
        '{"number": "x", "digest": "", "month": "2026-11"}',
        '{"number": 1, "digest": "d", "month": "?"}',
    ):
        mark.write_text(content)
        host.writes(repository, "list")
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert [head.number for head in verdict.heads] == [3]


def test_a_key_that_others_can_read_is_told(repository: Repository, host: Host) -> None:
    host.writes(repository, "init")
    (host.folder / "host.key").chmod(0o644)
    (warning,) = host.writes(repository, "list").warnings
    assert "chmod 600" in warning


def test_a_given_key_where_nothing_was_looked_at(repository: Repository, tmp_path: Path) -> None:
    """A container, and a store that did not answer: its chain may be long already, and must not get a second entry 1."""
    key = HostKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    for number in (1, 2):
        journal = Journal(tmp_path / f"state {number}", key_file=tmp_path / "key.pem")
        written = write(
            repository, journal, [draft()], None if number == 2 else look(repository, journal, now=MOMENT)
        )
        send(repository, journal, written.unkept)
    assert "could not be looked at" in written.warnings[0]
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "state", key_file=tmp_path / "key.pem")
    send(repository, journal, write(repository, journal, [draft()], None).unkept)
    verdict = verify(read_trail(repository))
    assert verdict.is_intact
    assert [head.number for head in verdict.heads] == [1, 1, 1]


def test_a_given_key_goes_on_while_the_store_does_not_answer(repository: Repository, tmp_path: Path) -> None:
    """Where this host knows how far its chain is."""
    key = HostKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    journal = Journal(tmp_path / "state", key_file=tmp_path / "key.pem")
    for sight in (look(repository, journal, now=MOMENT), None):
        assert write(repository, journal, [draft()], sight) == Written()
    (journal.folder / "host.key").unlink()
    assert write(repository, journal, [draft()], None) == Written()
    send(repository, journal)
    assert [each.entry.number for each in read_trail(repository).chains[key.chain]] == [1, 2, 3]
