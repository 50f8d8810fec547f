"""Records of drills: what was saved is there, what was forged or misplaced is seen, what could not be saved is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgstow.app.drill_records import keep_drill, kept_drills, publish_drill, publish_kept_drills
from pgstow.catalog.drills import DrillRecord, find_drill, read_drills, save_drill
from pgstow.core.errors import RepositoryDamaged, StateError, StoreDenied, UsageError
from pgstow.repository import Repository
from pgstow.store.memory import MemoryStore
from support.drilling import drill_record
from support.repositories import init_repository, open_repository

DAY = timedelta(days=1)
SECRET = "ledger of the secret customer"


class Denying(MemoryStore):
    """A store that refuses every write while ``is_shut``."""

    is_shut = False

    def put(self, name: str, data: Any, *, if_absent: bool = False) -> None:
        if self.is_shut:
            raise StoreDenied(f"{name}: only reading is allowed")
        super().put(name, data, if_absent=if_absent)


@pytest.fixture
def store() -> Denying:
    return Denying()


@pytest.fixture
def repository(store: Denying) -> Repository:
    return init_repository(store)


def objects(store: MemoryStore) -> list[str]:
    return sorted(info.name for info in store.list("pgstow/drills/"))


def test_saved_read_and_found(store: Denying, repository: Repository) -> None:
    old, new = drill_record(ago=40 * DAY, notes=SECRET), drill_record("failed", ago=DAY)
    save_drill(repository, new)
    save_drill(repository, old)
    save_drill(repository, old)
    again = open_repository(store)
    assert read_drills(again) == [old, new]
    assert find_drill([old, new], "latest") == new
    assert find_drill([old, new], old.id[:10]) == old
    assert objects(store) == sorted(
        f"pgstow/drills/{one.started:%Y%m%dT%H%M%SZ}-{one.id}" for one in (old, new)
    )
    assert not any(SECRET.encode() in store.get(name) for name in objects(store))


def test_only_what_is_wanted_is_fetched(store: Denying, repository: Repository) -> None:
    old, new = drill_record(ago=400 * DAY), drill_record(ago=DAY)
    for one in (old, new):
        save_drill(repository, one)
    store.put(objects(store)[0], b"damaged")
    assert read_drills(repository, since=new.started - DAY) == [new]
    assert read_drills(repository, since=new.started) == [new]
    assert read_drills(repository, since=new.started + timedelta(milliseconds=1)) == []
    damaged: list[RepositoryDamaged] = []
    assert read_drills(repository, damaged=damaged) == [new]
    assert [exc.facts["file"] for exc in damaged] == [objects(store)[0]]


def test_what_was_forged_or_misplaced_is_seen(store: Denying, repository: Repository) -> None:
    """Who can write to the store has no key: all he can do is to copy what is there."""
    failed, passed = drill_record("failed", ago=2 * DAY), drill_record(ago=DAY)
    for one in (failed, passed):
        save_drill(repository, one)
    theirs, ours = objects(store)
    sealed = store.get(ours)
    mark = next(iter(store.list("keys/"))).name
    for name, data in (
        (theirs, sealed),  # the record of a drill that passed, where one failed
        ("pgstow/drills/20261121T000000Z-" + passed.id, sealed),
        ("pgstow/drills/made-up", sealed),
        ("pgstow/drills/20990101T000000Z-" + passed.id, store.get(mark)),
        ("pgstow/drills/20990102T000000Z-" + passed.id, b'{"id": "forged"}'),
        (ours, sealed[:-1]),
    ):
        before = {other: store.get(other) for other in objects(store)}
        store.put(name, data)
        with pytest.raises(RepositoryDamaged) as caught:
            read_drills(repository)
        assert caught.value.facts["file"] == name
        store.delete(name)
        for other, content in before.items():
            store.put(other, content)
    assert read_drills(repository) == [failed, passed]


def test_a_hold_is_no_drill(store: Denying, repository: Repository) -> None:
    """Sealed by the same key, and not a record of a drill."""
    repository.marks().hold("aaaaaaaa", at=datetime(2026, 11, 21, tzinfo=UTC), by="anna", reason="case")
    (mark,) = store.list("pgstow/holds/")
    store.put("pgstow/drills/20261121T000000Z-aaaaaaaa", store.get(mark.name))
    with pytest.raises(RepositoryDamaged, match="no record of a drill"):
        read_drills(repository)


def test_newer_formats_are_refused_and_unknown_keys_are_not(repository: Repository) -> None:
    record = drill_record()
    text = record.to_json().replace(b'"format": 1', b'"format": 1, "new": [1]')
    repository.records("pgstow/drills/").save(record.file_name, text)
    assert read_drills(repository) == [record]
    newer = text.replace(b'"format": 1', b'"format": 2').replace(b'"selected"', b'"was_chosen_by"')
    repository.records("pgstow/drills/").save(record.file_name, newer)
    with pytest.raises(RepositoryDamaged, match="format 2, newer"):
        read_drills(repository)


@pytest.mark.parametrize("text", ["", "nothing", "a"])
def test_a_drill_that_nothing_or_several_answer_to(text: str) -> None:
    records = [drill_record(id=f"a{number}000000") for number in range(2)]
    with pytest.raises(UsageError):
        find_drill(records, text)


def test_a_proof_for_what_passed_alone(repository: Repository) -> None:
    passed, failed = drill_record(), drill_record("failed")
    for one in (passed, failed):
        publish_drill(repository, one)
    proofs, doubtful = repository.marks().proofs([passed.backup_id, failed.backup_id])
    assert [(proof.backup_id, proof.when) for proof in proofs] == [(passed.backup_id, passed.finished)]
    assert passed.id in proofs[0].what
    assert not doubtful


def test_kept_until_it_can_be_saved(store: Denying, repository: Repository, tmp_path: Path) -> None:
    record = drill_record(notes=SECRET)
    place = keep_drill(tmp_path / "state", repository.id, record)
    assert place.stat().st_mode & 0o077 == 0
    assert place.parent.stat().st_mode & 0o077 == 0
    assert kept_drills(tmp_path / "state", "another repository") == []
    store.is_shut = True
    said: list[str] = []
    assert publish_kept_drills(repository, tmp_path / "state", said.append) == [record]
    assert place.exists()
    assert said == []
    store.is_shut = False
    assert publish_kept_drills(repository, tmp_path / "state", said.append) == []
    assert not place.exists()
    assert len(said) == 1
    assert read_drills(repository) == [record]
    assert [proof.backup_id for proof in repository.marks().proofs([record.backup_id])[0]] == [
        record.backup_id
    ]
    assert publish_kept_drills(repository, tmp_path / "state", said.append) == []
    assert publish_kept_drills(repository, None, said.append) == []


def test_what_is_half_written_in_the_state_folder_harms_nobody(
    repository: Repository, tmp_path: Path
) -> None:
    record = drill_record()
    place = keep_drill(tmp_path, repository.id, record)
    place.with_name("20260101T000000Z-broken.json").write_bytes(b"{")
    place.with_suffix(".tmp").write_bytes(b"{")
    assert [found for _, found in kept_drills(tmp_path, repository.id)] == [record]


def test_a_state_folder_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="cannot be kept"):
        keep_drill(tmp_path / "state", repository.id, drill_record())


def test_a_state_folder_of_somebody_else_holds_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refuse)
    assert kept_drills(tmp_path, repository.id) == []


def test_issues_are_what_neither_passed_nor_was_skipped() -> None:
    checks = [
        {"code": "content", "outcome": outcome, "message": outcome}
        for outcome in ("pass", "fail", "unknown", "skipped")
    ]
    record = DrillRecord.model_validate(drill_record("failed").model_dump(by_alias=True) | {"checks": checks})
    assert [issue.outcome for issue in record.issues] == ["fail", "unknown"]
