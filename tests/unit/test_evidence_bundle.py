"""A bundle is sound as it was made; whatever is changed in it is found, also by who fixes the hashes or signs it again."""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgstow.audit.keys import AdministratorKey, HostKey, canonical
from pgstow.audit.trail import digest_of
from pgstow.core.errors import PgstowError, UsageError
from pgstow.core.secrets import Secret
from pgstow.evidence import packing
from pgstow.evidence.attestations import attestation_facts
from pgstow.evidence.bundle import (
    ATTESTATIONS,
    AUDIT,
    FACTS,
    KEYS,
    MANIFEST,
    PAGE,
    REPORT,
    SIGNATURE,
    canonical_facts,
    drill_name,
    keys_bytes,
    signed_files,
)
from pgstow.evidence.controls import RULES
from pgstow.evidence.facts import AuditProblemFacts, EvidenceFacts
from pgstow.evidence.packing import Packed, read_bundle, write_bundle
from pgstow.evidence.page import report_page
from pgstow.evidence.public_key import administrator_of
from pgstow.evidence.report import judge, report_document
from pgstow.evidence.trail import entry_facts
from pgstow.evidence.verifying import Verification, verify_bundle
from support.evidence import (
    BEGIN,
    DAY,
    OTHER_ID,
    Evidence,
    enrolment,
    good_evidence,
    signed_chain,
    stated_entry,
    waiver,
)

GOOD = good_evidence()
FILES = GOOD.files()
GOLDEN = Path(__file__).parent / "golden_evidence"

Files = dict[str, bytes]


def verified(
    files: Files, *, administrator: str | None = None, strange: tuple[str, ...] = ()
) -> Verification:
    return verify_bundle(
        Packed(files=files, strange=strange), administrator or GOOD.administrator.fingerprint
    )


def kinds(files: Files, **given: Any) -> set[str]:
    return {problem.kind for problem in verified(files, **given).problems}


def resigned(files: Files, key: HostKey | None = None, facts: EvidenceFacts | None = None) -> Files:
    """Return the files with a manifest made anew and signed: what who holds a key can do."""
    own = {name: content for name, content in files.items() if name not in (MANIFEST, SIGNATURE)}
    return signed_files(own, facts or GOOD.facts, key or GOOD.host)


def with_fixed_hashes(files: Files) -> Files:
    """Return the files with a manifest made anew and the old signature: what who holds no key can do."""
    return resigned(files) | {SIGNATURE: FILES[SIGNATURE]}


def with_facts(facts: EvidenceFacts) -> Files:
    """Return the files with other facts, and a report and page that follow from them."""
    report = judge(facts)
    return FILES | {
        FACTS: canonical_facts(facts),
        REPORT: canonical(report_document(report)) + b"\n",
        PAGE: report_page(report),
    }


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Files:
    return FILES | {AUDIT: b"".join(each + b"\n" for each in change(FILES[AUDIT].splitlines()))}


def test_a_bundle_is_sound() -> None:
    verification = verified(FILES)
    assert verification.problems == ()
    assert verification.signer == GOOD.host.chain
    assert verification.enrolment is not None and verification.enrolment.host == "db1"
    assert verification.other_rules is None


