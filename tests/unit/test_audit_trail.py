"""What checking an audit trail finds: every way in which somebody may have touched it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pgstow.app.audit import enroll, export_trail, read_heads, verify_file, verify_trail
from pgstow.app.auditing import Access, Who, opened, recording
from pgstow.audit.checking import KnownHead, foreign_heads, verify, verify_chain
from pgstow.audit.documents import (
    ENROLMENT,
    Anchor,
    Enrolment,
    anchor_bytes,
    enrolment_bytes,
    entry_bytes,
    heads_document,
    parse_entry,
)
from pgstow.audit.entries import AuditVerdict
from pgstow.audit.keys import AdministratorKey, HostKey, Signed, fingerprint
from pgstow.audit.trail import FOLDER, enrolment_name, entry_name, read_trail
from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.memory import MemoryStore
from support.repositories import init_repository
from support.trails import MOMENT, Host, draft, forged, kinds, names_of


@pytest.fixture
def repository() -> Repository:
    return init_repository(MemoryStore())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Host:
    return Host(tmp_path / "two")


def checked(repository: Repository, **given: object) -> AuditVerdict:
    return verify(read_trail(repository), **given)  # type: ignore[arg-type]  # passed on as it is


def restate(repository: Repository, before: dict[str, bytes]) -> None:
    """Set the folder of the trail back to what it was."""
    store = repository.store
    for name in [info.name for info in store.list(FOLDER)]:
        store.delete(name)
    for name, content in before.items():
        store.put(name, content)


def state(repository: Repository) -> dict[str, bytes]:
    return {info.name: repository.store.get(info.name) for info in repository.store.list(FOLDER)}


def test_untouched(repository: Repository, host: Host, other: Host) -> None:
    host.writes(repository, "init", "backup")
    other.writes(repository, "list", "restore")
    host.writes(repository, "prune")
    verdict = checked(repository)
    assert verdict.is_intact
    assert verdict.entries == 5
    assert {head.chain: head.number for head in verdict.heads} == {host.key.chain: 3, other.key.chain: 2}
    assert verdict.anchors == 3  # heads of the other's chain, in two entries of his and one of ours
    assert not verdict.notes


def test_entries_tell_what_was_given(repository: Repository, host: Host) -> None:
    host.writes(repository, "restore")
    entry = read_trail(repository).entries[0].entry
    assert (entry.action, entry.user, entry.host, entry.repository) == (
        "restore",
        "anna",
        "db1",
        repository.id,
    )
    assert parse_entry(entry_bytes(entry)) == entry


def test_an_edited_entry(repository: Repository, host: Host) -> None:
    """By somebody with the repository's key: another content under the old name, with the old signature."""
    host.writes(repository, "list", "restore", "list")
    name = names_of(repository)[1]
    signed = Signed.decode(repository.read_note(name))
    edited = replace(signed, content=signed.content.replace(b"restore", b"backups"))
    repository.save_note(name, edited.encode())
    assert kinds(checked(repository).problems) == ["edited"]

    repository.store.delete(name)  # and under a name that fits
    entry = parse_entry(edited.content)
    repository.save_note(entry_name(entry, edited.encode()), edited.encode())
    assert kinds(checked(repository).problems) == ["unsigned"]


