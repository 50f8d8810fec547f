"""Every control passes, fails and is unknown for the facts that should make it so; a waiver covers failures alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgstow.evidence import facts as evidence
from pgstow.evidence.clauses import CLAUSES, STANDARDS
from pgstow.evidence.controls import CONTROLS, Finding, Result, result_of
from pgstow.evidence.controls.gaps import gaps
from pgstow.evidence.report import judge
from support.evidence import BEGIN, DAY, MADE, PERIOD, drill_record, good_facts, manifest, waiver

Facts = evidence.EvidenceFacts
Change = Callable[[Facts], dict[str, Any]]

# What no program can measure: it passes for what people state, and says so.
ATTESTED = {"C14", "C16", "C17", "C19"}
DOCS = Path(__file__).parent.parent.parent / "docs" / "evidence.md"


def result(facts: Facts, code: str) -> Result:
    (found,) = [each.result for each in judge(facts).controls if each.control.code == code]
    return found


def findings(facts: Facts, code: str) -> dict[str, Finding]:
    (found,) = [each.findings for each in judge(facts).controls if each.control.code == code]
    return {each.subject: each for each in found}


def repositories(**changed: Any) -> Change:
    return lambda facts: {
        "repositories": tuple(each.model_copy(update=changed) for each in facts.repositories)
    }


def backups(**changed: Any) -> Change:
    return lambda facts: {"backups": tuple(each.model_copy(update=changed) for each in facts.backups)}


def databases(**changed: Any) -> Change:
    return lambda facts: {"databases": tuple(each.model_copy(update=changed) for each in facts.databases)}


def drills(**changed: Any) -> Change:
    return lambda facts: {"drills": tuple(each.model_copy(update=changed) for each in facts.drills)}


def one_audit(**changed: Any) -> Change:
    return lambda facts: {"audit": (facts.audit[0].model_copy(update=changed), *facts.audit[1:])}


def locks(**changed: Any) -> Change:
    """Change those of the copy that is held."""
    return lambda facts: {
        "locks": tuple(
            each.model_copy(update=changed) if each.repository == "far" else each for each in facts.locks
        )
    }


def deletion(**changed: Any) -> Change:
    rights = {"may_write": True, "may_delete": True, "keeps_versions": True}
    return repositories(deletion=evidence.DeletionFacts(**(rights | changed)))


def entries(**changed: Any) -> Change:
    return lambda facts: {
        "audit_entries": tuple(each.model_copy(update=changed) for each in facts.audit_entries)
    }


def attested(control: str, **changed: Any) -> Change:
    return lambda facts: {
        "attestations": tuple(
            each.model_copy(update=changed) if each.control == control else each
            for each in facts.attestations
        )
    }


def nobody_vouches(facts: Facts) -> dict[str, Any]:
    chains = tuple({each.chain for each in facts.attestations})
    return {"audit": tuple(each.model_copy(update={"unenrolled": chains}) for each in facts.audit)}


def found_in(place: str) -> Change:
    return lambda facts: {
        "searches": (
            *facts.searches,
            evidence.SearchFacts.model_validate({"place": place, "looked_at": 1, "found_in": ("there",)}),
        )
    }


def restored_on(day: int) -> Change:
    """Something was restored after people had looked at the list of erasures."""

    def change(facts: Facts) -> dict[str, Any]:
        restore = facts.audit_entries[0].model_copy(
            update={"action": "restore", "at": BEGIN + day * DAY, "subjects": ()}
        )
        return {"audit_entries": (*facts.audit_entries, restore)}

    return change


def looked_before_it_was_restored(facts: Facts) -> dict[str, Any]:
    """Somebody writes down after a restore what he did before it."""
    before = {"id": "before", "on": BEGIN.date() + 10 * DAY, "at": BEGIN + 21 * DAY}
    again = tuple(each.model_copy(update=before) for each in facts.attestations if each.control == "C19")
    return restored_on(20)(facts) | {"attestations": (*facts.attestations, *again)}


def newest_is_only_near(facts: Facts) -> dict[str, Any]:
    """The copy that is held is an old one."""
    old = {"made": MADE - 5 * DAY}
    return {
        "locks": tuple(
            each.model_copy(update=old) if each.repository == "far" else each for each in facts.locks
        )
    }


def no_backup_on(day: int, *, without_history: bool = False) -> Change:
    """Neither the backup of that day of the period nor its run is there."""

    def change(facts: Facts) -> dict[str, Any]:
        begin = BEGIN + (day - 1) * DAY
        changed: dict[str, Any] = {
            "backups": tuple(each for each in facts.backups if not begin <= each.time < begin + DAY),
            "runs": tuple(
                each
                for each in facts.runs or ()
                if each.job != "backup" or not begin <= each.started < begin + DAY
            ),
        }
        return changed | ({"runs": (), "runs_since": None} if without_history else {})

    return change


def without(**changed: Any) -> Change:
    return lambda _facts: changed


def first_drills(count: int) -> Change:
    return lambda facts: {"drills": facts.drills[:count]}


def problem(kind: str) -> tuple[evidence.AuditProblemFacts, ...]:
    return (evidence.AuditProblemFacts(kind=kind, chain="ab" * 32, number=3, message=f"it is {kind}"),)


def only_first_copy_is_far(facts: Facts) -> dict[str, Any]:
    """In the other region is one backup of three months ago alone, and the history knows of no other."""
    begin = BEGIN - 60 * DAY
    first = facts.backups[0].model_copy(update={"id": "first", "time": begin})
    near = [each.model_copy(update={"repositories": ("near",)}) for each in facts.backups]
    runs = tuple(each.model_copy(update={"stored_in": ("near",)}) for each in facts.runs or ())
    return {"backups": (first, *near), "runs": runs, "runs_since": begin}


def failed_in_far_on(day: int) -> Change:
    """The run of that day reached one of its two repositories, and nothing brought the other what it lacks."""

    def change(facts: Facts) -> dict[str, Any]:
        at = BEGIN + (day - 1) * DAY
        stored = {"stored_in": ("near",), "failed_in": ("far",), "outcome": "partial"}
        return {
            "runs": tuple(
                each.model_copy(update=stored) if at <= each.started < at + DAY else each
                for each in facts.runs or ()
            ),
            "backups": tuple(
                each.model_copy(update={"repositories": ("near",)}) if at <= each.time < at + DAY else each
                for each in facts.backups
            ),
        }

    return change


def made_elsewhere_on(day: int) -> Change:
    """The history does not know the backup of that day, and the audit trail does."""

    def change(facts: Facts) -> dict[str, Any]:
        at = BEGIN + (day - 1) * DAY + timedelta(hours=2, minutes=3)
        seen = facts.audit_entries[0].model_copy(update={"at": at, "subjects": ("shop", "gone")})
        return {**no_backup_on(day)(facts), "audit_entries": (*facts.audit_entries, seen)}

    return change


def repositories_at(near: str, far: str) -> Change:
    def change(facts: Facts) -> dict[str, Any]:
        one, other = facts.repositories
        return {
            "repositories": (
                one.model_copy(update={"provider": near, "account": None}),
                other.model_copy(update={"provider": far, "account": None}),
            )
        }

    return change


GONE = evidence.GoneFacts(
    repository="far", database="shop", kind="daily", backup_id="ab" * 8, made=BEGIN, until=MADE.date()
)

FAILURES: list[tuple[str, str, Change]] = [
    ("C1", "not named", without(excluded_databases=())),
    ("C2", "one day", no_backup_on(12)),
    ("C2", "not verified", lambda f: {"runs": tuple(each for each in f.runs or () if each.job != "verify")}),
    ("C3", "two days", no_backup_on(12)),
    ("C3", "tight target", databases(rpo_s=3600.0)),
    ("C4", "none", without(drills=())),
    ("C4", "too few", first_drills(1)),
    ("C4", "only critical tables", drills(kind="critical")),
    ("C4", "only some tables", drills(is_partial=True)),
    ("C4", "a dump from elsewhere", drills(kind="import")),
    ("C4", "rows not compared", drills(has_data_checks=False)),
    ("C5", "one kind never", lambda f: {"drills": tuple(each for each in f.drills if each.kind != "dr")}),
    ("C5", "failed", drills(outcome="failed")),
    ("C6", "too slow", drills(proven_s=20000.0)),
    ("C6", "RPO", databases(rpo_s=3600.0)),
    ("C7", "one place", backups(repositories=("near",))),
    ("C7", "same region", repositories(region="eu-west-1")),
    ("C7", "same account", repositories(provider="s3", account="1")),
    ("C7", "one copy at the beginning", only_first_copy_is_far),
    ("C8", "no lock", locks(is_lockable=False)),
    ("C8", "one object is not held", locks(held=11)),
    ("C8", "a folder", locks(is_lockable=False, error="a folder", objects=0, held=0)),
    ("C9", "a folder", deletion(is_folder=True)),
    ("C9", "versions too", deletion(may_delete_versions=True)),
    ("C9", "no versions", deletion(keeps_versions=False)),
    ("C9", "may overwrite", deletion(may_delete=False, keeps_versions=False)),
    ("C10", "old key", repositories(key_times=(BEGIN - 400 * DAY,))),
    ("C10", "escrow tested long ago", attested("C10", at=BEGIN - 350 * DAY)),
    ("C10", "the tested key is gone", repositories(key_ids=("5c" * 32,))),
    ("C11", "no TLS", backups(manifest=manifest(tls=None, via="network"))),
    ("C11", "old TLS", backups(manifest=manifest(tls="TLSv1.1"))),
    ("C11", "http", repositories(transport="http")),
    ("C11", "old TLS of a store", repositories(tls="TLSv1.1")),
    ("C11", "old TLS at a backup", entries(tls="TLSv1")),
    ("C12", "in an argument of ours", entries(had_secrets=True)),
    *(("C12", f"in {place}", found_in(place)) for place in ("settings", "processes", "records", "logs")),
    *(
        (code, "lapsed", attested(code, until=BEGIN.date() + 9 * DAY))
        for code in ("C14", "C16", "C17", "C19")
    ),
    ("C12", "others can read", without(secrets=evidence.SecretFacts(references=2, readable_by_others=1))),
    *(
        ("C13", kind, one_audit(problems=problem(kind)))
        for kind in ("edited", "reordered", "missing", "truncated", "forked", "unsigned", "unreadable")
    ),
    ("C15", "overdue", repositories(overdue=3)),
    ("C15", "gone too early", without(gone=(GONE,))),
    ("C2", "not stored everywhere", failed_in_far_on(12)),
    ("C17", "nobody", without(contacts=0)),
    ("C18", "no channel", without(channels=())),
    (
        "C18",
        "silence",
        lambda f: {
            "channels": tuple(each.model_copy(update={"acknowledged": ()}) for each in f.channels or ())
        },
    ),
    (
        "C20",
        "no roles",
        backups(manifest=manifest(globals_captured=False, globals_missing=("roles: denied",))),
    ),
    ("C21", "reachable", drills(is_isolated=False)),
    ("C21", "left behind", drills(is_removed=False)),
    ("C22", "server", backups(manifest=manifest(outdated="PostgreSQL 14 no longer gets security fixes"))),
    (
        "C22",
        "tools",
        without(
            tools=(evidence.ToolFacts(name="client programs", version="15.1", outdated="older than 15.19"),)
        ),
    ),
]

UNKNOWN: list[tuple[str, str, Change]] = [
    ("C1", "not asked", without(servers=())),
    ("C1", "away", without(servers=(evidence.ServerFacts(database="shop", error="cannot connect"),))),
    ("C2", "no history", no_backup_on(12, without_history=True)),
    (
        "C2",
        "no schedule",
        lambda f: {"plans": tuple(each.model_copy(update={"dues": None}) for each in f.plans)},
    ),
    ("C3", "no history", no_backup_on(12, without_history=True)),
    ("C3", "no target", databases(rpo_s=None)),
    ("C3", "never backed up", without(backups=(), runs=(), runs_since=None, tiers=(), plans=())),
    ("C4", "unreadable drills", lambda f: {"drills": ()} | repositories(drills_error="denied")(f)),
    ("C4", "forged record", lambda f: {"drills": ()} | repositories(drills_unreadable=1)(f)),
    (
        "C4",
        "not overdue yet",
        lambda f: {"drills": (), "tiers": (), "runs": (), "plans": (), "period": f.period},
    ),
    ("C5", "no backups", without(tiers=())),
    (
        "C5",
        "a new kind",
        lambda f: {
            "drills": (),
            "plans": (),
            "runs": (),
            "tiers": tuple(each.model_copy(update={"oldest": MADE - 60 * DAY}) for each in f.tiers),
        },
    ),
    ("C6", "no target", databases(rto_s=None)),
    ("C6", "no drill", without(drills=())),
    ("C7", "region unknown", repositories(region=None)),
    ("C7", "no backup", without(backups=())),
    ("C7", "two names of one operator", repositories_at("s3", "s3 at s3.eu-west-1.amazonaws.com")),
    ("C7", "two ports of one machine", repositories_at("s3 at 10.0.0.1", "s3 at localhost")),
    (
        "C7",
        "one repository is away",
        lambda f: backups(repositories=("near",))(f) | repositories(error="away")(f),
    ),
    ("C8", "nothing there", without(tiers=())),
    ("C8", "not asked", without(locks=())),
    ("C8", "denied", locks(error="denied")),
    ("C8", "not known", locks(is_lockable=None)),
    ("C8", "governance", locks(held=3, liftable=9)),
    ("C8", "kept always", locks(needed=None)),
    ("C8", "may be let go by now", locks(needed=MADE)),
    ("C8", "an old one is held", newest_is_only_near),
    ("C8", "another copy may be", lambda f: locks(held=0)(f) | repositories(error="away")(f)),
    ("C9", "not asked", repositories(deletion=None)),
    ("C9", "denied", deletion(error="a server error")),
    ("C9", "another writes", deletion(may_write=False)),
    ("C10", "not opened", repositories(encryption=None, error="wrong password")),
    ("C10", "keys removed since", repositories(keys_removed=(MADE,))),
    (
        "C10",
        "never tested",
        lambda f: {"attestations": tuple(e for e in f.attestations if e.control != "C10")},
    ),
    ("C10", "tested after the period", attested("C10", at=MADE)),
    ("C10", "a test nobody vouches for", nobody_vouches),
    ("C10", "which keys are there", repositories(key_ids=None)),
    *((code, "nobody states it", without(attestations=())) for code in ("C14", "C16", "C17", "C19")),
    *((code, "nobody vouches", nobody_vouches) for code in ("C14", "C16", "C17", "C19")),
    *(
        (code, "written down late", attested(code, on=BEGIN.date() - 120 * DAY))
        for code in ("C14", "C16", "C17", "C19")
    ),
    ("C14", "the first after long", attested("C14", on=BEGIN.date() + 5 * DAY, at=BEGIN + 6 * DAY)),
    ("C19", "restored since", restored_on(20)),
    ("C19", "looked before it was restored", looked_before_it_was_restored),
    ("C11", "manifest unreadable", backups(manifest=None, manifest_error="lost")),
    ("C11", "imported", backups(manifest=manifest(tls=None, imported_from="old.dump"))),
    ("C11", "a tunnel perhaps", backups(manifest=manifest(tls=None, via="loopback"))),
    ("C11", "not recorded", backups(manifest=manifest(tls=None, via=None))),
    ("C11", "version not seen", backups(manifest=manifest(tls="unknown"))),
    ("C11", "https and no more", repositories(tls=None, tls_error="a proxy")),
    ("C11", "a version nobody knows", repositories(tls="TLSv9")),
    ("C11", "how it is reached", repositories(transport=None)),
    ("C11", "no backup", without(backups=())),
    ("C12", "no settings", without(secrets=None)),
    ("C12", "no audit trail", without(audit_entries=())),
    ("C12", "not searched", without(searches=())),
    (
        "C12",
        "not all of it",
        lambda f: {"searches": tuple(e.model_copy(update={"error": "denied"}) for e in f.searches)},
    ),
    (
        "C12",
        "too short",
        without(secrets=evidence.SecretFacts(references=3, readable_by_others=0, known=2, unknown=1)),
    ),
    ("C13", "no trail", without(audit=())),
    ("C13", "empty", one_audit(entries=0)),
    ("C13", "unreadable store", one_audit(error="denied")),
    ("C13", "not enrolled", one_audit(unenrolled=("ab" * 32,))),
    ("C13", "pending", one_audit(pending=2)),
    ("C13", "gap", one_audit(problems=problem("gap"))),
    ("C13", "no anchor", one_audit(anchors=0)),
    ("C13", "younger than the period", without(audit_entries=())),
    ("C15", "not worked out", repositories(overdue=None)),
    ("C15", "no history", without(runs=None, runs_since=None)),
    ("C15", "nothing there then", without(tiers=())),
    ("C2", "another host made it", made_elsewhere_on(12)),
    ("C18", "no state", without(channels=None)),
    (
        "C18",
        "a new channel",
        without(channels=(evidence.ChannelFacts(name="slack", known_since=BEGIN + 28 * DAY),)),
    ),
    ("C20", "manifest unreadable", backups(manifest=None, manifest_error="lost")),
    ("C20", "no configuration", backups(manifest=manifest(has_configuration=False))),
    ("C21", "no drill", without(drills=())),
    ("C22", "no backup", without(backups=())),
    ("C22", "no tools", without(tools=())),
    ("C22", "a release to come", backups(manifest=manifest(server_version="20.1", is_release_known=False))),
    (
        "C22",
        "programs to come",
        without(tools=(evidence.ToolFacts(name="t", version="20.1", is_release_known=False),)),
    ),
]


def test_everything_that_can_be_measured_passes_for_good_facts() -> None:
    report = judge(good_facts())
    results = {each.control.code: each.result for each in report.controls}
    assert set(results.values()) == {Result.PASS}
    assert {each.control.code for each in report.controls if each.is_attested} == ATTESTED
    assert list(results) == [f"C{number}" for number in range(1, 23)]


@pytest.mark.parametrize(
    ("code", "why", "change"), FAILURES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_fails(code: str, why: str, change: Change) -> None:
    facts = good_facts()
    assert result(facts.model_copy(update=change(facts)), code) is Result.FAIL


@pytest.mark.parametrize(
    ("code", "why", "change"), UNKNOWN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_is_unknown(code: str, why: str, change: Change) -> None:
    facts = good_facts()
    if why == "not overdue yet":  # a database of which there is a sign since a week
        facts = facts.model_copy(update={"backups": (), "plans": ()})
        tier = facts.tiers[0].model_copy(update={"oldest": BEGIN + 24 * DAY})
        facts = facts.model_copy(update={"drills": (), "runs": (), "tiers": (tier,)})
    else:
        facts = facts.model_copy(update=change(facts))
    assert result(facts, code) is Result.UNKNOWN


def test_each_control_has_every_case_it_can_have() -> None:
    codes = {f"C{number}" for number in range(1, 23)}
    assert {code for code, _, _ in UNKNOWN} == codes
    assert {code for code, _, _ in FAILURES} == codes


def test_nothing_at_all_is_unknown_everywhere_but_where_nobody_would_be_told() -> None:
    empty = good_facts(
        databases=(), plans=(), repositories=(), backups=(), tiers=(), runs=None, runs_since=None, drills=(),
        channels=None, servers=(), tools=(), secrets=None, audit=(), audit_entries=(), contacts=1,
    )  # fmt: skip
    assert {each.result for each in judge(empty).controls} == {Result.UNKNOWN}


def test_what_is_unknown_says_what_it_would_take() -> None:
    for each in judge(good_facts()).controls:
        for finding in each.findings:
            assert bool(finding.missing) == (finding.result is Result.UNKNOWN)


# -- waivers


def test_a_waiver_covers_a_failure_until_its_day() -> None:
    facts = good_facts(contacts=0, waivers=(waiver("C17", MADE.date()),))
    (report,) = [each for each in judge(facts).controls if each.control.code == "C17"]
    assert report.result is Result.WAIVED
    assert report.waiver is not None and report.waiver.by == "ciso"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"contacts": 0, "waivers": (waiver("C17", MADE.date() - DAY),)}, Result.FAIL),
        ({"contacts": 0, "waivers": (waiver("C18", date(2030, 1, 1)),)}, Result.FAIL),
        ({"attestations": (), "waivers": (waiver("C17", date(2030, 1, 1)),)}, Result.UNKNOWN),
    ],
    ids=["expired", "of another control", "unknown stays unknown"],
)
def test_what_a_waiver_does_not_cover(changed: dict[str, Any], expected: Result) -> None:
    assert result(good_facts(**changed), "C17") is expected


def test_a_waiver_of_a_failure_does_not_hide_what_is_unknown_beside_it() -> None:
    """One finding of C12 fails and another was not measured: with the former waived it is unknown, and not waived."""
    exposed = evidence.SecretFacts(references=2, readable_by_others=1, known=2)
    waived = (waiver("C12", date(2030, 1, 1)),)
    assert result(good_facts(secrets=exposed, waivers=waived), "C12") is Result.WAIVED
    assert result(good_facts(secrets=exposed, waivers=waived, searches=()), "C12") is Result.UNKNOWN


def test_a_waiver_changes_nothing_about_what_passes() -> None:
    assert result(good_facts(waivers=(waiver("C4", date(2030, 1, 1)),)), "C4") is Result.PASS


# -- the period


def test_what_happened_after_the_period_does_not_count() -> None:
    facts = good_facts()
    late = facts.drills[-1].model_copy(
        update={"started": MADE - DAY, "finished": MADE - DAY, "is_removed": False}
    )
    assert result(facts.model_copy(update={"drills": (*facts.drills, late)}), "C21") is Result.PASS


def test_of_a_period_that_goes_on_only_what_is_over_is_judged() -> None:
    """A report on the eleventh does not miss the backups of the rest of the month."""
    made = BEGIN + 10 * DAY + timedelta(hours=12)
    facts = good_facts(made=made)
    assert facts.until == made
    kept = facts.model_copy(
        update={"backups": tuple(each for each in facts.backups if each.time < made), "runs": ()}
    )
    assert findings(kept, "C2")["shop/daily"].result is Result.PASS
    assert findings(kept, "C2")["shop/daily"].text.startswith("11 of 11 backups")


def test_a_plan_that_is_new_is_judged_from_then_on() -> None:
    facts = good_facts()
    since = BEGIN + 20 * DAY
    changed = facts.model_copy(
        update={
            "plans": tuple(each.model_copy(update={"known_since": since}) for each in facts.plans),
            "backups": tuple(each for each in facts.backups if each.time >= since),
            "tiers": tuple(each.model_copy(update={"oldest": since + DAY}) for each in facts.tiers),
            "runs": tuple(each for each in facts.runs or () if each.started >= since),
            "runs_since": since,
            "drills": (),
        }
    )
    found = findings(changed, "C2")["shop/daily"]
    assert found.result is Result.PASS
    assert "first known on 2026-10-21" in found.text
    # A drill of such a backup shows that there were some before: what became of them is unknown, and no pass.
    drilled = changed.model_copy(update={"drills": facts.drills})
    assert findings(drilled, "C2")["shop/daily"].result is Result.UNKNOWN


def test_expired_backups_are_known_by_their_runs() -> None:
    facts = good_facts()
    last = facts.model_copy(update={"backups": facts.backups[-3:]})
    assert findings(last, "C2")["shop/daily"].result is Result.PASS
    assert result(last, "C3") is Result.PASS


def test_a_run_that_stored_nothing_is_no_backup() -> None:
    facts = good_facts(backups=())
    empty = facts.model_copy(
        update={"runs": tuple(each.model_copy(update={"stored_in": ()}) for each in facts.runs or ())}
    )
    assert findings(empty, "C2")["shop/daily"].result is Result.FAIL


def test_damaged_backups_count_for_nothing() -> None:
    facts = good_facts(runs=(), runs_since=BEGIN - 10 * DAY)
    assert findings(facts, "C2")["shop/daily"].result is Result.PASS
    damaged = facts.model_copy(update=backups(is_damaged=True)(facts))
    assert findings(damaged, "C2")["shop/daily"].result is Result.FAIL


def test_a_backup_that_is_damaged_now_is_not_made_good_by_its_run() -> None:
    facts = good_facts()
    damaged = tuple(
        each.model_copy(update={"is_damaged": True}) if number == 12 else each
        for number, each in enumerate(facts.backups)
    )
    changed = facts.model_copy(update={"backups": damaged})
    assert findings(changed, "C2")["shop/daily"].text.startswith("30 of 31 backups")
    assert result(changed, "C3") is Result.FAIL


def test_a_failed_drill_after_good_ones_fails() -> None:
    facts = good_facts()
    last = facts.drills[-2].model_copy(
        update={
            "started": BEGIN + 30 * DAY,
            "finished": BEGIN + 30 * DAY,
            "outcome": "failed",
            "error": "a row differs",
        }
    )
    found = findings(facts.model_copy(update={"drills": (*facts.drills, last)}), "C4")["shop"]
    assert found.result is Result.FAIL
    assert "a row differs" in found.text


def test_a_key_made_after_the_period_says_nothing_about_it() -> None:
    facts = good_facts()
    young = facts.model_copy(update=repositories(key_times=(MADE,))(facts))
    assert findings(young, "C10")["repository near/keys"].result is Result.UNKNOWN


def test_drills_and_audit_entries_stand_behind_a_control() -> None:
    (tested,) = [each for each in judge(good_facts()).controls if each.control.code == "C4"]
    assert drill_record(BEGIN, number=1).id in tested.drills
    (in_time,) = [each for each in judge(good_facts()).controls if each.control.code == "C2"]
    assert len(in_time.audit) == 15
    assert all(re.fullmatch(r"near/[0-9a-f]{16}/[0-9]+", each) for each in in_time.audit)


def test_what_was_never_verified_is_no_pass_for_being_shorter_than_the_limit() -> None:
    """The period has 31 days and 35 are allowed: what counts is also what the history knows of before."""
    facts = good_facts()
    never = tuple(
        each.model_copy(update={"stored_in": ("far",)}) for each in facts.runs or () if each.job != "verify"
    )
    young = BEGIN + 5 * DAY
    repository = facts.repositories[0].model_copy(update={"known_since": young})
    far = tuple(each for each in facts.tiers if each.repository == "far")
    changed = facts.model_copy(
        update={
            "runs": never,
            "tiers": far,
            "audit_entries": (),
            "repositories": (repository, *facts.repositories[1:]),
        }
    )
    found = findings(changed, "C2")
    assert found["repository near"].result is Result.UNKNOWN
    assert found["repository far"].result is Result.FAIL


def test_what_passes_for_a_part_of_the_period_says_since_when() -> None:
    facts = good_facts()
    since = BEGIN + 25 * DAY
    channel = evidence.ChannelFacts(name="slack", known_since=since, acknowledged=(since + DAY,))
    plan = facts.plans[0].model_copy(update={"known_since": since})
    changed = facts.model_copy(
        update={
            "channels": (channel,),
            "plans": (plan,),
            "tiers": tuple(each.model_copy(update={"oldest": since}) for each in facts.tiers),
            "backups": tuple(each for each in facts.backups if each.time >= since),
            "runs": tuple(each for each in facts.runs or () if each.started >= since),
            "drills": (facts.drills[3].model_copy(update={"started": since, "finished": since}),),
        }
    )
    for code, subject in (("C2", "shop/daily"), ("C3", "shop"), ("C4", "shop"), ("C18", "channel slack")):
        found = findings(changed, code)[subject]
        assert (found.result, "first known on 2026-10-2" in found.text) == (Result.PASS, True), found


def test_a_state_database_made_anew_does_not_make_a_repository_new() -> None:
    """It knows the repository, and has runs, since yesterday; the repository has backups that are older."""
    facts = good_facts()
    yesterday = facts.period.end - DAY
    changed = facts.model_copy(update=repositories(known_since=yesterday)(facts))
    run = next(each for each in facts.runs or () if each.job == "verify")
    again = run.model_copy(update={"started": yesterday - timedelta(minutes=1), "finished": yesterday})
    changed = changed.model_copy(update={"runs": (again,), "runs_since": again.started})
    assert findings(changed, "C2")["repository near"].result is Result.UNKNOWN


def test_the_time_since_the_last_drill_before_the_period_counts() -> None:
    facts = good_facts()
    late = tuple(
        each.model_copy(update={"started": BEGIN + 5 * DAY, "finished": BEGIN + 5 * DAY})
        for each in facts.drills[:1]
    )
    assert result(facts.model_copy(update={"drills": late}), "C4") is Result.FAIL


def test_a_first_backup_of_the_period_does_not_hide_what_is_unknown_before() -> None:
    facts = good_facts(runs=(), runs_since=None)
    changed = facts.model_copy(update={"backups": tuple(each for each in facts.backups if each.time > BEGIN)})
    assert result(changed, "C3") is Result.UNKNOWN


def test_an_entry_written_with_a_revoked_key_fails() -> None:
    facts = good_facts()
    revoked = problem("unenrolled")
    assert result(facts.model_copy(update=one_audit(problems=revoked)(facts)), "C13") is Result.FAIL
    stranger = (revoked[0].model_copy(update={"number": None}),)
    assert result(facts.model_copy(update=one_audit(problems=stranger)(facts)), "C13") is Result.UNKNOWN


def test_what_a_backup_misses_until_it_is_there_counts_for_the_rpo() -> None:
    """Backups every 24 hours that take two: before the second is there, a loss goes back 26 hours."""
    facts = good_facts()
    slow = tuple(
        each.model_copy(update={"finished": each.started + timedelta(hours=2)})
        if each.job == "backup"
        else each
        for each in facts.runs or ()
    )
    assert result(facts, "C3") is Result.PASS  # 25 hours are allowed
    found = findings(facts.model_copy(update={"runs": slow}), "C3")["shop"]
    assert found.result is Result.FAIL
    assert "25 h 59 min at most" in found.text  # from the beginning of a run before to the end of the next


def test_what_was_due_at_the_end_of_a_period_is_judged_once_its_grace_is_over() -> None:
    facts = good_facts()
    last = facts.period.end - timedelta(minutes=10)
    plan = facts.plans[0].model_copy(update={"dues": (last,)})
    late = facts.backups[-1].model_copy(
        update={"id": "late", "time": facts.period.end + timedelta(minutes=5)}
    )
    there = facts.model_copy(update={"plans": (plan,), "backups": (*facts.backups, late)})
    assert findings(there, "C2")["shop/daily"].result is Result.PASS
    absent = facts.model_copy(update={"plans": (plan,)})
    assert findings(absent, "C2")["shop/daily"].result is Result.FAIL
    early = absent.model_copy(update={"made": facts.period.end + timedelta(minutes=20)})
    assert findings(early, "C2")["shop"].result is Result.UNKNOWN


def test_a_backup_that_came_late_to_a_repository_is_there() -> None:
    facts = good_facts()
    changed = failed_in_far_on(12)(facts)
    brought = facts.model_copy(update={"runs": changed["runs"]})
    assert findings(brought, "C2")["shop/daily"].result is Result.PASS


def test_a_socket_needs_no_tls_and_an_import_shows_nothing_of_roles() -> None:
    facts = good_facts()
    local = facts.model_copy(update=backups(manifest=manifest(tls=None, via="socket"))(facts))
    assert findings(local, "C11")["shop"].result is Result.PASS
    bare = manifest(tls=None, imported_from="old.dump", globals_captured=False)
    dump = facts.backups[-1].model_copy(update={"id": "dump", "kind": "import", "manifest": bare})
    assert result(facts.model_copy(update={"backups": (*facts.backups, dump)}), "C20") is Result.PASS


def test_keys_without_a_time_and_those_removed_since_leave_their_age_unknown() -> None:
    facts = good_facts(
        made=PERIOD.end
    )  # the last moment at which the keys of the period are those that are there
    assert findings(facts, "C10")["repository near/keys"].result is Result.PASS
    undated = facts.model_copy(update=repositories(keys_undated=1)(facts))
    assert findings(undated, "C10")["repository near/keys"].result is Result.UNKNOWN
    unread = repositories(keys_removed=None)(good_facts())
    assert (
        findings(good_facts().model_copy(update=unread), "C10")["repository near/keys"].result
        is Result.UNKNOWN
    )


# -- what people state


def test_what_is_attested_names_who_and_when_and_the_file() -> None:
    (finding,) = findings(good_facts(), "C14").values()
    assert finding.is_attested
    for words in ("Ada states for 2026-09-11", "second factor", "looked at all", "minutes.pdf, SHA-256 "):
        assert words in finding.text


def test_no_measured_control_is_called_attested() -> None:
    for each in judge(good_facts()).controls:
        assert each.is_attested is (each.control.code in ATTESTED)


def test_an_attestation_lasts_as_long_as_its_control_allows() -> None:
    """Of 90 days the last one is the ninetieth: one day more, and the period is not covered to its end."""
    facts = good_facts()
    last = PERIOD.end.date() - 90 * DAY
    at = PERIOD.end - 89 * DAY
    assert result(facts.model_copy(update=attested("C17", on=last, at=at)(facts)), "C17") is Result.PASS
    early = attested("C17", on=last - DAY, at=at)(facts)
    assert result(facts.model_copy(update=early), "C17") is Result.FAIL


def test_a_last_day_beyond_the_limit_makes_it_last_no_longer() -> None:
    facts = good_facts()
    last = PERIOD.end.date() - 90 * DAY
    at = PERIOD.end - 89 * DAY
    for on, expected in ((last, Result.PASS), (last - DAY, Result.FAIL)):
        changed = attested("C17", on=on, at=at, until=date.max)(facts)
        assert result(facts.model_copy(update=changed), "C17") is expected


def test_one_that_is_stated_anew_in_time_goes_on() -> None:
    facts = good_facts()
    (first,) = [each for each in facts.attestations if each.control == "C17"]
    short = first.model_copy(update={"until": BEGIN.date() + 9 * DAY})
    again = first.model_copy(
        update={"id": "again", "on": BEGIN.date() + 9 * DAY, "at": BEGIN + 12 * DAY, "until": None}
    )
    assert result(facts.model_copy(update={"attestations": (short, again)}), "C17") is Result.PASS
    late = again.model_copy(update={"on": BEGIN.date() + 11 * DAY})
    found = findings(facts.model_copy(update={"attestations": (short, late)}), "C17")
    assert found["runbook and contacts"].result is Result.FAIL
    assert "until 2026-10-11" in found["runbook and contacts"].text


def test_a_newer_one_can_take_back_a_day_that_was_set_too_late() -> None:
    facts = good_facts()
    (first,) = [each for each in facts.attestations if each.control == "C14"]
    shorter = first.model_copy(
        update={"id": "b", "on": BEGIN.date(), "at": BEGIN, "until": BEGIN.date() + 3 * DAY}
    )
    assert result(facts.model_copy(update={"attestations": (first, shorter)}), "C14") is Result.FAIL


def test_the_same_attestation_in_two_repositories_counts_once() -> None:
    facts = good_facts()
    copies = tuple(each.model_copy(update={"repository": "near"}) for each in facts.attestations)
    doubled = facts.model_copy(update={"attestations": (*facts.attestations, *copies)})
    assert findings(doubled, "C16")["exercise"].text == findings(facts, "C16")["exercise"].text


def test_one_that_is_stated_for_a_day_to_come_counts_for_nothing() -> None:
    facts = good_facts()
    ahead = attested("C17", on=BEGIN.date(), at=BEGIN - DAY)(facts)
    assert result(facts.model_copy(update=ahead), "C17") is Result.UNKNOWN


def test_an_entry_that_is_wrong_in_the_chain_is_not_relied_on() -> None:
    facts = good_facts()
    chain = facts.attestations[0].chain

    def with_problem(kind: str) -> Facts:
        wrong = evidence.AuditProblemFacts(kind=kind, chain=chain, number=2, message="m")
        return facts.model_copy(
            update={"audit": tuple(each.model_copy(update={"problems": (wrong,)}) for each in facts.audit)}
        )

    assert result(with_problem("edited"), "C14") is Result.UNKNOWN
    assert result(with_problem("gap"), "C14") is Result.PASS  # entries that are on their way


def test_a_look_after_the_last_restore_is_enough_for_erasures() -> None:
    facts = good_facts()
    changed = facts.model_copy(update=restored_on(20)(facts))
    (first,) = [each for each in facts.attestations if each.control == "C19"]
    after = first.model_copy(update={"id": "after", "on": BEGIN.date() + 21 * DAY, "at": BEGIN + 21 * DAY})
    looked = changed.model_copy(update={"attestations": (*facts.attestations, after)})
    assert result(looked, "C19") is Result.PASS


def test_keys_of_one_repository_say_nothing_of_another() -> None:
    facts = good_facts()
    far = tuple(each for each in facts.attestations if (each.control, each.repository) != ("C10", "near"))
    found = findings(facts.model_copy(update={"attestations": far}), "C10")
    assert found["repository near/escrow"].result is Result.UNKNOWN
    assert found["repository far/escrow"].result is Result.PASS


def test_a_test_of_a_key_that_is_there_counts_also_before_one_of_a_key_that_is_gone() -> None:
    facts = good_facts()
    gone = {"key": "6d" * 32, "at": BEGIN + DAY}
    others = tuple(each.model_copy(update=gone) for each in facts.attestations if each.control == "C10")
    assert (
        result(facts.model_copy(update={"attestations": (*facts.attestations, *others)}), "C10")
        is Result.PASS
    )


def test_a_copy_that_came_a_day_later_is_one() -> None:
    facts = good_facts()
    newer = tuple(
        each.model_copy(update={"made": each.made + DAY}) if each.repository == "near" else each
        for each in facts.locks
    )
    assert result(facts.model_copy(update={"locks": newer}), "C8") is Result.PASS


def test_backups_that_recorded_their_tls_are_counted() -> None:
    facts = good_facts().model_copy(update=entries(tls="TLSv1.2")(good_facts()))
    text = findings(facts, "C11")["repository near"].text
    assert "TLSv1.3 was negotiated when the report was made" in text
    assert "recorded by 15 of 15 backups in the audit trail: TLSv1.2" in text


# -- properties


@given(st.lists(st.sampled_from([Result.PASS, Result.FAIL, Result.UNKNOWN]), max_size=6))
def test_a_result_is_that_of_the_worst_finding(results: list[Result]) -> None:
    made = [
        Finding(subject="s", result=each, text="t", missing="m" if each is Result.UNKNOWN else None)
        for each in results
    ]
    expected = next((each for each in (Result.FAIL, Result.UNKNOWN) if each in results), None)
    assert result_of(made) is (expected or (Result.PASS if results else Result.UNKNOWN))


@given(st.lists(st.integers(-100, 200), max_size=20), st.integers(0, 50), st.integers(0, 100))
def test_gaps_cover_the_time_without_holes(moments: list[int], begin: int, length: int) -> None:
    at = [BEGIN + timedelta(hours=each) for each in moments]
    first, last = BEGIN + timedelta(hours=begin), BEGIN + timedelta(hours=begin + length)
    found = gaps(at, first, last)
    if not length:
        assert found == []
        return
    assert found[0].begin <= first and found[-1].end == last
    assert all(one.end == other.begin for one, other in itertools.pairwise(found))
    assert not any(gap.begin < each < gap.end for gap in found for each in at)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, 31)))
def test_every_day_that_is_missing_is_counted(days: set[int]) -> None:
    facts = good_facts()
    for each in sorted(days):
        facts = facts.model_copy(update=no_backup_on(each)(facts))
    found = findings(facts, "C2")["shop/daily"]
    assert found.text.startswith(f"{31 - len(days)} of 31 backups")
    assert found.result is (Result.FAIL if days else Result.PASS)


# -- clauses and documentation


def test_every_control_has_clauses_of_known_standards() -> None:
    assert set(CLAUSES) == {control.code for control in CONTROLS}
    assert all(clauses and set(clauses) <= set(STANDARDS) for clauses in CLAUSES.values())
    assert {standard for clauses in CLAUSES.values() for standard in clauses} == set(STANDARDS)


def test_the_documentation_has_a_row_for_every_control() -> None:
    rows = dict(re.findall(r"^\| (C[0-9]+) \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE))
    assert {code: title.strip() for code, title in rows.items()} == {
        each.code: each.title for each in CONTROLS
    }