# -- by who holds no key


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_in_any_file_is_found(name: str) -> None:
    content = bytearray(FILES[name])
    content[len(content) // 2] ^= 0x01
    assert kinds(FILES | {name: bytes(content)})


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_found(name: str) -> None:
    files = {key: content for key, content in FILES.items() if key != name}
    assert kinds(files) & {"missing", "unsigned"}
    if name not in (MANIFEST, SIGNATURE):
        assert kinds(with_fixed_hashes(files)) >= {"missing", "signature"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_change_of_any_byte_goes_unseen(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    at = data.draw(st.integers(0, len(FILES[name]) - 1))
    content = bytearray(FILES[name])
    content[at] ^= data.draw(st.integers(1, 255))
    assert kinds(FILES | {name: bytes(content)})


def test_the_signature_is_the_one_file_that_nothing_covers_and_is_exact_all_the_same() -> None:
    for changed in (FILES[SIGNATURE][:-1] + b"\t", FILES[SIGNATURE].upper(), b" " + FILES[SIGNATURE]):
        assert kinds(FILES | {SIGNATURE: changed}) == {"unreadable"}


def test_one_number_in_the_facts_with_the_hashes_fixed_is_found() -> None:
    facts = GOOD.facts.model_copy(update={"contacts": 7})
    assert kinds(with_fixed_hashes(with_facts(facts))) == {"signature"}


def test_an_added_file_is_found() -> None:
    extra = FILES | {drill_name("a-new-one"): b"{}"}
    assert kinds(extra) == {"extra", "facts"}
    assert "signature" in kinds(with_fixed_hashes(extra))
    assert kinds(FILES, strange=("../../etc/cron.d/x",)) == {"extra"}


def test_an_unsigned_bundle_is_none() -> None:
    assert kinds(GOOD.files(key=None)) == {"unsigned"}


# -- with another key


def test_a_bundle_signed_with_another_key_is_found() -> None:
    assert kinds(resigned(FILES, HostKey.generate())) == {"unenrolled"}


def test_another_administrators_fingerprint_finds_everything_unenrolled() -> None:
    assert kinds(FILES, administrator=AdministratorKey.generate().fingerprint) == {"unenrolled"}


def test_an_enrolment_by_somebody_else_does_not_count() -> None:
    """The whole bundle made anew by who has keys of his own: only the fingerprint from elsewhere tells."""
    stranger, host = AdministratorKey.generate(), HostKey.generate()
    forged = resigned(FILES | {KEYS: keys_bytes([enrolment(stranger, host), *GOOD.enrolments])}, host)
    assert kinds(forged) == {"unenrolled"}


def test_a_swapped_enrolment_is_found() -> None:
    """The administrator's word about another key, put in the place of that about the signer's."""
    other = HostKey.generate()
    word = json.loads(enrolment(GOOD.administrator, other))
    swapped = FILES | {KEYS: keys_bytes([canonical(word)])}
    assert kinds(resigned(swapped)) == {"unenrolled"}
    edited = word | {"content": word["content"].replace(other.chain, GOOD.host.chain)}
    assert kinds(resigned(FILES | {KEYS: keys_bytes([canonical(edited)])})) == {"signature", "unenrolled"}
    mixed = enrolment(GOOD.administrator, other, chain=GOOD.host.chain)
    assert kinds(resigned(FILES | {KEYS: keys_bytes([mixed])})) == {"signature", "unenrolled"}


def test_a_forged_word_of_the_administrator_does_not_count() -> None:
    """The attack that matters: a stranger's key, the administrator's name under it, and a signature that he never made."""
    host = HostKey.generate()
    forged = json.loads(enrolment(AdministratorKey.generate(), host))
    forged["key"] = json.loads(GOOD.enrolments[0])["key"]
    files = FILES | {KEYS: keys_bytes([*GOOD.enrolments, canonical(forged)])}
    assert kinds(resigned(files, host)) == {"signature", "unenrolled"}


def test_a_revoked_key_signs_nothing() -> None:
    revoked = enrolment(GOOD.administrator, GOOD.host, is_revoked=True, reason="the machine was sold")
    assert "unenrolled" in kinds(resigned(FILES | {KEYS: keys_bytes([*GOOD.enrolments, revoked])}))


def test_the_signature_of_something_else_does_not_serve() -> None:
    """The host signs audit entries as well: none of these signatures is one of a bundle."""
    entry = json.loads(FILES[AUDIT].splitlines()[0])
    taken = canonical({"key": entry["key"], "signature": entry["signature"]}) + b"\n"
    assert kinds(FILES | {SIGNATURE: taken}) == {"signature"}


def test_the_manifest_names_the_key_that_signs_it() -> None:
    manifest = json.loads(FILES[MANIFEST]) | {"signer": HostKey.generate().chain}
    content = canonical(manifest) + b"\n"
    signed = GOOD.host.signed("evidence bundle", content)
    files = FILES | {
        MANIFEST: content,
        SIGNATURE: canonical({"key": signed.public_key.hex(), "signature": signed.signature.hex()}) + b"\n",
    }
    assert kinds(files) == {"signature"}


# -- by the host itself: the report must follow from its facts, and these from drills and audit entries


def flipped(files: Files, code: str, result: str) -> bytes:
    document = json.loads(files[REPORT])
    for control in document["controls"]:
        if control["code"] == code:
            control["result"] = result
    return canonical(document) + b"\n"


def test_a_result_that_does_not_follow_is_found() -> None:
    facts = GOOD.facts.model_copy(update={"locks": ()})
    files = with_facts(facts)
    verification = verified(resigned(files | {REPORT: flipped(files, "C8", "pass")}, facts=facts))
    assert [(each.kind, each.subject) for each in verification.problems] == [("judgement", "C8")]
    assert "it says pass, and unknown follows" in verification.problems[0].message


def test_a_finding_or_a_head_that_does_not_follow_is_found() -> None:
    document = json.loads(FILES[REPORT])
    document["controls"][0]["findings"][0]["text"] = "all is well"
    assert kinds(resigned(FILES | {REPORT: canonical(document) + b"\n"})) == {"judgement"}
    document = json.loads(FILES[REPORT])
    document["heads"] = []
    assert kinds(resigned(FILES | {REPORT: canonical(document) + b"\n"})) == {"judgement"}
    assert kinds(resigned(FILES | {REPORT: b"[]"})) == {"unreadable"}


def test_a_page_that_shows_something_else_is_found() -> None:
    page = FILES[PAGE].replace(b">unknown<", b">pass<", 1)
    assert kinds(resigned(FILES | {PAGE: page})) == {"judgement"}


def test_facts_without_the_report_that_follows_are_found() -> None:
    facts = GOOD.facts.model_copy(update={"contacts": 0})
    assert kinds(resigned(FILES | {FACTS: canonical_facts(facts)}, facts=facts)) == {"judgement"}


def drill_facts_changed(**changed: Any) -> Files:
    drills = (GOOD.facts.drills[0].model_copy(update=changed), *GOOD.facts.drills[1:])
    return with_facts(GOOD.facts.model_copy(update={"drills": drills}))


@pytest.mark.parametrize(
    "changed",
    [
        {"proven_s": 10.0},
        {"outcome": "failed"},
        {"is_removed": False},
        {"has_data_checks": False},
        {"sha256": "0" * 64},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_facts_of_a_drill_that_its_record_does_not_tell_are_found(changed: dict[str, Any]) -> None:
    assert kinds(resigned(drill_facts_changed(**changed))) == {"facts"}


def test_a_removed_drill_is_found() -> None:
    name = drill_name(GOOD.facts.drills[0].id)
    files = {key: content for key, content in FILES.items() if key != name}
    assert kinds(resigned(files)) == {"missing"}
    untold = with_facts(GOOD.facts.model_copy(update={"drills": GOOD.facts.drills[1:]}))
    assert kinds(resigned(untold)) == {"facts"}


def test_a_drill_that_is_told_twice_is_found() -> None:
    twice = with_facts(GOOD.facts.model_copy(update={"drills": (*GOOD.facts.drills, GOOD.facts.drills[0])}))
    assert kinds(resigned(twice)) == {"facts"}


def test_an_edited_record_of_a_drill_is_found() -> None:
    name = drill_name(GOOD.facts.drills[0].id)
    record = json.loads(FILES[name]) | {"outcome": "failed"}
    assert kinds(resigned(FILES | {name: json.dumps(record).encode()})) == {"facts"}
    assert kinds(resigned(FILES | {name: b"nothing"})) == {"unreadable"}


def _edited(all_lines: list[bytes]) -> list[bytes]:
    fields = json.loads(all_lines[5])
    fields["content"] = fields["content"].replace('"user":"ops"', '"user":"eve"')
    return [*all_lines[:5], canonical(fields), *all_lines[6:]]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda all_lines: all_lines[1:], id="first"),
        pytest.param(lambda all_lines: [*all_lines[:6], *all_lines[7:]], id="middle"),
        pytest.param(lambda all_lines: all_lines[:-1], id="last"),
        pytest.param(lambda all_lines: all_lines[:-3], id="the end"),
        pytest.param(lambda _all_lines: [], id="all"),
        pytest.param(
            lambda all_lines: [*all_lines[:3], all_lines[4], all_lines[3], *all_lines[5:]], id="swapped"
        ),
        pytest.param(lambda all_lines: [*all_lines, all_lines[-1]], id="repeated"),
        pytest.param(lambda all_lines: [*all_lines, b"{}"], id="no entry"),
        pytest.param(_edited, id="edited"),
    ],
)
def test_audit_entries_that_are_not_as_they_were_signed_are_found(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    assert kinds(resigned(lines(change))) & {"audit", "facts"}


# -- attestations


def attestations(change: Callable[[list[bytes]], list[bytes]]) -> Files:
    return FILES | {ATTESTATIONS: b"".join(each + b"\n" for each in change(FILES[ATTESTATIONS].splitlines()))}


def _restated(all_lines: list[bytes]) -> list[bytes]:
    fields = json.loads(all_lines[-1])
    fields["content"] = fields["content"].replace('"by":"Ada"', '"by":"Eve"')
    return [*all_lines[:-1], canonical(fields)]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(lambda all_lines: all_lines[1:], "facts", id="one is missing"),
        pytest.param(lambda _all_lines: [], "facts", id="all are"),
        pytest.param(_restated, "audit", id="somebody else's name"),
        pytest.param(lambda all_lines: [*all_lines, b"{}"], "audit", id="no entry"),
        pytest.param(
            lambda all_lines: [*all_lines, FILES[AUDIT].splitlines()[2]], "facts", id="another entry"
        ),
    ],
)
def test_attestations_that_are_not_as_they_were_signed_are_found(
    change: Callable[[list[bytes]], list[bytes]], kind: str
) -> None:
    assert kind in kinds(resigned(attestations(change)))


@pytest.mark.parametrize(
    "changed",
    [
        {"on": GOOD.facts.made.date()},
        {"by": "Eve"},
        {"statement": "all is well"},
        {"repository": "near"},
        {"file": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_attestation_that_nobody_signed_so_is_found(changed: dict[str, Any]) -> None:
    told = (*GOOD.facts.attestations[:-1], GOOD.facts.attestations[-1].model_copy(update=changed))
    assert kinds(resigned(with_facts(GOOD.facts.model_copy(update={"attestations": told})))) == {"facts"}


def test_an_attestation_with_a_key_that_was_revoked_before_is_found() -> None:
    """The bundle comes from a host that is trusted; the statement from one that is not any more."""
    stolen, at = HostKey.generate(), BEGIN - 30 * DAY
    (entry,) = signed_chain(stolen, [], repository=OTHER_ID, stated=[stated_entry("C14")])
    forged = attestation_facts(entry.entry, entry.digest, repository="far")
    assert forged is not None
    facts = GOOD.facts.model_copy(update={"attestations": (*GOOD.facts.attestations, forged)})
    files = with_facts(facts) | {
        ATTESTATIONS: FILES[ATTESTATIONS] + entry.raw + b"\n",
        KEYS: keys_bytes(
            [
                *GOOD.enrolments,
                enrolment(GOOD.administrator, stolen),
                enrolment(GOOD.administrator, stolen, is_revoked=True, reason="lost", at=at),
            ]
        ),
    }
    assert "unenrolled" in kinds(resigned(files, facts=facts))


def test_an_attestation_with_a_key_of_nobody_is_found() -> None:
    (entry,) = signed_chain(HostKey.generate(), [], repository=OTHER_ID, stated=[stated_entry("C14")])
    forged = attestation_facts(entry.entry, entry.digest, repository="far")
    assert forged is not None
    facts = GOOD.facts.model_copy(update={"attestations": (*GOOD.facts.attestations, forged)})
    files = with_facts(facts) | {ATTESTATIONS: FILES[ATTESTATIONS] + entry.raw + b"\n"}
    assert kinds(resigned(files, facts=facts)) == {"unenrolled"}


def test_a_bundle_of_a_version_that_knew_of_no_attestations_is_sound() -> None:
    facts = GOOD.facts.model_copy(update={"attestations": ()})
    old = {name: content for name, content in with_facts(facts).items() if name != ATTESTATIONS}
    assert kinds(resigned(old, facts=facts)) == set()


def messages(files: Files) -> str:
    return "\n".join(problem.message for problem in verified(files).problems)


def test_each_audit_entry_has_the_signature_of_its_own_chain() -> None:
    """Told for what it is, and not only by what no longer fits to it."""
    assert "the signature of entry" in messages(resigned(lines(_edited)))
    stranger = HostKey.generate()
    content = json.loads(FILES[AUDIT].splitlines()[5])["content"].encode()
    passed_off = stranger.signed("entry", content).encode()
    assert "signed with the key of another chain" in messages(
        resigned(lines(lambda all_lines: [*all_lines[:5], passed_off, *all_lines[6:]]))
    )


def test_entries_that_the_facts_do_not_tell_are_found() -> None:
    fewer = with_facts(GOOD.facts.model_copy(update={"audit_entries": GOOD.facts.audit_entries[1:]}))
    assert kinds(resigned(fewer)) == {"facts"}
    entry = GOOD.facts.audit_entries[0].model_copy(update={"user": "somebody"})
    other = with_facts(
        GOOD.facts.model_copy(update={"audit_entries": (entry, *GOOD.facts.audit_entries[1:])})
    )
    assert kinds(resigned(other)) == {"facts"}


def test_a_shifted_period_is_found() -> None:
    """All of it made anew by the host for another month: its entries do not reach over that one's ends."""
    for days in (-10, 10):
        shift = timedelta(days=days)
        period = GOOD.facts.period
        facts = GOOD.facts.model_copy(
            update={
                "period": period.model_copy(update={"begin": period.begin + shift, "end": period.end + shift})
            }
        )
        assert kinds(resigned(with_facts(facts), facts=facts)) & {"audit", "facts"}
    renamed = GOOD.facts.model_copy(
        update={"period": GOOD.facts.period.model_copy(update={"name": "2026-Q1"})}
    )
    assert "facts" in kinds(resigned(with_facts(renamed)))  # the manifest says another


def test_a_head_that_is_not_that_of_the_chain_is_found() -> None:
    for number in (17, 40):
        head = GOOD.facts.audit[0].heads[0].model_copy(update={"number": number, "digest": "ee" * 32})
        audit = (GOOD.facts.audit[0].model_copy(update={"heads": (head,)}), *GOOD.facts.audit[1:])
        facts = GOOD.facts.model_copy(update={"audit": audit})
        found = kinds(resigned(with_facts(facts)))
        assert found == (
            {"audit"} if number == 17 else set()
        )  # what is beyond the period is not in the bundle


def test_a_key_that_the_facts_call_enrolled_has_to_be() -> None:
    """A second host's chain, whose key no administrator knows, passed off as enrolled."""
    stranger = HostKey.generate()
    chain = signed_chain(stranger, [BEGIN + DAY, BEGIN + 2 * DAY])
    told = tuple(
        GOOD.facts.audit_entries[0].model_copy(
            update={
                "chain": stranger.chain,
                "number": each.entry.number,
                "at": each.entry.at,
                "subjects": each.entry.subjects,
            }
        )
        for each in chain
    )
    head = (
        GOOD.facts.audit[0]
        .heads[0]
        .model_copy(update={"chain": stranger.chain, "number": 2, "digest": chain[-1].digest})
    )
    audit = GOOD.facts.audit[0].model_copy(update={"heads": (*GOOD.facts.audit[0].heads, head)})
    facts = GOOD.facts.model_copy(
        update={
            "audit": (audit, *GOOD.facts.audit[1:]),
            "audit_entries": (*GOOD.facts.audit_entries, *told),
        }
    )
    files = with_facts(facts) | {AUDIT: FILES[AUDIT] + b"".join(each.raw + b"\n" for each in chain)}
    assert kinds(resigned(files)) == {"unenrolled"}
    honest = audit.model_copy(update={"unenrolled": (stranger.chain,)})
    facts = facts.model_copy(update={"audit": (honest, *GOOD.facts.audit[1:])})
    files = with_facts(facts) | {AUDIT: files[AUDIT]}
    assert kinds(resigned(files)) == set()


def test_what_the_report_itself_says_of_a_broken_trail_is_no_problem_of_the_bundle() -> None:
    """An entry is missing in the repository, and C13 fails for that: the bundle tells the truth."""
    remaining = [line for number, line in enumerate(FILES[AUDIT].splitlines()) if number != 6]
    entry = json.loads(json.loads(FILES[AUDIT].splitlines()[6])["content"])
    problem = {
        "kind": "missing",
        "chain": entry["chain"],
        "number": entry["number"],
        "message": "it is missing",
    }
    broken = json.loads(FILES[FACTS])
    broken["audit"][0]["problems"] = [problem]
    broken["audit_entries"] = [each for each in broken["audit_entries"] if each["number"] != entry["number"]]
    facts = EvidenceFacts.model_validate_json(json.dumps(broken))
    files = with_facts(facts) | {AUDIT: b"".join(each + b"\n" for each in remaining)}
    assert kinds(resigned(files)) == set()


def test_facts_of_another_time_than_their_period_says_are_found() -> None:
    period = GOOD.facts.period
    for changed in (
        {"period": period.model_copy(update={"begin": period.begin + 10 * DAY})},
        {"period": period.model_copy(update={"name": "always"})},
        {"made": period.begin - DAY},
    ):
        facts = GOOD.facts.model_copy(update=changed)
        files = resigned(with_facts(facts), facts=facts)
        assert "facts" in kinds(files), changed
        assert "of another time" in messages(files) or "is not a period" in messages(files), changed


def test_a_key_twice_in_a_document_is_found() -> None:
    """Readers take the one or the other: what is judged is not what somebody else sees."""
    facts = FILES[FACTS].replace(b'{"attestations":', b'{"contacts":99,"attestations":', 1)
    assert facts != FILES[FACTS]
    assert kinds(resigned(FILES | {FACTS: facts})) == {"unreadable"}
    record = drill_name(GOOD.facts.drills[0].id)
    twice = FILES[record].replace(b'"outcome": "passed"', b'"outcome": "failed",\n "outcome": "passed"', 1)
    assert twice != FILES[record]
    assert "unreadable" in kinds(resigned(FILES | {record: twice}))


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b"1e300"])
def test_a_target_that_is_no_number_is_found(value: bytes) -> None:
    """Nothing is longer than NaN: every gap would be within it."""
    facts = FILES[FACTS].replace(b'"rpo_s":90000.0', b'"rpo_s":' + value, 1)
    assert facts != FILES[FACTS]
    assert "unreadable" in kinds(resigned(FILES | {FACTS: facts}))


def test_facts_beyond_all_times_are_a_problem_and_no_crash() -> None:
    due = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    plan = GOOD.facts.plans[0].model_copy(update={"dues": (due,)})
    facts = GOOD.facts.model_copy(update={"plans": (plan,), "made": due})
    assert "unreadable" in kinds(resigned(FILES | {FACTS: canonical_facts(facts)}))


def test_an_audit_trail_that_the_facts_do_not_name_is_found() -> None:
    for changed in ({"id": None}, {"heads": ()}):
        audit = tuple(each.model_copy(update=changed) for each in GOOD.facts.audit)
        facts = GOOD.facts.model_copy(update={"audit": audit, "audit_entries": (), "attestations": ()})
        files = with_facts(facts) | {AUDIT: b"", ATTESTATIONS: b""}
        assert kinds(resigned(files)) == {"audit"}, changed


def test_entries_of_a_revoked_key_are_told_by_the_facts_or_found() -> None:
    """The key of a second host was revoked; what it wrote later counts only if the facts say what it is."""
    stolen, at = HostKey.generate(), BEGIN + 2 * DAY
    chain = signed_chain(stolen, [BEGIN + DAY, BEGIN + 3 * DAY])
    revoked = enrolment(GOOD.administrator, stolen, is_revoked=True, at=at)
    first = GOOD.facts.audit[0]
    head = first.heads[0].model_copy(update={"chain": stolen.chain, "number": 2, "digest": chain[-1].digest})
    audit = first.model_copy(update={"heads": (*first.heads, head), "unenrolled": (stolen.chain,)})
    told = tuple(entry_facts(each.entry, repository="near") for each in chain)
    facts = GOOD.facts.model_copy(
        update={
            "audit": (audit, *GOOD.facts.audit[1:]),
            "audit_entries": (*GOOD.facts.audit_entries, *told),
        }
    )
    added = {
        AUDIT: FILES[AUDIT] + b"".join(each.raw + b"\n" for each in chain),
        KEYS: keys_bytes([*GOOD.enrolments, revoked]),
    }
    assert "entry 2 was written with a revoked key" in messages(resigned(with_facts(facts) | added))
    problem = AuditProblemFacts(kind="unenrolled", chain=stolen.chain, number=2, message="revoked")
    honest = audit.model_copy(update={"problems": (problem,)})
    facts = facts.model_copy(update={"audit": (honest, *GOOD.facts.audit[1:])})
    assert kinds(resigned(with_facts(facts) | added)) == set()


def test_copies_of_one_repository_are_no_problem() -> None:
    """A bucket that is replicated has the same id; the copy may be behind."""
    near = GOOD.facts.audit[0]
    lines_of_near = [json.loads(each)["content"] for each in FILES[AUDIT].splitlines()]
    entries = [json.loads(each) for each in lines_of_near]
    number = max(each["number"] for each in entries if each["repository"] == near.id) - 2
    (line,) = [
        each
        for each, entry in zip(FILES[AUDIT].splitlines(), entries, strict=True)
        if entry["repository"] == near.id and entry["number"] == number
    ]
    head = near.heads[0].model_copy(update={"number": number, "digest": digest_of(line)})
    copies = (
        near.model_copy(update={"repository": "twin"}),
        near.model_copy(update={"repository": "behind", "heads": (head,)}),
    )
    told = [
        each.model_copy(update={"repository": copy.repository})
        for copy in copies
        for each in GOOD.facts.audit_entries
        if each.repository == "near" and each.number <= copy.heads[0].number
    ]
    facts = GOOD.facts.model_copy(
        update={
            "audit": (*GOOD.facts.audit, *copies),
            "audit_entries": (*GOOD.facts.audit_entries, *told),
        }
    )
    assert kinds(resigned(with_facts(facts))) == set()


# -- versions


def test_rules_of_another_version_are_told_and_all_else_is_checked() -> None:
    facts = GOOD.facts.model_copy(update={"rules": RULES + 1})
    files = FILES | {FACTS: canonical_facts(facts)}
    verification = verified(resigned(files))
    assert (verification.problems, verification.other_rules) == ((), RULES + 1)
    name = drill_name(facts.drills[0].id)
    del files[name]
    assert kinds(resigned(files)) == {"missing"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'{"format": 1}',
        b"\xff\xfe",
        b'{"format":99}',
        b"NaN",
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"format":' + b"9" * 5000 + b"}",
    ],
    ids=lambda value: repr(value[:20]),
)
@pytest.mark.parametrize("name", [FACTS, REPORT, KEYS, MANIFEST, SIGNATURE, AUDIT])
def test_whatever_stands_in_a_file_is_a_problem_and_never_a_crash(name: str, content: bytes) -> None:
    files = FILES | {name: content}
    assert kinds(files)
    if name not in (MANIFEST, SIGNATURE):
        assert kinds(resigned(files))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([FACTS, REPORT, KEYS, MANIFEST, SIGNATURE, AUDIT]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(
                st.sampled_from(["content", "key", "signature", "files", "controls", "enrolments", "format"]),
                each,
                max_size=4,
            )
        ),
    ),
)
def test_no_document_is_a_crash(name: str, document: Any) -> None:
    assert kinds(
        resigned(FILES | {name: json.dumps(document).encode()}) | {name: json.dumps(document).encode()}
    )