def test_an_entry_that_is_not_sealed(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore", "list")
    repository.store.put(names_of(repository)[1], b"nonsense")
    problems = checked(repository).problems
    assert kinds(problems) == ["unreadable"]
    assert problems[0].number == 2


def test_a_foreign_object(repository: Repository) -> None:
    repository.save_note(f"{FOLDER}notes", b"{}")
    assert kinds(checked(repository).problems) == ["unreadable"]


def test_a_missing_entry(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore", "list")
    repository.store.delete(names_of(repository)[1])
    problems = checked(repository).problems
    assert kinds(problems) == ["missing"]
    assert problems[0].number == 2


def test_a_missing_first_entry(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    repository.store.delete(names_of(repository)[0])
    assert [(each.kind, each.number) for each in checked(repository).problems] == [("missing", 1)]


def test_two_entries_that_changed_places(repository: Repository, host: Host) -> None:
    """Names say the number: the contents are swapped below them."""
    host.writes(repository, "list", "restore", "show")
    store, (_, second, third) = repository.store, names_of(repository)
    before = store.get(second), store.get(third)
    store.put(third, before[0])
    store.put(second, before[1])
    assert kinds(checked(repository).problems) == ["edited"]


def test_an_entry_below_another_number(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    name = names_of(repository)[1]
    repository.store.put(name.replace("/0000000002-", "/0000000003-"), repository.store.get(name))
    assert "reordered" in kinds(checked(repository).problems)


def test_entries_written_anew_in_another_order(repository: Repository, host: Host) -> None:
    """By somebody who has the host's key too, and did not mend every link."""
    host.writes(repository, "list", "restore", "show")
    trail = read_trail(repository)
    third = trail.entries[2]
    raw = forged(replace(third.entry, previous=trail.entries[0].digest), host.key)
    repository.store.delete(names_of(repository)[2])
    repository.save_note(entry_name(third.entry, raw), raw)
    assert kinds(checked(repository).problems) == ["reordered"]


def test_an_entry_replaced_with_the_hosts_key(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore", "show")
    second = read_trail(repository).entries[1]
    raw = forged(replace(second.entry, action="list"), host.key)
    repository.store.delete(names_of(repository)[1])
    repository.save_note(entry_name(second.entry, raw), raw)
    assert kinds(checked(repository).problems) == ["edited"]


def test_a_forged_signature(repository: Repository, host: Host) -> None:
    """Somebody with another key writes into the chain."""
    host.writes(repository, "list")
    trail = read_trail(repository)
    entry = replace(
        trail.entries[0].entry, number=2, previous=trail.entries[0].digest, action="restore", heads=()
    )
    raw = forged(entry, HostKey.generate())
    repository.save_note(entry_name(entry, raw), raw)
    assert kinds(checked(repository).problems) == ["unsigned"]


def test_a_fork(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    trail = read_trail(repository)
    entry = replace(trail.entries[1].entry, action="list")
    raw = forged(entry, host.key)
    repository.save_note(entry_name(entry, raw), raw)
    assert kinds(checked(repository).problems) == ["forked"]


def test_an_entry_of_another_repository(repository: Repository, host: Host) -> None:
    """The two have one master key, so that it can be read there."""
    twin = init_repository(MemoryStore(), kin=repository.kin)
    host.writes(repository, "list", "restore")
    name = names_of(repository)[0]
    twin.store.put(name, repository.store.get(name))
    assert kinds(checked(twin).problems) == ["reordered"]


def test_an_entry_in_another_chain(repository: Repository, host: Host, other: Host) -> None:
    host.writes(repository, "list")
    other.writes(repository, "list", "show")
    name = next(name for name in names_of(repository) if host.key.chain in name)
    moved = name.replace(host.key.chain, other.key.chain).replace("0000000001", "0000000003")
    repository.store.put(moved, repository.store.get(name))
    assert kinds(checked(repository).problems) == ["unsigned"]


def test_the_end_cut_off(repository: Repository, host: Host, other: Host) -> None:
    host.writes(repository, "list", "restore")
    other.writes(repository, "list")  # names the head of the other chain
    repository.store.delete(
        next(name for name in names_of(repository) if f"{host.key.chain}/0000000002" in name)
    )
    problems = checked(repository).problems
    assert kinds(problems) == ["truncated"]
    assert (problems[0].chain, problems[0].number) == (host.key.chain, 2)


def test_the_end_cut_off_below_an_anchor(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    host.anchors(repository)
    repository.store.delete(names_of(repository)[1])
    assert kinds(checked(repository).problems) == ["truncated"]


def test_the_end_cut_off_and_nobody_saw_it(repository: Repository, host: Host) -> None:
    """The limit: nothing shows it but a head outside."""
    host.writes(repository, "list", "restore")
    seen = read_trail(repository).heads
    repository.store.delete(names_of(repository)[1])
    assert checked(repository).is_intact
    outside = [KnownHead(head=head, where="a report") for head in seen]
    assert kinds(checked(repository, anchors=outside).problems) == ["truncated"]


def test_a_whole_chain_removed(repository: Repository, host: Host, other: Host) -> None:
    host.writes(repository, "list")
    other.writes(repository, "list")
    repository.store.delete(next(name for name in names_of(repository) if host.key.chain in name))
    assert kinds(checked(repository).problems) == ["truncated"]


def test_an_old_state_of_the_whole_folder(
    repository: Repository, host: Host, other: Host, tmp_path: Path
) -> None:
    """Replayed: within the repository all fits. Another repository of the same hosts knows better."""
    second = init_repository(MemoryStore())
    host.writes(repository, "list")
    other.writes(repository, "list")
    before = state(repository)
    host.writes(repository, "restore")
    host.writes(second, "backup")
    restate(repository, before)
    assert checked(repository).is_intact
    outside = list(foreign_heads(read_trail(second), repository.id))
    problems = checked(repository, anchors=outside).problems
    assert kinds(problems) == ["truncated"]
    assert "another repository" in problems[0].message


def test_rewritten_below_an_anchor(repository: Repository, host: Host, other: Host) -> None:
    """With the host's key and the repository's: a new history that fits, and one head that does not."""
    host.writes(repository, "list", "restore")
    seen = [KnownHead(head=head, where="a report") for head in read_trail(repository).heads]
    for name in names_of(repository):
        repository.store.delete(name)
    previous = ""
    for number in (1, 2, 3):
        entry = replace(
            draft("list"), chain=host.key.chain, number=number, previous=previous, repository=repository.id
        )
        raw = forged(entry, host.key)
        previous = entry_name(entry, raw).rpartition("-")[2]
        repository.save_note(entry_name(entry, raw), raw)
    assert checked(repository).is_intact
    assert kinds(checked(repository, anchors=seen).problems) == ["forked"]


def test_a_clock_that_ran_back(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    host.now -= timedelta(hours=3)
    host.writes(repository, "list")
    verdict = checked(repository)
    assert verdict.is_intact
    assert "set back" in verdict.notes[0]


def test_an_entry_over_the_end_of_a_month(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    host.now += timedelta(days=40)
    host.writes(repository, "list")
    host.now += timedelta(days=400)
    host.writes(repository, "list")
    verdict = checked(repository)
    assert verdict.is_intact
    assert verdict.heads[0].number == 3


def test_part_of_a_chain(repository: Repository, host: Host) -> None:
    """As a report of a period holds it: it begins anywhere, and has no holes."""
    host.writes(repository, "list", "restore", "show", "list")
    entries = read_trail(repository).entries
    assert verify_chain(entries[1:], is_whole=False) == []
    assert kinds(verify_chain([entries[1], entries[3]], is_whole=False)) == ["missing"]


# -- administrators


def statement(
    repository: Repository, key: AdministratorKey, host: Host, *, is_revoked: bool = False, **other: object
) -> None:
    head = next((each for each in read_trail(repository).heads if each.chain == host.key.chain), None)
    enrolment = Enrolment(
        chain=host.key.chain,
        host="db1",
        host_key=host.key.public_key,
        at=MOMENT,
        repository=repository.id,
        is_revoked=is_revoked,
        head=head,
    )
    raw = key.signed(ENROLMENT, enrolment_bytes(replace(enrolment, **other))).encode()  # type: ignore[arg-type]  # tests choose
    repository.save_note(enrolment_name(enrolment.chain, raw), raw)


def test_unenrolled_chains_are_told(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    key = AdministratorKey.generate()
    assert checked(repository).unenrolled == (host.key.chain,)
    assert checked(repository, administrators=[key.fingerprint]).unenrolled == (host.key.chain,)
    statement(repository, key, host)
    verdict = checked(repository, administrators=[key.fingerprint])
    assert verdict.is_intact
    assert verdict.unenrolled == ()


def test_enrolled_by_somebody_else(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    key, wrong = AdministratorKey.generate(), AdministratorKey.generate()
    statement(repository, wrong, host)
    verdict = checked(repository, administrators=[key.fingerprint])
    assert kinds(verdict.problems) == ["unenrolled"]
    assert verdict.unenrolled == (host.key.chain,)
    several = checked(repository, administrators=[key.fingerprint, wrong.fingerprint])
    assert several.is_intact


def test_an_enrolment_of_another_key(repository: Repository, host: Host) -> None:
    """The name of one chain, the key of another."""
    host.writes(repository, "list")
    key = AdministratorKey.generate()
    statement(repository, key, host, host_key=HostKey.generate().public_key)
    verdict = checked(repository, administrators=[key.fingerprint])
    assert kinds(verdict.problems) == ["reordered"]
    assert verdict.unenrolled == (host.key.chain,)


def test_an_entrys_signature_is_no_enrolment(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    key = AdministratorKey.generate()
    signed = key.signed("entry", b"{}")
    repository.save_note(enrolment_name(host.key.chain, signed.encode()), signed.encode())
    assert kinds(checked(repository, administrators=[key.fingerprint]).problems) == ["unsigned"]


def test_a_revoked_key(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    key = AdministratorKey.generate()
    statement(repository, key, host)
    statement(repository, key, host, is_revoked=True)
    assert checked(repository, administrators=[key.fingerprint]).is_intact
    host.writes(repository, "list")
    problems = checked(repository, administrators=[key.fingerprint]).problems
    assert [(each.kind, each.number) for each in problems] == [("unenrolled", 3)]


def test_the_end_cut_off_below_an_enrolment(repository: Repository, host: Host) -> None:
    host.writes(repository, "list", "restore")
    statement(repository, AdministratorKey.generate(), host)
    repository.store.delete(names_of(repository)[1])
    assert kinds(checked(repository).problems) == ["truncated"]


def test_administrators_key_needs_its_passphrase() -> None:
    key = AdministratorKey.generate()
    pem = key.pem(Secret("right"))
    assert AdministratorKey.from_pem(pem, Secret("right")).fingerprint == key.fingerprint
    assert key.fingerprint == fingerprint(key.public_key)
    with pytest.raises(UsageError, match="passphrase is wrong"):
        AdministratorKey.from_pem(pem, Secret("wrong"))
    with pytest.raises(UsageError, match="is not encrypted"):
        AdministratorKey.from_pem(HostKey.generate().pem(), Secret("right"))


# -- by whoever has the repository's password, or writes to its store


def test_a_signed_document_has_one_form(repository: Repository, host: Host) -> None:
    """Else anybody with the password makes a second entry of one signature, and the host's chain seems forked."""
    host.writes(repository, "list", "restore")
    newest = read_trail(repository).entries[1]
    twin = newest.raw.replace(b'","signature"', b'", "signature"')
    assert twin != newest.raw
    repository.save_note(entry_name(newest.entry, twin), twin)
    assert kinds(checked(repository).problems) == ["unreadable"]
    with pytest.raises(ValueError, match="as a signed document"):
        Signed.decode(twin)


def test_an_entry_with_an_enormous_number(repository: Repository, host: Host) -> None:
    """Of a chain that somebody began: told as one hole, in no time and memory to speak of."""
    host.writes(repository, "list")
    key = HostKey.generate()
    for number in (3, 9_999_999_999):
        entry = replace(draft(), chain=key.chain, number=number, previous="0" * 64, repository=repository.id)
        raw = forged(entry, key)
        repository.save_note(entry_name(entry, raw), raw)
    problems = [each for each in checked(repository).problems if each.kind == "missing"]
    assert [(each.number, each.message) for each in problems] == [
        (1, "the entries 1 to 2 are missing"),
        (4, "the entries 4 to 9999999998 are missing"),
    ]


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"at":"0001-01-01T00:00:00+23:59"}', b'{"format":1,"at":' + b"9" * 5000 + b"}"],
)
def test_documents_that_are_made_to_break_the_reader(repository: Repository, content: bytes) -> None:
    key = HostKey.generate()
    entry = replace(draft(), chain=key.chain, repository=repository.id)
    if content.startswith(b'{"at"'):
        content = entry_bytes(entry).replace(b"2026-11-21T14:00:00.000000Z", b"0001-01-01T00:00:00+23:59")
    raw = key.signed("entry", content).encode()
    repository.save_note(entry_name(entry, raw), raw)
    assert kinds(checked(repository).problems) == ["unreadable"]
    repository.save_note(entry_name(entry, b"[" * 100_000), b"[" * 100_000)
    assert kinds(checked(repository).problems) == ["unreadable"]


def test_an_enormous_object_is_not_read(repository: Repository, host: Host) -> None:
    host.writes(repository, "list")
    name = names_of(repository)[0].replace("0000000001", "0000000002")
    repository.store.put(name, bytes((16 << 20) + 1))
    problems = checked(repository).problems
    assert kinds(problems) == ["unreadable"]
    assert "larger than anything" in problems[0].message


def test_a_revocation_that_was_taken_away(repository: Repository, host: Host, tmp_path: Path) -> None:
    """The entry of the access that made it names it."""
    host.writes(repository, "list")
    key = AdministratorKey.generate()
    one = Access("audit revoke", who=Who(host="desk", user="otto"), journal=Host(tmp_path / "desk").journal)
    with recording(one):
        enroll(repository, host.journal, key, None)
        opened(repository, {})
        enroll(repository, host.journal, key, host.key.chain, is_revoked=True, reason="stolen")
    one.finish("done")
    one.settle()
    assert checked(repository, administrators=[key.fingerprint]).is_intact
    (revoked,) = [each for each in read_trail(repository).enrolments if each.enrolment.is_revoked]
    repository.store.delete(enrolment_name(host.key.chain, revoked.raw))
    problems = checked(repository, administrators=[key.fingerprint]).problems
    assert [(each.kind, each.chain) for each in problems] == [("missing", host.key.chain)]
    assert "audit revoke" in problems[0].message


def test_heads_of_several_repositories_in_one_report(
    repository: Repository, host: Host, tmp_path: Path
) -> None:
    """One host has one key, so that its chains have one name everywhere."""
    second = init_repository(MemoryStore())
    host.writes(repository, "list", "list")
    host.writes(second, "list")
    rows = [
        {"repository": "a name", "repository_id": each.id, **head}
        for each in (repository, second)
        for head in heads_document(read_trail(each).heads)
    ]
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"heads": rows}))
    journal = Host(tmp_path / "auditor").journal
    for each in (repository, second):
        verdict = verify_trail(each, journal, {}, anchors=read_heads(report)).verdict
        assert verdict.is_intact
        assert verdict.anchors == 1
    third = init_repository(MemoryStore())
    with pytest.raises(UsageError, match="no heads of this repository"):
        verify_trail(third, journal, {}, anchors=read_heads(report))


def test_a_file_that_was_cut_and_signed_anew(repository: Repository, host: Host, tmp_path: Path) -> None:
    """With a key of his own anybody can do that; with an administrator named it is seen."""
    host.writes(repository, "list", "restore")
    key = AdministratorKey.generate()
    statement(repository, key, host)
    path = tmp_path / "trail.jsonl"
    export_trail(repository, host.journal, path, now=host.now)
    assert verify_file(path, administrators=[key.fingerprint]).verdict.unenrolled == ()
    first, *lines = path.read_text().splitlines()
    (entries,) = [
        lines[:number]
        for number in range(len(lines))
        if "0000000002" in lines[number].partition("document")[0]
    ]
    forger = HostKey.generate()
    anchor = Anchor(chain=forger.chain, repository=repository.id, at=MOMENT, heads=())
    signed = forger.signed("anchor", anchor_bytes(anchor)).encode().decode()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join([json.dumps(json.loads(first) | {"anchor": signed}), *entries]) + "\n")
    verdict = verify_file(cut, administrators=[key.fingerprint]).verdict
    assert verdict.unenrolled == (forger.chain,)
    assert "no chain in it" in verdict.notes[-1]
