"""From findings to alerts: examples of each transition, and a model that tries them in any order."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pgstow.monitor.alerts import Notification, Why, advance, is_flapping
from pgstow.monitor.findings import Evaluation, Finding, Severity, id_of
from pgstow.monitor.messages import address, words
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.monitor.subjects import names_in
from pgstow.state.alerts import Alert, Silence

START = datetime(2026, 11, 21, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST = Contact(name="on call", channels=("slack", "mail"))
SECOND = Contact(name="head", channels=("mail", "sms"), after_s=1800, phone="+30 1")
POLICY = AlertPolicy(contacts=(FIRST, SECOND), repeat_s=6 * 3600)


def finding(rule: str = "backup_missing", subject: str = "shop/daily@offsite", **given: object) -> Finding:
    words = {"severity": Severity.CRITICAL, "message": "it is not there", "hint": "make it"}
    return Finding(rule=rule, subject=subject, **{**words, **given})  # type: ignore[arg-type]


class Watch:
    """Alerts over time, and everything that was told."""

    def __init__(self, policy: AlertPolicy = POLICY) -> None:
        self.policy = policy
        self.now = START
        self.alerts: dict[str, Alert] = {}
        self.silences: list[Silence] = []
        self.watched: frozenset[str] | None = None
        self.told: list[tuple[datetime, Notification]] = []

    def look(
        self, *findings: Finding, after: timedelta = MINUTE, undecided: tuple[str, ...] = ()
    ) -> list[str]:
        """Look once, after a while; return who was told why."""
        self.now += after
        step = advance(
            self.alerts,
            Evaluation(findings=findings, undecided=frozenset(undecided), watched=self.watched),
            silences=self.silences,
            policy=self.policy,
            now=self.now,
        )
        self.alerts = {alert.fingerprint: alert for alert in step.alerts}
        self.told += [(self.now, each) for each in step.notifications]
        return [f"{each.contact}: {each.why}" for each in step.notifications]

    def acknowledge(self, fingerprint: str) -> None:
        self.alerts[fingerprint] = replace(
            self.alerts[fingerprint], acknowledged=self.now, acknowledged_by="me"
        )

    def silence(self, pattern: str, lasting: timedelta) -> None:
        self.silences.append(
            Silence(id="1", pattern=pattern, until=self.now + lasting, made=self.now, by="me")
        )


def test_told_once_then_escalated_then_repeated_then_over() -> None:
    watch = Watch()
    assert watch.look(finding()) == ["on call: opened"]
    assert watch.look(finding()) == []
    assert watch.look(finding(), after=31 * MINUTE) == ["head: escalated"]
    assert watch.look(finding(), after=timedelta(hours=5)) == []
    assert watch.look(finding(), after=timedelta(minutes=29)) == ["on call: reminder"]
    assert watch.look() == ["on call: recovered", "head: recovered"]
    assert watch.look() == []
    assert watch.look(after=timedelta(days=8)) == []
    assert watch.alerts == {}


def test_a_passing_failure_of_a_store_is_not_told() -> None:
    watch = Watch()
    down = finding("repository_unreachable", "offsite")
    assert watch.look(down) == []
    assert watch.look() == []
    assert watch.alerts == {}
    assert watch.look(down) == []
    assert watch.look(down) == ["on call: opened"]


def test_seen_for_long_counts_as_seen_often() -> None:
    watch = Watch()
    down = finding("repository_unreachable", "offsite")
    watch.look(down)
    pending = watch.alerts[down.fingerprint]
    watch.alerts[down.fingerprint] = replace(pending, sightings=-5)
    assert watch.look(down, after=timedelta(minutes=4)) == []
    assert watch.look(down, after=timedelta(minutes=1)) == ["on call: opened"]


def test_what_hovers_around_a_threshold_closes_after_two_clean_looks() -> None:
    watch = Watch()
    low = finding("storage_low", "disk of /srv")
    assert watch.look(low) == ["on call: opened"]
    assert watch.look() == []
    assert watch.look(low) == []
    assert watch.look() == []
    assert watch.look() == ["on call: recovered"]


def test_what_cannot_be_told_neither_ends_nor_begins_anything() -> None:
    watch = Watch()
    watch.look(finding())
    for undecided in ("backup_missing/shop/daily@offsite", "backup_missing/*", "backup_missing/shop/*"):
        assert watch.look(undecided=(undecided,)) == []
        assert watch.alerts[finding().fingerprint].is_open
    assert watch.look(undecided=("backup_missing/other/*",)) == ["on call: recovered"]


def test_acknowledged_alerts_are_neither_escalated_nor_repeated_but_end_audibly() -> None:
    watch = Watch()
    watch.look(finding())
    watch.acknowledge(finding().fingerprint)
    assert watch.look(finding(), after=timedelta(hours=1)) == []
    assert watch.look(finding(), after=timedelta(days=3)) == []
    assert watch.look() == ["on call: recovered"]


@pytest.mark.parametrize("worse", [{"extent": 2}, {"severity": Severity.CRITICAL}])
def test_what_becomes_worse_is_told_although_acknowledged(worse: dict[str, object]) -> None:
    watch = Watch()
    mild = finding(severity=Severity.WARNING)
    watch.look(mild)
    watch.acknowledge(mild.fingerprint)
    assert watch.look(replace(mild, **worse)) == ["on call: worse"]  # type: ignore[arg-type]
    assert watch.look(replace(mild, **worse)) == []  # type: ignore[arg-type]
    assert watch.look(mild) == []
    assert watch.look(replace(mild, **worse)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pattern", ["backup_missing", "backup_missing/shop/daily@offsite", "*", "backup_missing/shop"]
)
def test_a_silence_expires_and_then_it_is_told(pattern: str) -> None:
    watch = Watch()
    watch.silence(pattern, timedelta(hours=1))
    assert watch.look(finding()) == []
    assert watch.look(finding(), after=50 * MINUTE) == []
    assert watch.look(finding(), after=10 * MINUTE) == ["on call: opened"]
    assert watch.look(finding(), after=31 * MINUTE) == ["head: escalated"]


def test_a_silence_of_what_was_told_is_followed_by_a_reminder_and_escalation() -> None:
    watch = Watch()
    watch.look(finding())
    watch.look(finding(), after=30 * MINUTE)
    watch.silence("backup_missing", timedelta(hours=1))
    assert watch.look(finding(), after=2 * MINUTE) == []
    assert watch.look(finding(), after=58 * MINUTE) == ["on call: reminder"]
    assert watch.look(finding(), after=30 * MINUTE) == ["head: reminder"]
    assert watch.look(finding()) == []


def test_the_end_is_told_during_a_silence() -> None:
    watch = Watch()
    watch.look(finding())
    watch.silence("*", timedelta(hours=1))
    assert watch.look(finding()) == []
    assert watch.look() == ["on call: recovered"]


def test_worse_than_what_was_told_last() -> None:
    watch = Watch()
    watch.look(finding(extent=3))
    assert watch.look(finding(extent=1)) == []
    assert watch.look(finding(extent=3)) == []
    assert watch.look(finding(extent=1), after=timedelta(hours=7)) == ["on call: reminder", "head: escalated"]
    assert watch.look(finding(extent=3)) == ["on call: worse", "head: worse"]


def test_a_silence_does_not_cover_what_only_begins_alike() -> None:
    watch = Watch()
    watch.silence("backup_missing/shop/daily@off", timedelta(hours=1))
    assert watch.look(finding()) == ["on call: opened"]


def test_consequences_are_told_when_their_cause_has_ended() -> None:
    watch = Watch()
    cause = finding("repository_unreachable", "offsite")
    upload = finding("upload_failed", "shop/daily@offsite", inhibited_by=(cause.fingerprint,))
    assert watch.look(cause, upload) == []  # the cause may be about to become an alert
    assert watch.look(cause, upload) == ["on call: opened"]
    assert watch.told[-1][1].alert.rule == "repository_unreachable"
    assert watch.alerts[upload.fingerprint].is_inhibited
    assert watch.look(upload) == ["on call: recovered", "on call: opened"]
    assert watch.told[-1][1].alert.rule == "upload_failed"


def test_a_cause_that_never_becomes_an_alert_holds_nothing_back() -> None:
    watch = Watch()
    cause = finding("repository_unreachable", "offsite")
    upload = finding("upload_failed", "shop/daily@offsite", inhibited_by=(cause.fingerprint,))
    assert watch.look(cause, upload) == []
    assert watch.look(upload) == ["on call: opened"]


def test_a_missing_backup_is_not_held_back_by_anything() -> None:
    watch = Watch()
    cause = finding("repository_unreachable", "offsite")
    watch.look(cause)
    assert watch.look(cause, finding()) == ["on call: opened", "on call: opened"]


def test_what_opens_again_and_again_stays_open_until_it_is_quiet() -> None:
    watch = Watch()
    heard = [why for _ in range(100) for why in (*watch.look(finding()), *watch.look())]
    assert heard == ["on call: opened", "on call: recovered"] * 2 + ["on call: opened", "head: escalated"]
    assert is_flapping(watch.alerts[finding().fingerprint], watch.now)
    assert watch.look(after=58 * MINUTE) == []
    assert watch.look() == []
    assert watch.look() == ["on call: recovered", "head: recovered"]


def test_looking_twice_at_one_moment_counts_once() -> None:
    watch = Watch()
    down = finding("repository_unreachable", "offsite")
    watch.look(down)
    assert watch.look(down, after=timedelta()) == []
    low = finding("storage_low", "disk of /srv")
    watch.look(low)
    watch.look()
    assert watch.look(after=timedelta()) == []
    assert watch.alerts[low.fingerprint].is_open


def test_a_clock_that_was_ahead_keeps_nothing_open_and_nobody_uninformed() -> None:
    """What was judged and told in a year to come would else neither end nor be told again before."""
    watch, year = Watch(), timedelta(days=365)
    assert watch.look(finding(), after=year) == ["on call: opened"]
    assert watch.look(finding(), after=-year) == []
    assert watch.look(finding(), after=30 * MINUTE) == ["head: escalated"]
    assert watch.look(finding(), after=timedelta(hours=6)) == ["on call: reminder", "head: reminder"]
    assert watch.look() == ["on call: recovered", "head: recovered"]


@pytest.mark.parametrize("without", ["repository offsite", "planned shop/daily@offsite"])
def test_who_does_not_look_at_something_ends_no_alert_of_it(without: str) -> None:
    """Of two hosts one has settings without the repository, or without the plan; each looks in turn."""
    watch = Watch()
    everything = frozenset({"database shop", "repository offsite", "planned shop/daily@offsite"})
    less = everything - {without}
    heard = []
    for _ in range(100):
        watch.watched = everything
        heard += watch.look(finding())
        watch.watched = less
        heard += watch.look()
    assert heard == ["on call: opened", "head: escalated"]
    watch.watched = everything
    assert watch.look() == ["on call: recovered", "head: recovered"]


def test_what_is_in_nobodys_settings_any_more_is_dropped_and_not_over() -> None:
    watch = Watch()
    watch.look(finding())
    watch.watched = frozenset({"database shop"})
    watch.acknowledge(finding().fingerprint)
    assert watch.look(after=59 * MINUTE) == []
    assert watch.look() == ["on call: dropped"]
    ((_, notification),) = watch.told[-1:]
    (said,) = words([notification], POLICY)
    assert said.title == "[pgstow] NOT WATCHED: backup missing shop/daily@offsite"
    assert "Whether it is over is unknown." in said.body
    assert not said.is_critical
    (said,) = words([notification] * 4, POLICY)
    assert said.title == "[pgstow] 4 not watched any more"


@pytest.mark.parametrize(
    ("fingerprint", "names"),
    [
        (
            "backup_missing/shop/daily@offsite",
            ("database shop", "planned shop/daily@offsite", "repository offsite"),
        ),
        ("backup_failed/shop/daily", ("database shop",)),
        ("upload_failed/shop/daily@offsite", ("database shop", "repository offsite")),
        ("drill_failed/shop/daily@offsite", ("database shop", "repository offsite")),
        ("drill_failed/shop/rehearsal", ("database shop", "plan rehearsal")),
        ("drill_missing/shop/rehearsal", ("database shop", "plan rehearsal")),
        ("drill_missing/shop", ("database shop",)),
        ("table_rpo_exceeded/shop/public.a@b", ("database shop",)),
        ("unprotected/shop", ("database shop",)),
        ("table_rpo_exceeded/shop/public.a", ("database shop",)),
        ("repository_unreachable/offsite", ("repository offsite",)),
        ("storage_low/repository offsite", ("repository offsite",)),
        ("storage_low/disk of /srv", ()),
        ("clock_skew/host a", ()),
        ("history_unreadable/state", ()),
        ("verify_missing/check", ("plan check",)),
        ("canary_unacknowledged/slack", ("channel slack",)),
    ],
)
def test_what_an_alert_is_about(fingerprint: str, names: tuple[str, ...]) -> None:
    assert names_in(*fingerprint.split("/", 1)) == names


def test_what_is_wrong_with_a_channel_goes_over_the_others() -> None:
    watch = Watch()
    broken = finding("channel_failed", "mail", without_channel="mail")
    watch.look(broken, finding())
    told = address([each for _, each in watch.told], POLICY, ("slack", "mail", "sms"))
    rules = {channel: sorted(each.alert.rule for each in who) for channel, who in told.items()}
    assert rules == {
        "slack": ["backup_missing", "channel_failed"],
        "sms": ["channel_failed"],
        "mail": ["backup_missing"],
    }


def test_a_channel_that_two_share_carries_it_once() -> None:
    watch = Watch(AlertPolicy(contacts=(FIRST, replace(SECOND, after_s=0))))
    assert watch.look(finding()) == ["on call: opened", "head: opened"]
    told = address([each for _, each in watch.told], watch.policy, ("slack", "mail", "sms"))
    assert {channel: len(who) for channel, who in told.items()} == {"slack": 1, "mail": 1, "sms": 1}


def test_words_say_what_since_when_what_to_do_and_whom_to_call() -> None:
    watch = Watch()
    watch.look(finding(since=START - timedelta(hours=2)))
    (said,) = words([watch.told[0][1]], POLICY)
    assert said.title == "[pgstow] CRITICAL: backup missing shop/daily@offsite"
    known = id_of(finding().fingerprint)
    assert said.body.split("\n") == [
        "Critical: it is not there",
        "Since: 2026-11-21 01:00 UTC",
        "What to do: make it",
        f"Acknowledge: pgstow alerts ack {known}   (backup_missing/shop/daily@offsite; see docs/alerts.md, backup_missing)",
        "",
        "Contacts: on call; head, +30 1 (told after 30 minutes)",
    ]
    watch.look(after=timedelta(hours=2))
    (over,) = words([watch.told[-1][1]], POLICY)
    assert over.title == "[pgstow] OVER: backup missing shop/daily@offsite"
    assert over.body == ("Over: backup missing shop/daily@offsite, after 2 hours.\nIt was: it is not there")


def test_many_at_once_are_one_message() -> None:
    watch = Watch()
    watch.look(finding("size_grew", "old", severity=Severity.WARNING))
    watch.told.clear()
    watch.look(*(finding(subject=f"db{n}/daily@offsite") for n in range(30)))
    (said,) = words([each for _, each in watch.told if each.contact == "on call"], POLICY)
    assert said.title == "[pgstow] 30 alerts, 1 over"
    assert said.is_critical
    assert said.body.count("Acknowledge:") == 30
    assert said.body.count("Contacts:") == 1
    assert len(said.fingerprints) == 31


# Any order of events

_RULES = ("backup_missing", "repository_unreachable", "storage_low", "upload_failed")


class Machine(RuleBasedStateMachine):
    """Findings come and go, people acknowledge and silence, time passes."""

    @initialize()
    def begin(self) -> None:
        self.watch = Watch()
        self.wrong: dict[str, Finding] = {}
        self.heard: dict[tuple[str, str], list[tuple[datetime, Why]]] = {}
        self.acknowledged: dict[str, datetime] = {}
        self.free_since: dict[str, datetime] = {}

    @rule(which=st.sampled_from(_RULES), critical=st.booleans(), extent=st.integers(1, 3))
    def goes_wrong(self, which: str, *, critical: bool, extent: int) -> None:
        causes = ("repository_unreachable/x",) if which == "upload_failed" else ()
        severity = Severity.CRITICAL if critical else Severity.WARNING
        self.wrong[which] = finding(which, "x", severity=severity, extent=extent, inhibited_by=causes)

    @rule(which=st.sampled_from(_RULES))
    def is_mended(self, which: str) -> None:
        self.wrong.pop(which, None)

    @rule(which=st.sampled_from(_RULES))
    def is_acknowledged(self, which: str) -> None:
        alert = self.watch.alerts.get(f"{which}/x")
        if alert is not None and alert.is_open:
            self.watch.acknowledge(alert.fingerprint)
            self.acknowledged[alert.fingerprint] = self.watch.now

    @rule(which=st.sampled_from((*_RULES, "*")), minutes=st.integers(1, 120))
    def is_silenced(self, which: str, minutes: int) -> None:
        self.watch.silence(which, timedelta(minutes=minutes))

    @rule(
        minutes=st.sampled_from((1, 1, 1, 5, 31, 120, 361, 2000)),
        undecided=st.sampled_from(((), (), (), ("storage_low/*",), ("backup_missing/x",))),
    )
    def look(self, minutes: int, undecided: tuple[str, ...]) -> None:
        before = dict(self.watch.alerts)
        count = len(self.watch.told)
        findings = [each for each in self.wrong.values() if f"{each.fingerprint}" not in undecided]
        findings = [each for each in findings if f"{each.rule}/*" not in undecided]
        self.watch.look(*findings, after=timedelta(minutes=minutes), undecided=undecided)
        for at, each in self.watch.told[count:]:
            self._judge(at, each, before.get(each.alert.fingerprint))
        for fingerprint, alert in self.watch.alerts.items():
            silenced = any(silence.covers(fingerprint, self.watch.now) for silence in self.watch.silences)
            if alert.is_open and not silenced and not alert.is_inhibited:
                self.free_since.setdefault(fingerprint, self.watch.now)
            else:
                self.free_since.pop(fingerprint, None)

    def _judge(self, at: datetime, told: Notification, before: Alert | None) -> None:
        alert, why = told.alert, told.why
        history = self.heard.setdefault((told.contact, alert.fingerprint), [])
        if why is Why.RECOVERED:
            assert history, "the end of what nobody heard of"
            history.clear()
            return
        assert not any(silence.covers(alert.fingerprint, at) for silence in self.watch.silences)
        assert not any(
            (cause := self.watch.alerts.get(each)) and cause.closed is None for each in alert.inhibited_by
        ), "told although its cause is known"
        worse = before is not None and (
            alert.extent > before.told_extent
            or (alert.severity, before.told_severity) == ("critical", "warning")
        )
        if before is not None and before.is_open and before.acknowledged is not None:
            assert worse, "told although acknowledged"
        if history and why is not Why.WORSE:
            ended = any(history[-1][0] < silence.until <= at for silence in self.watch.silences)
            assert ended or (at - history[-1][0]).total_seconds() >= POLICY.repeat_s, "told twice"
        if why is Why.WORSE:
            assert worse, "said to be worse"
        history.append((at, why))

    @invariant()
    def whoever_was_told_hears_of_the_end(self) -> None:
        if not hasattr(self, "heard"):
            return
        for (_, fingerprint), history in self.heard.items():
            if history:
                assert self.watch.alerts[fingerprint].is_open, "closed in silence"

    @invariant()
    def what_is_open_and_may_be_told_is_told(self) -> None:
        if not hasattr(self, "free_since"):
            return
        for fingerprint, since in self.free_since.items():
            alert = self.watch.alerts[fingerprint]
            if alert.acknowledged is None:
                assert self.heard.get((FIRST.name, fingerprint)), "open, and nobody knows"
                if (self.watch.now - since).total_seconds() >= SECOND.after_s:
                    assert self.heard.get((SECOND.name, fingerprint)), "not escalated"


TestAnyOrder = Machine.TestCase
TestAnyOrder.settings = settings(
    max_examples=int(os.environ.get("PGSTOW_TEST_EXAMPLES", "60")), stateful_step_count=40, deadline=None
)