# -- folders and zip files


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_bundle_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    write_bundle(FILES, tmp_path / name)
    assert read_bundle(tmp_path / name) == Packed(files=FILES)
    assert [each.name for each in tmp_path.iterdir()] == [name]  # nothing is left beside it


def test_the_same_bundle_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_bundle(FILES, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_nothing_is_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="is there already"):
        write_bundle(FILES, tmp_path / name)
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_nothing_is_left_where_writing_fails(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PgstowError, match="No space left"):
        write_bundle(FILES, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PgstowError, match="cannot be written"):
        write_bundle(FILES, tmp_path / "none" / "bundle")
    with pytest.raises(UsageError, match="neither a folder nor a file"):
        read_bundle(tmp_path / "none")


def zipped(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of a name that it writes twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../facts.json",
        "/etc/passwd",
        "drills/../../x.json",
        "drills\\x.json",
        "C:/facts.json",
        "a/b",
        "facts.json/",
    ],
)
def test_names_that_lead_elsewhere_are_told_and_not_read(tmp_path: Path, name: str) -> None:
    packed = read_bundle(zipped(tmp_path / "b.zip", [*FILES.items(), (name, b"x")]))
    assert packed.files == FILES
    assert len(packed.strange) == 1
    assert kinds(FILES, strange=packed.strange) == {"extra"}


