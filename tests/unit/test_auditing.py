"""The seam between the use cases and the audit trail: what is recorded, when, and that it stands in nobody's way."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from pgstow.app import auditing
from pgstow.app.auditing import Access, Who, note_access, recording, recording_step, who_of
from pgstow.app.keys import add_key
from pgstow.app.marking import hold_backup
from pgstow.app.retention import RetentionRequest, apply_retention
from pgstow.audit.checking import verify
from pgstow.audit.entries import HAD_SECRETS, STORE_TLS, AuditEntry
from pgstow.audit.journal import Journal
from pgstow.audit.trail import FOLDER, read_trail
from pgstow.cli.application import COMMANDS
from pgstow.cli.audited import AUDITED, Audited, Exempt, audited
from pgstow.core.errors import Interrupted, StoreDenied, WrongPassword
from pgstow.core.progress import SilentProgress
from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.retention import RetentionPolicies, RetentionPolicy, RetentionRule
from pgstow.store.memory import MemoryStore
from pgstow.upkeep.prune_plan import PruneOptions
from support.dated_backups import backup_id, save_dated
from support.repositories import WatchedStore, init_repository
from support.trails import MOMENT

WHO = Who(host="db1", user="anna", origin="ssh from 192.0.2.7", facts={"sudo_user": "otto"})
SOURCES = Path(auditing.__file__).parent.parent


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "audit")


def access(journal: Journal, action: str = "list", **given: object) -> Access:
    return Access(action, who=WHO, journal=journal, clock=lambda: MOMENT, patience_s=5, **given)  # type: ignore[arg-type]  # passed on


def finished(one: Access, *repositories: Repository) -> Access:
    for repository in repositories:
        one.opened(repository, {})
    one.finish("done")
    one.settle()
    return one


def entries(repository: Repository) -> list[AuditEntry]:
    trail = read_trail(repository)
    assert verify(trail).is_intact
    return [each.entry for each in trail.entries]


def test_every_command_is_recorded_or_says_why_not() -> None:
    missing = [name for name in COMMANDS if name not in AUDITED]
    assert not missing, "say in cli/audited.py what these are in the audit trail"
    for what in AUDITED.values():
        assert what.because if isinstance(what, Exempt) else what.action


def test_a_command_that_nobody_thought_of_is_recorded() -> None:
    assert audited("brand new") == Audited(action="brand new")


def test_repositories_are_opened_where_that_is_noted() -> None:
    """Elsewhere an access could go unrecorded. What watches opens them without; so does what makes one for a moment."""
    allowed = {"app/opening.py", "app/observation.py", "app/doctor.py", "app/demo.py", "app/import_dump.py"}
    found = {
        str(path.relative_to(SOURCES))
        for folder in ("app", "cli")
        for path in (SOURCES / folder).rglob("*.py")
        if any(call in path.read_text() for call in ("Repository.open(", "Repository.init("))
    }
    assert found <= allowed


def test_an_entry_says_who_what_and_how_it_ended(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    one = access(journal, "restore", facts={"clean": "yes"})
    with recording(one):
        auditing.opened(repository, {})
        note_access(subjects=["b-1"], database_user="app", target="database shop", unknown=None)
    one.finish("failed", "target_refused")
    one.settle()
    (entry,) = entries(repository)
    assert (entry.host, entry.user, entry.database_user, entry.origin) == ("db1", "anna", "app", WHO.origin)
    assert (entry.action, entry.subjects, entry.result) == ("restore", ("b-1",), "failed")
    assert entry.error_code == "target_refused"
    assert entry.facts == {"sudo_user": "otto", "clean": "yes", "target": "database shop"}
    assert not one.warnings


def test_every_repository_has_its_entry(journal: Journal) -> None:
    both = [init_repository(MemoryStore()), init_repository(WatchedStore(MemoryStore()))]
    with patch.object(MemoryStore, "location", property(lambda store: f"memory {id(store)}")):
        finished(access(journal, "copy"), *both)
    assert [len(entries(each)) for each in both] == [1, 1]


def test_what_destroys_has_an_entry_before_it_begins(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    one = access(journal, "prune", is_destructive=True)
    one.opened(repository, {})
    assert [(each.action, each.result) for each in entries(repository)] == [("prune", "begun")]
    one.finish("done")
    one.settle()
    assert [each.result for each in entries(repository)] == ["begun", "done"]


def test_a_changed_settings_file_is_an_entry_once(journal: Journal, tmp_path: Path) -> None:
    repository = init_repository(MemoryStore())
    for digest in ("one", "one", "two"):
        one = access(journal, "backup")
        one.used_settings(tmp_path / "pgstow.yaml", digest)
        finished(one, repository)
    found = entries(repository)
    assert [each.action for each in found] == ["config", "backup", "backup", "config", "backup"]
    assert found[3].facts["sha256"] == "two"
    assert found[3].facts["before"] == "one"


def test_a_password_among_the_arguments_is_told(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    one = access(journal)
    one.had_secrets()
    finished(one, repository)
    finished(access(journal), repository)
    assert [HAD_SECRETS in each.facts for each in entries(repository)] == [True, False]


def test_a_backup_tells_which_tls_its_store_negotiated(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    for action in ("backup", "list"):
        one = access(journal, action)
        with patch.object(auditing, "negotiated_tls", return_value="TLSv1.3") as asked:
            one.opened(repository, {})
            (target,) = one._targets.values()
            target.has_ended.wait()  # nobody else waits for that
            one.finish("done")
            one.settle()
        assert asked.called is (action == "backup")
    assert [each.facts.get(STORE_TLS) for each in entries(repository)] == ["TLSv1.3", None]


def test_a_store_that_does_not_tell_its_tls_stands_in_nobodys_way(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    with patch.object(auditing, "negotiated_tls", side_effect=StoreDenied("no")):
        one = finished(access(journal, "backup"), repository)
    assert [each.facts for each in entries(repository)] == [{"sudo_user": "otto"}]
    assert not one.warnings


def test_a_repository_that_did_not_open_hears_of_it_later(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    one = access(journal, "show")
    with recording(one), pytest.raises(WrongPassword), auditing.opening(repository.store.location):
        raise WrongPassword("no")
    one.finish("failed", "wrong_password")
    one.settle()
    assert entries(repository) == []
    finished(access(journal, "list"), repository)
    finished(access(journal, "list"), repository)
    tried, *others = entries(repository)
    assert (tried.action, tried.result, tried.error_code) == ("show", "failed", "wrong_password")
    assert tried.facts["happened"] == MOMENT.isoformat()
    assert [each.action for each in others] == ["list", "list"]


def test_a_read_only_store_stands_in_nobodys_way(journal: Journal) -> None:
    store = WatchedStore()
    repository = init_repository(store)

    def refuse(method: str, name: str) -> None:
        if method in ("put", "list") and name.startswith(FOLDER):
            raise StoreDenied("read-only")

    store.before = refuse
    one = finished(access(journal, "restore"), repository)
    assert one.warnings == ["the audit entry waits on this machine: read-only"]
    store.before = lambda method, name: None
    assert not finished(access(journal), repository).warnings
    assert [each.action for each in entries(repository)] == ["restore", "list"]


def test_a_store_that_hangs_is_not_waited_for(journal: Journal) -> None:
    store = WatchedStore()
    repository = init_repository(store)
    goes_on = threading.Event()

    def hang(method: str, name: str) -> None:
        if method == "put" and name.startswith(FOLDER):
            goes_on.wait(60)

    store.before = hang
    one = Access("restore", who=WHO, journal=journal, clock=lambda: MOMENT, patience_s=0.2)
    finished(one, repository)
    assert "waits here for the next command" in one.warnings[0]
    goes_on.set()


def test_without_any_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    repository = init_repository(MemoryStore())
    one = finished(access(Journal(tmp_path / "file" / "audit")), repository)
    assert "cannot be kept" in one.warnings[0]
    assert [each.action for each in entries(repository)] == ["list"]


def test_without_state_folder_and_with_a_read_only_store(tmp_path: Path) -> None:
    """The entry is lost, and that is said."""
    (tmp_path / "file").touch()
    store = WatchedStore()
    repository = init_repository(store)

    def refuse(method: str, name: str) -> None:
        if method == "put" and name.startswith(FOLDER):
            raise StoreDenied("read-only")

    store.before = refuse
    one = finished(access(Journal(tmp_path / "file" / "audit")), repository)
    assert any("not in the audit trail" in warning for warning in one.warnings)


def test_a_bug_in_the_trail_stands_in_nobodys_way(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    with patch.object(auditing, "write", side_effect=ZeroDivisionError("bug")):
        one = finished(access(journal), repository)
    assert "ZeroDivisionError" in one.warnings[0]


def interrupted_step(repository: Repository) -> None:
    with recording_step("retention apply", is_destructive=True):
        auditing.opened(repository, {})
        raise Interrupted("stop")


def test_steps_have_entries_of_their_own(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    outer = access(journal, "run")
    with recording(outer):
        with recording_step("backup", subjects=["shop"], plan="daily"):
            auditing.opened(repository, {})
        with recording_step("backup", subjects=["crm"]) as step:
            auditing.opened(repository, {})
            assert step is not None
            step.ends("failed", "connection_failed")
        with pytest.raises(Interrupted):
            interrupted_step(repository)
    finished(outer)
    found = [(each.action, each.subjects, each.result, each.error_code) for each in entries(repository)]
    assert found == [
        ("backup", ("shop",), "done", None),
        ("backup", ("crm",), "failed", "connection_failed"),
        ("retention apply", (), "begun", None),
        ("retention apply", (), "interrupted", "interrupted"),
    ]


def test_steps_of_nobody_are_not_recorded() -> None:
    with recording_step("backup") as step:
        assert step is None
        note_access(subjects=["nobody hears it"])


def test_where_somebody_came_from() -> None:
    who = who_of(
        {"SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 22", "SUDO_USER": "otto", "INVOCATION_ID": "1"}
    )
    assert (who.origin or "").startswith("ssh from 192.0.2.7, ")
    assert "systemd" in (who.origin or "")
    assert who.facts == {"sudo_user": "otto"}
    assert "kubernetes" in (who_of({"KUBERNETES_SERVICE_HOST": "192.0.2.1"}).origin or "")


def test_long_facts_are_cut(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    one = access(journal)
    one.says(facts={"reason": "x" * 9000}, subjects=[str(number) for number in range(900)])
    finished(one, repository)
    (entry,) = entries(repository)
    assert len(entry.facts["reason"]) == 500
    assert len(entry.subjects) == 200


def test_secrets_that_are_known_by_then_are_blanked(journal: Journal) -> None:
    """Also one that is learnt after it was noted, and one that the longest fact would cut in two."""
    repository = init_repository(MemoryStore())
    secrets: list[str] = []

    def scrub(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    who = replace(WHO, origin="hunter2", facts={"sudo_user": "hunter2"})
    one = Access(
        "export",
        who=who,
        journal=journal,
        clock=lambda: MOMENT,
        facts={"output": "s3://k:hunter2@b"},
        scrub=scrub,
    )
    one.says(subjects=["hunter2"], facts={"reason": "x" * 497 + "hunter2"})
    secrets.append("hunter2")
    one.tried("elsewhere")
    finished(one, repository)
    assert "hunter" not in read_trail(repository).entries[0].raw.decode()
    assert read_trail(repository).entries[0].entry.facts["reason"] == "x" * 497 + "***"
    ((_, attempt),) = journal.attempts("elsewhere")
    assert b"hunter" not in attempt
    with recording(one), recording_step("backup"):
        note_access(reason="hunter2")
        auditing.opened(repository, {})
    assert entries(repository)[1].facts["reason"] == "***"


def test_who_wants_it_to_end_is_not_kept_waiting(journal: Journal) -> None:
    store = WatchedStore()
    repository = init_repository(store)
    goes_on = threading.Event()

    def hang(method: str, name: str) -> None:
        if name.startswith(FOLDER):
            goes_on.wait(60)

    store.before = hang
    one = Access("restore", who=WHO, journal=journal, clock=lambda: MOMENT, patience_s=3600)
    one.opened(repository, {})
    one.hurry()
    one.finish("interrupted")
    one.settle()
    goes_on.set()
    assert "waits here for the next command" in one.warnings[0]


def test_a_slow_store_and_nothing_kept_is_no_promise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = WatchedStore()
    repository = init_repository(store)
    goes_on = threading.Event()

    def hang(method: str, name: str) -> None:
        if method == "put" and name.startswith(FOLDER):
            goes_on.wait(60)

    store.before = hang
    journal = Journal(tmp_path / "file" / "audit")
    one = Access("restore", who=WHO, journal=journal, clock=lambda: MOMENT, patience_s=0.2)
    finished(one, repository)
    goes_on.set()
    assert "may not be in the audit trail" in one.warnings[-1]
    assert not any("waits here" in warning for warning in one.warnings)


def test_a_day_later_an_anchor(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    for days in (0, 0, 1):
        moment = MOMENT + timedelta(days=days)
        one = Access("list", who=WHO, journal=journal, clock=lambda now=moment: now)  # type: ignore[misc]  # mypy bug
        finished(one, repository)
    assert len(read_trail(repository).anchors) == 2


def test_entries_name_what_was_held_removed_and_added(journal: Journal) -> None:
    repository = init_repository(MemoryStore())
    now = datetime.now(UTC)
    for number, days in ((1, 90), (2, 80), (3, 1)):
        save_dated(repository, number, now - timedelta(days=days))
    policy = RetentionPolicy(rules={"daily": RetentionRule(days=30)}, promotes=False)
    request = RetentionRequest(policy=RetentionPolicies(default=policy))
    progress = SilentProgress()
    for action, work in (
        (
            "hold",
            lambda: hold_backup(repository, backup_id(1), progress, by="anna", reason="case 7", until=None),
        ),
        ("keys add", lambda: add_key(repository, Secret("second"), hostname="h", username="u")),
        (
            "retention apply",
            lambda: apply_retention(repository, request, progress, planned=None, prune=PruneOptions()),
        ),
    ):
        one = access(journal, action)
        with recording(one):
            work()
        finished(one, repository)
    held, added, expired = entries(repository)  # what the prune left alone
    assert held.subjects == (backup_id(1), "shop")
    assert len(added.facts["added_key"]) == 64
    assert expired.subjects == (backup_id(2),)
    assert expired.facts["expired"] == "1"


def test_an_interruption_while_it_is_recorded_is_not_lost(journal: Journal) -> None:
    one = access(journal, "prune", is_destructive=True)
    with patch.object(auditing, "write", side_effect=Interrupted("stop")), pytest.raises(Interrupted):
        one.opened(init_repository(MemoryStore()), {})
