"""The rules: what is wrong, what is in order, and what cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.catalog.backups import BackupRecord
from pgstow.core.errors import NoRepository, StateError, StoreUnavailable
from pgstow.monitor.facts import DatabaseFacts, Facts, PlanFacts, RepositoryFacts, TableSize
from pgstow.monitor.findings import Evaluation, Finding, Severity
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.rules import RULES, ChannelFacts, PingFacts, TellingFacts, evaluate
from pgstow.monitor.storage import Forecast, StorageFacts
from pgstow.repository import Snapshot
from pgstow.state.runs import DestinationResult, RunRecord

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIB = 1024 * 1024
PAGE = Path(__file__).parent.parent.parent / "docs" / "alerts.md"


def backup(
    age: timedelta, *, kind: str = "daily", size_bytes: int | None = 100 * MIB, **given: object
) -> BackupRecord:
    time = NOW - age
    values: dict[str, object] = {
        "id": f"{kind}-{time:%m%dT%H%M}", "name": "shop", "kind": kind, "label": None, "is_partial": False,
        "set_id": None, "system_identifier": None, "time": time, "size_bytes": size_bytes, "stored_bytes": None,
        "snapshot": Snapshot(
            id=None, time=time, tree=b"", paths=(), hostname="h", username="u", tags=(), program_version=""
        ),
    }  # fmt: skip
    return BackupRecord(**{**values, **given})  # type: ignore[arg-type]


def store(name: str = "offsite", *backups: BackupRecord, **given: object) -> RepositoryFacts:
    ordered = tuple(sorted(backups, key=lambda record: record.time))
    values: dict[str, object] = {"name": name, "location": f"/srv/{name}", "backups": ordered, "drills": ()}
    return RepositoryFacts(**{**values, **given})  # type: ignore[arg-type]


def run(age: timedelta, outcome: str = "done", **given: object) -> RunRecord:
    values: dict[str, object] = {
        "id": f"run-{age}", "plan": "nightly", "job": "backup", "kind": "daily", "database": "shop", "due": None,
        "started": NOW - age, "finished": NOW - age + HOUR / 2, "host": "a", "outcome": outcome,
    }  # fmt: skip
    return RunRecord(**{**values, **given})  # type: ignore[arg-type]


NIGHTLY = PlanFacts(
    plan="nightly", job="backup", kind="daily", database="shop", repositories=("offsite",), cron="0 2 * * *",
    expected_since=NOW - timedelta(hours=10),
)  # fmt: skip


def facts(
    *stores: RepositoryFacts,
    runs: Sequence[RunRecord] | None = (),
    plans: Sequence[PlanFacts] = (NIGHTLY,),
    database: DatabaseFacts | None = None,
    **given: object,
) -> Facts:
    stores = stores or (store("offsite", backup(timedelta(hours=9))),)
    values: dict[str, object] = {
        "now": NOW,
        "databases": (database or DatabaseFacts(name="shop"),),
        "repositories": {each.name: each for each in stores},
        "plans": tuple(plans),
        "runs": None if runs is None else tuple(sorted(runs, key=lambda each: each.started, reverse=True)),
        "known_since": {f"repository {each.name}": NOW - DAY for each in stores}
        | {"database shop": NOW - DAY},
    }
    return Facts(**{**values, **given})  # type: ignore[arg-type]


def judge(known: Facts, telling: TellingFacts | None = None) -> Evaluation:
    return evaluate(known, telling or TellingFacts(now=NOW, policy=AlertPolicy()))


def found(known: Facts) -> dict[str, Finding]:
    return {finding.fingerprint: finding for finding in judge(known).findings}


def only(known: Facts) -> Finding:
    findings = judge(known).findings
    assert len(findings) == 1, [each.fingerprint for each in findings]
    return findings[0]


def test_all_is_well() -> None:
    known = facts(runs=[run(timedelta(hours=9))])
    assert judge(known) == Evaluation()


# Backups


def test_a_backup_that_is_older_than_its_due_time_is_missing() -> None:
    finding = only(facts(store("offsite", backup(timedelta(hours=11)))))
    assert finding.fingerprint == "backup_missing/shop/daily@offsite"
    assert finding.severity is Severity.CRITICAL
    assert finding.message == (
        "the daily backup of shop that was due 2026-11-21 02:00 UTC is not in offsite: "
        "the newest is from 2026-11-21 01:00 UTC"
    )


@pytest.mark.parametrize(
    "other",
    [
        backup(HOUR, kind="weekly"),
        backup(HOUR, name="other"),
        backup(HOUR, is_damaged=True),
    ],
    ids=["another kind", "another database", "a damaged one"],
)
def test_no_other_backup_stands_for_it(other: BackupRecord) -> None:
    assert "backup_missing/shop/daily@offsite" in found(facts(store("offsite", backup(2 * DAY), other)))


def test_each_repository_must_have_it() -> None:
    plan = replace(NIGHTLY, repositories=("offsite", "local"))
    record = backup(timedelta(hours=9))
    known = facts(store("offsite", record), store("local", backup(2 * DAY)), plans=[plan])
    assert list(found(known)) == ["backup_missing/shop/daily@local"]


def test_the_word_of_a_run_does_not_replace_the_backup() -> None:
    known = facts(store("offsite", backup(2 * DAY)), runs=[run(timedelta(hours=9), "done")])
    assert list(found(known)) == ["backup_missing/shop/daily@offsite"]


def test_a_running_backup_is_late_and_not_well() -> None:
    known = facts(
        store("offsite", backup(2 * DAY)), runs=[run(timedelta(hours=10), "running", finished=None)]
    )
    finding = only(known)
    assert finding.severity is Severity.WARNING
    assert "is still at work" in finding.message
    hung = facts(store("offsite", backup(2 * DAY)), runs=[run(timedelta(hours=25), "running", finished=None)])
    assert only(hung).severity is Severity.CRITICAL


def test_a_first_backup_is_missing_only_after_it_was_due() -> None:
    other = backup(HOUR, kind="weekly")
    subject = "shop/daily@offsite"
    fresh = facts(
        store("offsite", other),
        known_since={subject: NOW - HOUR, "repository offsite": NOW, "database shop": NOW},
    )
    assert judge(fresh).findings == ()
    waited = facts(
        store("offsite", other),
        known_since={subject: NOW - DAY, "repository offsite": NOW, "database shop": NOW},
    )
    assert "there is none at all" in only(waited).message
    lost_state = facts(
        store("offsite", other, backup(2 * DAY)),
        known_since={subject: NOW, "repository offsite": NOW, "database shop": NOW},
    )
    assert only(lost_state).fingerprint == f"backup_missing/{subject}"


def test_without_any_backup_a_database_is_unprotected() -> None:
    known = facts(store("offsite"), plans=[replace(NIGHTLY, expected_since=None)])
    assert only(known).fingerprint == "unprotected/shop"
    imported = facts(
        store("offsite", backup(HOUR, kind="import")), plans=[replace(NIGHTLY, expected_since=None)]
    )
    assert only(imported).fingerprint == "unprotected/shop"
    unknown = facts(store("offsite", backups=None), plans=[])
    assert "unprotected/shop" in judge(unknown).undecided


def test_no_backup_at_all_is_told_once() -> None:
    """That the RPO is exceeded as well follows from it."""
    findings = found(facts(store("offsite"), database=DatabaseFacts(name="shop", rpo_s=60)))
    assert findings["rpo_exceeded/shop"].inhibited_by == ("unprotected/shop",)
    assert findings["unprotected/shop"].hint == "pgstow run nightly --database shop makes the first one now"


def test_a_repository_that_is_gone_is_not_to_be_made_anew_at_once() -> None:
    """Where a disk is not mounted, that would make the loss complete."""
    gone = store("offsite", backups=None, error=NoRepository("there is none", hint="pgstow init makes one"))
    hint = found(facts(gone))["repository_unreachable/offsite"].hint
    assert hint.startswith("look whether its disk is mounted")
    assert "pgstow init --repo offsite" in hint


def test_whether_it_is_missing_cannot_be_told_of_a_repository_that_cannot_be_read() -> None:
    error = StoreUnavailable("no route to offsite", hint="wait")
    evaluation = judge(facts(store("offsite", backups=None, error=error)))
    (finding,) = evaluation.findings
    assert finding.fingerprint == "repository_unreachable/offsite"
    assert "no route to offsite" in finding.message
    for fingerprint in (
        "backup_missing/shop/daily@offsite", "unprotected/shop", "size_grew/shop/daily", "size_shrank/shop/daily",
        "storage_low/disk of /srv", "snapshots_unreadable/offsite", "clock_skew/repository offsite",
        "catch_up_pending/shop/daily@offsite",
    ):  # fmt: skip
        assert evaluation.is_undecided(fingerprint), fingerprint


def test_snapshots_that_cannot_be_read_are_told() -> None:
    known = facts(store("offsite", backup(2 * DAY), unreadable=("snapshot 1 is damaged",)))
    assert found(known)["snapshots_unreadable/offsite"].extent == 1
    assert "it may be among them" in found(known)["backup_missing/shop/daily@offsite"].message


@pytest.mark.parametrize("outcome", ["failed", "abandoned", "interrupted"])
def test_a_failed_backup(outcome: str) -> None:
    finding = only(facts(runs=[run(HOUR, outcome, error="the disk is full"), run(DAY)]))
    assert finding.fingerprint == "backup_failed/shop/daily"
    assert finding.message == "the daily backup of shop failed on a: the disk is full"


@pytest.mark.parametrize("later", [run(HOUR, "done"), run(HOUR, "partial")])
def test_a_failure_is_over_with_the_next_success(later: RunRecord) -> None:
    assert judge(facts(runs=[later, run(DAY, "failed")])).findings == ()


@pytest.mark.parametrize("code", ["under_way", "repository_locked"])
def test_a_run_that_gave_way_and_is_tried_again_is_no_failure(code: str) -> None:
    """Two plans of one database that are due at once would else alarm somebody every night."""
    gave_way = run(HOUR, "interrupted", error_code=code)
    assert found(facts(runs=[gave_way, run(DAY)])) == {}
    assert found(facts(runs=[gave_way, run(DAY, "failed")])).keys() == {"backup_failed/shop/daily"}
    assert only(facts(runs=[replace(gave_way, outcome="failed"), run(DAY)])).rule == "backup_failed"


def test_a_run_that_is_yet_to_come_hides_no_failure() -> None:
    ahead = run(-30 * DAY, host="b")
    known = found(facts(runs=[run(HOUR, "failed")], runs_ahead=(ahead,)))
    assert known.keys() == {"backup_failed/shop/daily", "clock_skew/host b"}
    assert "1 run of b began in times to come, by up to 30 days" in known["clock_skew/host b"].message


def test_a_run_that_is_at_work_does_not_hide_the_failure_before_it() -> None:
    known = facts(runs=[run(HOUR, "running", finished=None), run(DAY, "failed")])
    assert only(known).fingerprint == "backup_failed/shop/daily"


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("store_unavailable", "upload_failed"),
        ("store_full", "upload_failed"),
        ("repository_locked", "destination_failed"),
    ],
)
def test_a_destination_that_failed(code: str, rule: str) -> None:
    results = (
        DestinationResult(repository="local", snapshot_id="1"),
        DestinationResult(repository="offsite", error_code=code, error="no"),
    )
    finding = only(facts(runs=[run(HOUR, "partial", destinations=results)]))
    assert finding.fingerprint == f"{rule}/shop/daily@offsite"
    assert finding.inhibited_by == ("repository_unreachable/offsite",)


def test_without_the_history_its_findings_are_undecided_and_that_is_told() -> None:
    evaluation = judge(facts(runs=None, runs_error=StateError("the disk is gone")))
    (finding,) = evaluation.findings
    assert finding.fingerprint == "history_unreadable/state"
    assert "the disk is gone" in finding.message
    for fingerprint in (
        "backup_failed/shop/daily", "upload_failed/shop/daily@offsite", "destination_failed/shop/daily@offsite",
        "reuse_alarm/shop/daily", "tables_shrank/shop/daily", "tables_grew/shop/daily", "retention_failed/tidy",
        "retention_missing/tidy", "verify_failed/check", "verify_missing/check", "verify_overdue/offsite", "clock_skew/host a",
    ):  # fmt: skip
        assert evaluation.is_undecided(fingerprint), fingerprint
    assert not evaluation.is_undecided("backup_missing/shop/daily@offsite")


def test_rpo() -> None:
    shop = DatabaseFacts(name="shop", rpo_s=8 * 3600)
    assert only(facts(database=shop)).fingerprint == "rpo_exceeded/shop"
    assert (
        "the changes of 9 hours would be lost of shop: its RPO is 8 hours"
        in only(facts(database=shop)).message
    )
    assert judge(facts(database=replace(shop, rpo_s=9 * 3600))).findings == ()
    old = backup(timedelta(hours=9))
    partial = store("offsite", old, backup(HOUR, is_partial=True))
    assert only(facts(partial, database=shop)).fingerprint == "rpo_exceeded/shop"
    assert judge(facts(partial, database=replace(shop, is_partial=True))).findings == ()
    imported = store("offsite", old, backup(HOUR, kind="import"))
    assert only(facts(imported, database=shop)).fingerprint == "rpo_exceeded/shop"
    critical = store("offsite", old, backup(HOUR, kind="critical", is_partial=True))
    assert only(facts(critical, database=replace(shop, is_partial=True))).fingerprint == "rpo_exceeded/shop"


def test_rpo_of_critical_tables_counts_backups_of_these_alone() -> None:
    shop = DatabaseFacts(name="shop", rpo_s=8 * 3600, critical=("public.ledger",))
    daily, critical = backup(timedelta(hours=9)), backup(HOUR, kind="critical", is_partial=True)
    held = {record.id: {"public.ledger": TableSize(rows=1, size_bytes=1)} for record in (daily, critical)}
    assert judge(facts(store("offsite", daily, critical), database=shop, contents=held)).findings == ()


def test_rpo_with_a_repository_that_cannot_be_read() -> None:
    shop = DatabaseFacts(name="shop", rpo_s=8 * 3600)
    away = store("local", backups=None)
    finding = found(facts(store("offsite", backup(timedelta(hours=9))), away, database=shop))[
        "rpo_exceeded/shop"
    ]
    assert "as far as the repositories can be read" in finding.message
    assert judge(facts(away, database=shop)).is_undecided("rpo_exceeded/shop")


def test_critical_tables() -> None:
    shop = DatabaseFacts(name="shop", critical=("public.ledger",), must_contain=("auth.users", "jobs.*"))
    record = backup(timedelta(hours=9))
    tables = {name: TableSize(rows=1, size_bytes=1) for name in ("public.ledger", "auth.users", "jobs.todo")}
    assert judge(facts(store("offsite", record), database=shop, contents={record.id: tables})).findings == ()
    fewer = {
        "public.ledger_old": TableSize(rows=1, size_bytes=1),
        "auth.users": TableSize(rows=0, size_bytes=0),
    }
    finding = only(facts(store("offsite", record), database=shop, contents={record.id: fewer}))
    assert finding.fingerprint == "critical_table_missing/shop/daily"
    assert finding.facts["tables"] == ["jobs.*", "public.ledger"]
    unknown = judge(facts(store("offsite", record), database=shop))
    assert [each.fingerprint for each in unknown.findings] == ["tables_unknown/shop/daily"]
    assert unknown.is_undecided("critical_table_missing/shop/daily")


def test_a_critical_backup_must_hold_only_the_critical_tables() -> None:
    shop = DatabaseFacts(name="shop", critical=("public.ledger",), must_contain=("auth.users",))
    plan = replace(NIGHTLY, kind="critical")
    record = backup(HOUR, kind="critical", is_partial=True)
    held = {record.id: {"public.ledger": TableSize(rows=1, size_bytes=1)}}
    assert judge(facts(store("offsite", record), plans=[plan], database=shop, contents=held)).findings == ()


def test_an_alarm_of_reuse() -> None:
    alarm = "reuse alarm: table t differs"
    finding = only(facts(runs=[run(HOUR, warnings=("something else", alarm))]))
    assert finding.fingerprint == "reuse_alarm/shop/daily"
    assert judge(facts(runs=[run(HOUR), run(DAY, warnings=(alarm,))])).findings == ()


# Sizes


def series(*sizes_mib: float | None, kind: str = "daily") -> RepositoryFacts:
    """Return a repository with one backup a day, the last of them nine hours old."""
    count = len(sizes_mib)
    records = [
        backup(
            timedelta(hours=9) + (count - 1 - number) * DAY,
            kind=kind,
            size_bytes=None if size is None else round(size * MIB),
        )
        for number, size in enumerate(sizes_mib)
    ]
    return store("offsite", *records)


def test_size_shrank_and_grew_by_more_than_a_fifth_of_the_median() -> None:
    assert judge(facts(series(100, 110, 90, 120))).findings == ()
    assert judge(facts(series(100, 110, 90, 80))).findings == ()
    shrank = only(facts(series(100, 110, 90, 79)))
    assert (shrank.rule, shrank.severity) == ("size_shrank", Severity.CRITICAL)
    assert "79.0 MiB, -21% of the usual 100.0 MiB" in shrank.message
    grew = only(facts(series(100, 110, 90, 121)))
    assert (grew.rule, grew.severity) == ("size_grew", Severity.WARNING)


def test_one_odd_backup_does_not_change_what_is_usual() -> None:
    assert judge(facts(series(100, 100, 100, 1, 100))).findings == ()
    assert judge(facts(series(100, 100, 100, 9000, 100))).findings == ()


def test_small_changes_and_short_histories_say_nothing() -> None:
    assert judge(facts(series(20, 20, 20, 11))).findings == ()
    assert only(facts(series(20, 20, 20, 10))).rule == "size_shrank"
    assert judge(facts(series(100, 100, 1))).findings == ()


def test_an_empty_backup_after_full_ones() -> None:
    assert only(facts(series(5000, 5000, 5000, 0))).rule == "size_shrank"


def test_kinds_and_partial_backups_are_not_compared() -> None:
    weekly = [backup(timedelta(hours=9) + n * DAY, kind="weekly", size_bytes=900 * MIB) for n in range(1, 5)]
    partial = [
        backup(timedelta(hours=9) + n * DAY, is_partial=True, id=f"p{n}", size_bytes=900 * MIB)
        for n in range(1, 5)
    ]
    assert judge(facts(store("offsite", backup(timedelta(hours=9)), *weekly, *partial))).findings == ()


def test_a_size_that_cannot_be_told() -> None:
    evaluation = judge(facts(series(100, 100, 100, None)))
    assert [each.rule for each in evaluation.findings] == ["size_unknown"]
    assert evaluation.is_undecided("size_shrank/shop/daily")


def tables(age: timedelta, **given: tuple[int, int]) -> RunRecord:
    return run(age, tables={f"public.{name}": sizes for name, sizes in given.items()})


def history(newest: RunRecord, **usual: tuple[int, int]) -> Facts:
    return facts(runs=[newest, *(tables(n * DAY, **usual) for n in range(1, 6))])


def test_a_truncate_that_cascaded() -> None:
    usual = {"orders": (5000, 50000), "items": (20000, 90000), "clients": (100, 5000), "tiny": (3, 90)}
    known = history(tables(HOUR, orders=(0, 0), clients=(100, 5000), tiny=(0, 0)), **usual)
    finding = only(known)
    assert finding.fingerprint == "tables_shrank/shop/daily"
    assert finding.severity is Severity.CRITICAL
    assert finding.extent == 2
    assert finding.message == (
        "2 tables of shop lost rows, 2 of them all: public.items (20,000 to 0 rows), public.orders (5,000 to 0 rows)"
    )


def test_tables_that_shrank_in_part() -> None:
    shrank = only(history(tables(HOUR, orders=(3999, 40000)), orders=(5000, 50000)))
    assert (shrank.rule, shrank.severity) == ("tables_shrank", Severity.WARNING)
    assert judge(history(tables(HOUR, orders=(4000, 40000)), orders=(5000, 50000))).findings == ()
    large = history(tables(HOUR, files=(10, 10 * MIB)), files=(20, 20 * MIB))
    assert only(large).rule == "tables_shrank"


def test_a_critical_table_has_no_floor() -> None:
    shop = DatabaseFacts(name="shop", critical=("public.ledger",))
    record = backup(timedelta(hours=9))
    held = {record.id: {"public.ledger": TableSize(rows=1, size_bytes=1)}}
    known = replace(history(tables(HOUR, ledger=(7, 70)), ledger=(10, 100)), databases=(shop,), contents=held)
    assert only(known).severity is Severity.CRITICAL


def test_tables_that_grew() -> None:
    finding = only(history(tables(HOUR, log=(9000, 40 * MIB)), log=(5000, 20 * MIB)))
    assert (finding.rule, finding.severity) == ("tables_grew", Severity.WARNING)
    assert judge(history(tables(HOUR, log=(9000, 29 * MIB)), log=(5000, 20 * MIB))).findings == ()


def test_a_table_that_is_emptied_regularly_is_usual() -> None:
    runs = [tables(n * DAY, queue=(0 if n % 2 == 0 else 9000, 0)) for n in range(1, 11)]
    assert judge(facts(runs=[tables(HOUR, queue=(0, 0)), *runs[1:]])).findings == ()


def test_a_new_table_is_no_change() -> None:
    assert judge(history(tables(HOUR, a=(1, 1), new=(10**6, 10**9)), a=(1, 1))).findings == ()


# Stores


def storage(free: int | None, total: int | None, full_in: timedelta | None = None) -> RepositoryFacts:
    at = None if full_in is None else NOW + full_in
    forecast = None if at is None else Forecast(at=at, earliest=at, latest=None)
    room = StorageFacts(where="disk of /srv", free_bytes=free, total_bytes=total, forecast_full=forecast)
    return store("offsite", backup(timedelta(hours=9)), storage=(room,))


def test_storage() -> None:
    assert judge(facts(storage(10 * MIB, 100 * MIB))).findings == ()
    low = only(facts(storage(9 * MIB, 100 * MIB)))
    assert (low.fingerprint, low.severity) == ("storage_low/disk of /srv", Severity.WARNING)
    assert only(facts(storage(2 * MIB, 100 * MIB))).severity is Severity.CRITICAL
    soon = only(facts(storage(90 * MIB, 100 * MIB, 13 * DAY)))
    assert "it is full on 2026-12-04" in soon.message
    assert judge(facts(storage(90 * MIB, 100 * MIB, 15 * DAY))).findings == ()
    assert judge(facts(storage(None, None))).findings == ()
    unknown = judge(
        facts(store("offsite", backup(timedelta(hours=9)), storage_error=StoreUnavailable("away")))
    )
    assert [each.rule for each in unknown.findings] == ["storage_unknown"]
    assert unknown.is_undecided("storage_low/disk of /srv")


def test_catching_up() -> None:
    plan = replace(NIGHTLY, repositories=("offsite", "local"), expected_since=None)
    old, new = backup(timedelta(hours=33)), backup(timedelta(hours=9))
    both = [store("offsite", old, new), store("local", old)]
    assert judge(facts(*both, plans=[plan])).findings == ()  # nine hours are not too long
    lacking = [store("offsite", backup(3 * DAY), old, new), store("local", backup(3 * DAY))]
    finding = only(facts(*lacking, plans=[plan]))
    assert finding.fingerprint == "catch_up_pending/shop/daily@local"
    assert "lacks 1 daily backup of shop" in finding.message
    newer = [
        store("offsite", old),
        store("local", new),
    ]  # what is older than the newest may have expired there
    assert judge(facts(*newer, plans=[plan])).findings == ()
    said = run(HOUR, warnings=("catch-up: local: the store is full",))
    elsewhere = run(HOUR / 2, plan="weekly")
    pending = only(facts(*newer, plans=[plan], runs=[elsewhere, said]))
    assert pending.fingerprint == "catch_up_pending/shop/daily@local"
    assert "could not be brought them: the store is full" in pending.message
    assert judge(facts(*newer, plans=[plan], runs=[run(HOUR / 2), said])).findings == ()
    assert judge(facts(*newer, plans=[plan], runs=[run(HOUR / 2, "failed"), said])).findings != ()
    unknown = judge(facts(*newer, plans=[plan], runs=None))
    assert unknown.is_undecided("catch_up_pending/shop/daily@local")
    away = judge(facts(store("offsite", backups=None), store("local", old), plans=[plan]))
    assert away.is_undecided("catch_up_pending/shop/daily@local")


def test_clocks() -> None:
    future = only(facts(store("offsite", backup(timedelta(hours=9)), backup(-HOUR))))
    assert future.fingerprint == "clock_skew/repository offsite"
    for text in ("clock: this machine's clock is off", "this machine's clock is off"):
        host = only(facts(runs=[run(HOUR, warnings=(text,))]))
        assert (host.fingerprint, host.message) == ("clock_skew/host a", "a: this machine's clock is off")
    assert judge(facts(runs=[run(HOUR), run(DAY, warnings=("clock: it was off",))])).findings == ()


# Jobs


@pytest.mark.parametrize("job", ["retention", "verify"])
def test_jobs_that_failed_or_did_not_run(job: str) -> None:
    plan = PlanFacts(
        plan="tidy",
        job=job,
        kind=job,
        database=None,
        repositories=("offsite",),
        expected_since=NOW - 6 * HOUR,
    )
    plans = [NIGHTLY, plan]

    def done(age: timedelta, outcome: str = "done") -> RunRecord:
        return run(age, outcome, plan="tidy", job=job, kind=job, database=None)

    assert judge(facts(runs=[done(HOUR)], plans=plans)).findings == ()
    assert only(facts(runs=[done(HOUR, "failed"), done(DAY)], plans=plans)).rule == f"{job}_failed"
    assert only(facts(runs=[done(HOUR, "partial"), done(DAY)], plans=plans)).rule == f"{job}_failed"
    interrupted = only(facts(runs=[done(HOUR, "interrupted"), done(DAY)], plans=plans))
    assert interrupted.rule == f"{job}_failed"
    assert "it was interrupted" in interrupted.message
    assert only(facts(runs=[done(DAY)], plans=plans)).rule == f"{job}_missing"
    assert {each.rule for each in judge(facts(runs=[done(DAY, "failed")], plans=plans)).findings} == {
        f"{job}_failed", f"{job}_missing",
    }  # fmt: skip
    fresh = facts(plans=plans)
    new = replace(fresh, known_since={**fresh.known_since, "plan tidy": NOW - HOUR})
    assert judge(new).findings == ()
    assert (
        only(replace(fresh, known_since={**fresh.known_since, "plan tidy": NOW - DAY})).rule
        == f"{job}_missing"
    )


def test_a_repository_that_is_not_verified() -> None:
    long_known = {"repository offsite": NOW - 36 * DAY, "database shop": NOW - DAY}
    assert only(facts(known_since=long_known)).fingerprint == "verify_overdue/offsite"
    checked = run(
        34 * DAY, plan=None, job="verify", kind="verify", database=None,
        destinations=(DestinationResult(repository="offsite"),),
    )  # fmt: skip
    assert judge(facts(runs=[checked], known_since=long_known)).findings == ()
    failed = replace(checked, outcome="failed")
    assert only(facts(runs=[failed], known_since=long_known)).rule == "verify_overdue"


# Telling


def channel(**given: object) -> TellingFacts:
    values: dict[str, object] = {"name": "slack", "known_since": NOW - DAY}
    one = ChannelFacts(**{**values, **given})  # type: ignore[arg-type]
    return TellingFacts(now=NOW, policy=AlertPolicy(), channels=(one,))


def test_channels_and_test_messages() -> None:
    assert judge(facts(), channel()).findings == ()
    (broken,) = judge(facts(), channel(failed=NOW - HOUR, error="refused")).findings
    assert (broken.fingerprint, broken.without_channel) == ("channel_failed/slack", "slack")
    assert judge(facts(), channel(failed=NOW - HOUR)).findings == ()  # it worked since
    (silent,) = judge(facts(), channel(known_since=NOW - 8 * DAY, canary_sent=NOW - 2 * DAY)).findings
    assert silent.fingerprint == "canary_unacknowledged/slack"
    assert "never acknowledged" in silent.message
    acknowledged = channel(known_since=NOW - 99 * DAY, canary_acknowledged=NOW - 6 * DAY)
    assert judge(facts(), acknowledged).findings == ()
    expired = channel(known_since=NOW - 99 * DAY, canary_acknowledged=NOW - 8 * DAY)
    assert [each.rule for each in judge(facts(), expired).findings] == ["canary_unacknowledged"]


def test_pings() -> None:
    telling = TellingFacts(
        now=NOW, policy=AlertPolicy(), pings=(PingFacts(plan="nightly", failed=NOW, error="no answer"),)
    )
    assert [each.fingerprint for each in judge(facts(), telling).findings] == ["ping_failed/nightly"]


def test_every_rule_is_described() -> None:
    page = PAGE.read_text()
    for rule in RULES:
        assert f"\n### {rule}\n" in page, rule