def test_bytes_that_belong_to_no_member_of_a_zip_file_are_told(tmp_path: Path) -> None:
    """Other programs may show them, and no hash covers them: a comment, something before, between or after."""
    write_bundle(FILES, tmp_path / "b.zip")
    whole = (tmp_path / "b.zip").read_bytes()
    hidden = b"PK\x03\x04 a page that shows something else"
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        second = sorted(archive.infolist(), key=lambda each: each.header_offset)[1].header_offset
    (tmp_path / "after.zip").write_bytes(whole + hidden)
    (tmp_path / "before.zip").write_bytes(hidden + whole)
    moved = _moved(whole, second, hidden)
    (tmp_path / "between.zip").write_bytes(moved)
    shutil.copy(tmp_path / "b.zip", tmp_path / "comment.zip")
    with zipfile.ZipFile(tmp_path / "comment.zip", "a") as archive:
        archive.comment = b"all is well"
    for name in ("after", "before", "between", "comment"):
        packed = read_bundle(tmp_path / f"{name}.zip")
        assert packed.strange, name
        assert kinds(FILES, strange=packed.strange) == {"extra"}


def _moved(content: bytes, at: int, hidden: bytes) -> bytes:
    """Return a zip file with bytes put in before a member, and a directory that knows where all is now."""
    end = len(content) - 22
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    directory = bytearray(content[start:end])
    entry = 0
    while entry < len(directory):
        offset = int.from_bytes(directory[entry + 42 : entry + 46], "little")
        if offset >= at:
            directory[entry + 42 : entry + 46] = (offset + len(hidden)).to_bytes(4, "little")
        entry += 46 + sum(
            int.from_bytes(directory[entry + each : entry + each + 2], "little") for each in (28, 30, 32)
        )
    tail = bytearray(content[end:])
    tail[16:20] = (start + len(hidden)).to_bytes(4, "little")
    return content[:at] + hidden + content[at:start] + bytes(directory) + bytes(tail)


def test_a_bundle_that_was_packed_again_by_another_program_is_one(tmp_path: Path) -> None:
    """It may write folders, and sizes after the content, as into a pipe."""
    with (
        (tmp_path / "b.zip").open("wb") as file,
        zipfile.ZipFile(_Pipe(file), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr("drills/", b"")
        for name, content in FILES.items():
            archive.writestr(name, content)
    packed = read_bundle(tmp_path / "b.zip")
    assert (packed.files, packed.strange) == (FILES, ())


class _Pipe(io.RawIOBase):
    """What cannot go back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)


def test_a_name_twice_in_a_zip_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PgstowError, match=r"facts\.json twice"):
        read_bundle(zipped(tmp_path / "b.zip", [(FACTS, b"one"), (FACTS, b"two")]))


def test_what_is_out_of_all_proportion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(FILES, tmp_path / "b.zip")
    for limit, value in (("_LARGEST_BYTES", 1000), ("_MOST_BYTES", 1000), ("_MOST_FILES", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(packing, limit, value)
            with pytest.raises(PgstowError, match=r"larger than|more than"):
                read_bundle(tmp_path / "b.zip")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_zip_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(PgstowError, match="no zip file"):
        read_bundle(tmp_path / "b.zip")


def test_a_damaged_member_is_told(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    write_bundle(FILES, path)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(PgstowError, match="that can be read"):
        read_bundle(path)


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    write_bundle(FILES, tmp_path / "b")
    (tmp_path / "b" / FACTS).unlink()
    (tmp_path / "secret").write_bytes(FILES[FACTS])
    (tmp_path / "b" / FACTS).symlink_to(tmp_path / "secret")
    (tmp_path / "b" / REPORT).unlink()
    os.mkfifo(tmp_path / "b" / REPORT)
    (tmp_path / "b" / "deep").mkdir()
    packed = read_bundle(tmp_path / "b")
    assert packed.strange == ("deep", FACTS, REPORT)
    assert FACTS not in packed.files


# -- the key


def test_the_key_is_a_fingerprint_or_a_public_key(tmp_path: Path) -> None:
    key = GOOD.administrator
    private = load_pem_private_key(key.pem(Secret("a passphrase")), b"a passphrase")
    (tmp_path / "public.pem").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "private.pem").write_bytes(key.pem(Secret("a passphrase")))
    spaced = ":".join(key.fingerprint[at : at + 2] for at in range(0, 64, 2)).upper()
    for text in (key.fingerprint, spaced, str(tmp_path / "public.pem")):
        assert administrator_of(text) == key.fingerprint
    for text, message in (
        (str(tmp_path / "private.pem"), "holds a private key"),
        (str(tmp_path / "none"), "no file that can be read"),
        ("12ab", "no fingerprint"),
    ):
        with pytest.raises(UsageError, match=message):
            administrator_of(text)


# -- what it looks like


def test_the_page_is_one_file_and_foreign_words_stay_words() -> None:
    hostile = "<script>alert(1)</script>\u202e\x1b[31m\"'&"
    databases = (GOOD.facts.databases[0].model_copy(update={"name": hostile}),)
    page = report_page(judge(GOOD.facts.model_copy(update={"databases": databases}))).decode()
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("by https;", "")  # nothing is fetched


def test_rules_are_raised_with_every_change_of_what_follows_from_facts() -> None:
    """``UPDATE_GOLDEN=1`` writes them anew; whoever needs that raises RULES, or old bundles seem to be forged."""
    facts = fixed(GOOD)
    report = judge(facts)
    documents = {
        "facts.json": json.dumps(json.loads(canonical_facts(facts)), indent=1, sort_keys=True) + "\n",
        "report.json": json.dumps(report_document(report), indent=1, sort_keys=True) + "\n",
        "report.html": report_page(report).decode(),
    }
    folder = GOLDEN / f"rules-{RULES}"
    for name, text in documents.items():
        if os.environ.get("UPDATE_GOLDEN") == "1":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        assert text == (folder / name).read_text(), "raise RULES"


def test_facts_of_older_rules_can_be_read() -> None:
    """They are judged by other rules; everything else of such a bundle is checked all the same."""
    facts = EvidenceFacts.model_validate_json((GOLDEN / "rules-1" / "facts.json").read_text())
    assert facts.rules == 1
    assert [each.control.code for each in judge(facts).controls if each.result == "pass"]


def fixed(made: Evidence) -> EvidenceFacts:
    """Return the facts with a key and digests that do not change from run to run, and something of every result."""
    text = canonical_facts(made.facts).decode().replace(made.host.chain, "c0" * 32)
    facts = EvidenceFacts.model_validate_json(text)
    audit = [
        each.model_copy(update={"heads": (each.heads[0].model_copy(update={"digest": "d1" * 32}),)})
        for each in facts.audit
    ]
    return facts.model_copy(
        update={
            "audit": tuple(audit),
            "attestations": tuple(
                each.model_copy(update={"id": f"{number}"}) for number, each in enumerate(facts.attestations)
            ),
            "repositories": tuple(each.model_copy(update={"deletion": None}) for each in facts.repositories),
            "contacts": 0,
            "drills": tuple(
                each.model_copy(update={"is_removed": False, "sha256": "5a" * 32}) for each in facts.drills
            ),
            "waivers": (waiver("C21", facts.made.date()),),
        }
    )
