"""Alerts in the state database, and the whole way from facts to people, with SQLite and with PostgreSQL."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from pgstow.app.alert_source import StateAlerts
from pgstow.app.alert_watch import AlertWatch
from pgstow.app.alerts import (
    CheckReport,
    acknowledge,
    check_alerts,
    deliver,
    open_channels,
    send_canaries,
    silence,
)  # fmt: skip
from pgstow.app.observation import History
from pgstow.app.pings import ping_run, plan_pings
from pgstow.config.references import Reference
from pgstow.config.settings import (
    ChannelSettings,
    CriticalTable,
    DatabaseSettings,
    PlanSettings,
    RepositorySettings,
    Settings,
)  # fmt: skip
from pgstow.core.errors import StateError, UsageError
from pgstow.core.secrets import Secret
from pgstow.jobs.schedule import Schedule
from pgstow.monitor.findings import id_of
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.state.alerts import Alert, AlertBook, Message, Silence
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.runs import RunRecord, Runs
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.telling import web_server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"
DatabaseFactory = Callable[..., ConnInfo]


@pytest.fixture(params=["sqlite", "postgresql"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], StateDatabase]]:
    """Open the same state database again and again, as the hosts of a fleet do."""
    url = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("pg15")
        source: ConnInfo = request.getfixturevalue("database")(cluster)
        given = source.params
        url = Secret(
            f"postgresql://{given['user']}@/{given['dbname']}?host={given['host']}&port={given['port']}"
        )
    with contextlib.ExitStack() as opened:

        def open_one() -> StateDatabase:
            state = open_state(url, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})
            opened.callback(state.close)
            return state

        yield open_one


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    with contextlib.closing(open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})) as opened:
        yield opened


def message(number: int = 0, channel: str = "slack") -> Message:
    return Message(
        id=f"m{number:03}", channel=channel, title="t", body="b", is_critical=True, made=NOW, next_attempt=NOW
    )


def alert(name: str = "backup_missing/x", **given: object) -> Alert:
    rule, _, subject = name.partition("/")
    values: dict[str, object] = {
        "fingerprint": name, "rule": rule, "subject": subject, "severity": "critical", "message": "m", "hint": "h",
        "first_seen": NOW, "last_seen": NOW, "judged": NOW, "opened": NOW,
    }  # fmt: skip
    return Alert(**{**values, **given})  # type: ignore[arg-type]


def test_alerts_are_kept_as_they_are(states: Callable[[], StateDatabase]) -> None:
    full = alert(
        since=NOW, extent=7, facts={"tables": ["a", "b"], "n": 1}, inhibited_by=("a/b",), without_channel="slack",
        clean=1, clean_since=NOW, closed=NOW, openings=(NOW, NOW), tellable_since=NOW, is_silenced=True,
        silence_ended=NOW, told={"me": NOW}, told_severity="warning", told_extent=3, acknowledged=NOW,
        acknowledged_by="x",
    )  # fmt: skip
    assert AlertBook(states()).evaluate(lambda _a, _s: ([full, alert("size_grew/y")], []), now=NOW)
    assert AlertBook(states()).alerts() == [full, alert("size_grew/y")]
    changed = replace(full, extent=8)
    assert AlertBook(states()).evaluate(
        lambda known, _s: ([replace(known[full.fingerprint], extent=8)], []), now=NOW
    )
    assert AlertBook(states()).alerts() == [changed]


def test_what_was_seen_earlier_does_not_overrule(states: Callable[[], StateDatabase]) -> None:
    book = AlertBook(states())
    assert book.evaluate(lambda _a, _s: ([alert()], []), now=NOW)
    assert not book.evaluate(lambda _a, _s: ([], [message()]), now=NOW - timedelta(seconds=1))
    assert book.alerts() == [alert()]
    assert book.messages() == []
    assert book.last_evaluation() == NOW


def test_what_a_clock_that_was_ahead_left_behind_stops_nothing(states: Callable[[], StateDatabase]) -> None:
    """Evaluations, messages, and since when something is known: none waits until that time has come."""
    book, later = AlertBook(states()), NOW + timedelta(days=400)
    assert book.evaluate(lambda _a, _s: ([alert()], [message()]), now=later)
    waiting = replace(message(1), made=later, next_attempt=later)
    book.add_message(waiting)
    claimed = book.claim(later)
    assert claimed is not None
    book.reaches(["plan nightly"], now=later)
    assert book.evaluate(lambda _a, _s: ([], []), now=NOW)
    assert book.last_evaluation() == NOW
    ids = {each.id for _ in range(2) if (each := book.claim(NOW)) is not None}
    assert ids == {"m000", "m001"}
    assert book.claim(NOW) is None
    assert book.reaches(["plan nightly"], now=NOW)["plan nightly"].known_since == NOW
    assert book.reaches(["plan nightly"], now=NOW + timedelta(days=1))["plan nightly"].known_since == NOW


def test_hosts_that_evaluate_at_once_put_out_one_message(states: Callable[[], StateDatabase]) -> None:
    books = [AlertBook(states()) for _ in range(4)]
    together = threading.Barrier(len(books))

    def look(book: AlertBook) -> None:
        def change(known: object, _silences: object) -> tuple[list[Alert], list[Message]]:
            return [alert()], [] if known else [message()]

        together.wait()
        book.evaluate(change, now=NOW)

    with ThreadPoolExecutor(len(books)) as pool:
        list(pool.map(look, books))
    assert [each.id for each in books[0].messages()] == ["m000"]


def test_hosts_that_deliver_at_once_send_every_message_once(states: Callable[[], StateDatabase]) -> None:
    books = [AlertBook(states()) for _ in range(3)]
    for number in range(20):
        books[0].add_message(message(number))
    sent: list[str] = []
    together = threading.Barrier(len(books))

    def work(book: AlertBook) -> None:
        together.wait()
        while (claimed := book.claim(NOW)) is not None:
            sent.append(claimed.id)
            book.delivered(claimed, target="channel slack", now=NOW)

    with ThreadPoolExecutor(len(books)) as pool:
        list(pool.map(work, books))
    assert sorted(sent) == [f"m{number:03}" for number in range(20)]


def test_a_message_of_a_host_that_died_is_sent_again_later(states: Callable[[], StateDatabase]) -> None:
    book = AlertBook(states())
    book.add_message(message())
    assert book.claim(NOW) is not None
    assert book.claim(NOW + timedelta(minutes=2)) is None
    again = book.claim(NOW + timedelta(minutes=3))
    assert again is not None
    assert again.attempts == 2


def test_a_message_is_tried_five_times(state: StateDatabase) -> None:
    book = AlertBook(state)
    book.add_message(message())
    now, waits = NOW, []
    while book.messages()[0].given_up is None:
        claimed = book.claim(now)
        assert claimed is not None
        book.undelivered(claimed, "no", target="channel slack", now=now)
        waits.append(book.messages()[0].next_attempt - now)
        assert book.claim(now) is None
        now = max(now, book.messages()[0].next_attempt)
    assert [wait.total_seconds() for wait in waits] == [60, 300, 1800, 7200, 0]
    assert book.claim(now + timedelta(days=1)) is None


def test_what_waits_gives_way_to_what_has_become_of_it(states: Callable[[], StateDatabase]) -> None:
    """A refused message must not arrive after the one that says it is over; others, and what is under way, stay."""
    book = AlertBook(states())

    def about(number: int, *fingerprints: str, channel: str = "slack") -> Message:
        return replace(message(number, channel), fingerprints=fingerprints)

    earlier = [about(0, "a/x"), about(1, "a/x", "b/x"), about(2, "a/x", channel="mail"), about(3, "b/x")]
    book.evaluate(lambda _a, _s: ([], earlier), now=NOW)
    for _ in earlier:
        claimed = book.claim(NOW)
        assert claimed is not None
        if claimed.fingerprints != ("b/x",):
            book.undelivered(claimed, "no", target="channel slack", now=NOW)
    assert book.refused() == {"a/x": ("slack", "mail")}  # of b/x one is under way
    over = [about(4, "a/x"), about(5, "b/x", "c/x")]
    later = NOW + timedelta(seconds=20)
    book.evaluate(lambda _a, _s: ([], over), now=later)
    waiting = [each.id for each in book.messages() if each.given_up is None]
    assert waiting == ["m002", "m003", "m004", "m005"]


def test_acknowledging_and_silencing_exclude_evaluations(states: Callable[[], StateDatabase]) -> None:
    """An evaluation that read the alerts before must not write back that nobody acknowledged them."""
    book, other = AlertBook(states()), AlertBook(states())
    book.evaluate(lambda _a, _s: ([alert()], []), now=NOW)
    began, acknowledged = threading.Event(), threading.Event()

    def slow(known: object, _silences: object) -> tuple[list[Alert], list[Message]]:
        began.set()
        acknowledged.wait(0.3)
        return [replace(alert(), sightings=2)], []

    with ThreadPoolExecutor(1) as pool:
        evaluation = pool.submit(book.evaluate, slow, now=NOW + timedelta(seconds=1))
        began.wait()
        assert other.acknowledge("backup_missing/x", by="me", now=NOW)
        acknowledged.set()
        evaluation.result()
    (after,) = book.alerts()
    assert (after.sightings, after.acknowledged_by) == (2, "me")


def test_silences_replace_each_other_and_expire(state: StateDatabase) -> None:
    book = AlertBook(state)
    made = Silence(
        id="1", pattern="size_grew", until=NOW + timedelta(hours=1), made=NOW, by="me", reason="known"
    )
    book.add_silence(made)
    book.add_silence(replace(made, id="2", until=NOW + timedelta(hours=2)))
    assert [each.id for each in book.silences(NOW)] == ["2"]
    assert book.silences(NOW + timedelta(hours=2)) == []


# The whole way


class Heard:
    """A channel that remembers, and fails on demand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[tuple[str, str]] = []
        self.error: str | None = None

    def send(self, title: str, body: str, *, is_critical: bool) -> str | None:
        if self.error is None:
            self.heard.append((title.removeprefix("[pgstow] "), body))
        return self.error

    def titles(self) -> list[str]:
        """Return the titles since the last call."""
        titles, self.heard = [title for title, _ in self.heard], []
        return titles


class World:
    """Settings with two repositories, and a state database."""

    def __init__(self, folder: Path, state: StateDatabase, empty: Path) -> None:
        self.folder, self.history = folder, History(state=state)
        self.environ = {"PASSWORD": PASSWORD, "HOME": str(folder)}
        self.slack, self.mail = Heard("slack"), Heard("mail")
        password = Reference(where="password", text="${PASSWORD}")
        self.settings = Settings(
            path=folder / "pgstow.yaml",
            databases={"shop": DatabaseSettings(name="shop", url=Reference(where="url", text="dbname=shop"))},
            repositories={
                name: RepositorySettings(name=name, location=str(folder / name), password=password)
                for name in ("local", "offsite")
            },
            plans={
                "nightly": PlanSettings(
                    name="nightly", kind="daily", databases=("shop",), repositories=("local", "offsite"),
                    schedule=Schedule(cron="* * * * *"), ping=Reference(where="ping", text="${PING}"),
                )
            },
            alerts=AlertPolicy(
                grace_s=0,
                free_space=0,
                contacts=(
                    Contact(name="on call", channels=("slack",)),
                    Contact(name="head", channels=("mail",), after_s=3600),
                ),
            ),
            channels={
                name: ChannelSettings(name=name, url=Reference(where=name, text=f"${{{name.upper()}}}"))
                for name in ("slack", "mail")
            },
        )  # fmt: skip
        for name in ("local", "offsite"):
            shutil.copytree(empty, folder / name)

    def check(self, **changes: object) -> CheckReport:
        report = check_alerts(
            replace(self.settings, **changes),  # type: ignore[arg-type]
            self.environ,
            self.history,
            channels={"slack": self.slack, "mail": self.mail},
        )
        assert report is not None
        return report


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with nothing in it, to be copied: making one takes longer."""
    folder = tmp_path_factory.mktemp("empty") / "repository"
    Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    return folder


@pytest.fixture
def world(tmp_path: Path, state: StateDatabase, empty: Path) -> World:
    return World(tmp_path, state, empty)


UNPROTECTED = "CRITICAL: unprotected shop"


def test_from_the_facts_to_people(world: World) -> None:
    report = world.check()
    assert [each.fingerprint for each in report.open_alerts] == ["unprotected/shop"]
    assert world.slack.titles() == [UNPROTECTED]
    assert world.mail.titles() == []
    assert world.check().deliveries == ()
    assert world.history.state is not None
    source = StateAlerts(world.history.state, channels=[])
    known = source.open_alerts(datetime.now(UTC))
    assert known is not None
    assert [(each.rule, each.database, each.is_acknowledged) for each in known] == [
        ("unprotected", "shop", False)
    ]
    assert source.open_alerts(datetime.now(UTC) + timedelta(hours=27)) is None
    assert source.last_acknowledged() is None
    acknowledged = acknowledge(world.history, id_of("unprotected/shop")[:6], by="me")
    assert [each.fingerprint for each in acknowledged.alerts] == ["unprotected/shop"]
    assert world.check().open_alerts[0].acknowledged_by == "me"
    world.check(databases={})  # a host with other settings: it says nothing of what it does not look at
    assert [each.fingerprint for each in world.check(databases={}).open_alerts] == ["unprotected/shop"]
    assert world.slack.titles() == []


def test_a_channel_that_fails_is_told_over_the_others_at_once(world: World) -> None:
    world.slack.error = "refused"
    report = world.check()
    assert [each.error for each in report.failures] == ["refused"]
    assert report.refused == {"unprotected/shop": ("slack",)}
    assert world.mail.titles() == ["CRITICAL: channel failed slack"]
    world.slack.error = None
    waiting = world.check()
    assert [each.rule for each in waiting.open_alerts] == ["channel_failed", "unprotected"]
    assert not waiting.is_told
    assert world.slack.titles() == []  # the message waits a minute for its second attempt
    assert world.history.state is not None
    later = deliver(
        AlertBook(world.history.state),
        {"slack": world.slack, "mail": world.mail},
        lambda: datetime.now(UTC) + timedelta(minutes=2),
    )
    assert [each.error for each in later] == [None]
    assert world.slack.titles() == [UNPROTECTED]
    assert world.check().refused == {}
    assert world.mail.titles() == ["OVER: channel failed slack"]


def test_when_every_channel_fails_it_is_reported(world: World) -> None:
    world.slack.error = world.mail.error = "refused"
    report = world.check()
    assert {each.channel for each in report.failures} == {"slack", "mail"}
    assert report.open_alerts


def test_a_repository_that_is_away_is_a_finding(world: World) -> None:
    (world.folder / "offsite").rename(world.folder / "away")
    assert world.check().open_alerts == ()
    report = world.check()
    assert "repository_unreachable" in {each.rule for each in report.open_alerts}


def test_a_silence(world: World) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    assert silence(world.history, "unprotected", until=until, by="me", reason=None).pattern == "unprotected"
    report = world.check()
    assert report.open_alerts[0].is_silenced
    assert world.slack.titles() == []
    by_id = silence(world.history, id_of("unprotected/shop"), until=until, by="me", reason=None)
    assert by_id.pattern == "unprotected/shop"
    with pytest.raises(UsageError, match="neither an open alert"):
        silence(world.history, "backup_mising", until=until, by="me", reason=None)
    for pattern in ("unprotected", "unprotected/shop"):
        silence(world.history, pattern, until=datetime.now(UTC), by="me", reason=None)
    world.check()
    assert world.slack.titles() == [UNPROTECTED]


def test_test_messages(world: World) -> None:
    channels = {"slack": world.slack, "mail": world.mail}
    world.mail.error = "refused"
    deliveries = send_canaries(world.settings, world.environ, world.history, channels=channels)
    assert [(each.channel, each.error) for each in deliveries] == [("slack", None), ("mail", "refused")]
    ((title, body),) = world.slack.heard
    code = title.removeprefix("test of slack: ")
    assert f"pgstow alerts ack {code}" in body
    assert acknowledge(world.history, code.lower(), by="me").channel == "slack"
    assert world.history.state is not None
    assert StateAlerts(world.history.state, channels=["slack"]).last_acknowledged() is not None
    assert StateAlerts(world.history.state, channels=["slack", "mail"]).last_acknowledged() is None
    with pytest.raises(UsageError, match="neither"):
        acknowledge(world.history, "ACDEFHJK", by="me")
    with pytest.raises(UsageError, match="no channel called sms"):
        send_canaries(world.settings, world.environ, world.history, only=["sms"], channels=channels)
    assert "channel_failed/mail" in {each.fingerprint for each in world.check().open_alerts}


def test_only_one_host_of_many_looks(world: World) -> None:
    world.check()
    assert check_alerts(world.settings, world.environ, world.history, channels={}, unless_within_s=60) is None
    assert (
        check_alerts(world.settings, world.environ, world.history, channels={}, unless_within_s=0) is not None
    )


def test_without_channels_it_is_said_that_nobody_is_told(world: World) -> None:
    report = check_alerts(world.settings, world.environ, world.history, channels={})
    assert report is not None
    assert [each.rule for each in report.untold] == ["unprotected"]


def test_an_address_that_cannot_be_had_is_a_failing_channel(world: World) -> None:
    channels = open_channels(world.settings, {**world.environ, "MAIL": "json://127.0.0.1:1/"})
    error = channels["slack"].send("t", "b", is_critical=False)
    assert error == "slack: the variable SLACK is not set"


def test_without_the_state_database_it_fails_loudly(world: World) -> None:
    with pytest.raises(StateError, match="it is away"):
        check_alerts(world.settings, world.environ, History(error=StateError("it is away")))


def test_contents_are_taken_from_the_history_or_read(
    world: World, pg15: Cluster, database: DatabaseFactory
) -> None:
    source = database(pg15, "shop")
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE ledger (id int)")
        connection.execute("CREATE TABLE parted (id int) PARTITION BY RANGE (id)")
    pgstow = Pgstow(
        {"PGSTOW_REPOSITORY": str(world.folder / "local"), "PGSTOW_PASSWORD": world.environ["PASSWORD"]}
    )
    ended = pgstow("backup", source.connect_string(), "--name", "shop", "--json")
    assert ended.code == 0, ended.stdout
    backup_id = ended.json()["backups"][0]["id"]

    def rules(**given: object) -> set[str]:
        shop = replace(world.settings.databases["shop"], **given)  # type: ignore[arg-type]
        return {each.fingerprint for each in world.check(databases={"shop": shop}).evaluation.findings}

    ledger = CriticalTable(schema="public", name="ledger")
    assert not rules(critical=(ledger,), must_contain=("public.parted",)) & {
        "critical_table_missing/shop/daily"
    }
    assert "critical_table_missing/shop/daily" in rules(must_contain=("public.gone",))
    assert world.history.state is not None
    Runs(world.history.state).save(
        RunRecord(
            id="1",
            plan="nightly",
            job="backup",
            kind="daily",
            database="shop",
            due=None,
            host="a",
            outcome="done",
            started=datetime.now(UTC),
            finished=datetime.now(UTC),
            backup_id=backup_id,
            tables={"public.ledger": (0, 0)},
        )
    )
    for pack in (world.folder / "local" / "data").rglob("*"):
        if pack.is_file():  # nothing but the history can tell now
            pack.chmod(0o600)
            pack.write_bytes(b"\0" * pack.stat().st_size)
    assert not rules(critical=(ledger,)) & {"tables_unknown/shop/daily", "critical_table_missing/shop/daily"}
    assert "tables_unknown/shop/daily" in rules(must_contain=("public.parted",))


def test_pings_of_a_plan_are_remembered(world: World) -> None:
    plan = world.settings.plans["nightly"]
    with web_server() as web:
        pings = plan_pings(plan, {"PING": f"http://127.0.0.1:{web.port}/id"}, world.history)
        assert pings is not None
        assert pings.ping("start", run_id="1") is None
        web.status = 404
        assert pings.ping("success", run_id="1") is not None
    world.check()
    for _ in range(2):
        report = world.check()
    assert "ping_failed/nightly" in {each.fingerprint for each in report.open_alerts}
    missing = plan_pings(plan, {}, world.history)
    assert missing is not None
    assert missing.ping("start", run_id="1") == "ping: the variable PING is not set"
    assert plan_pings(replace(plan, ping=None), {}, world.history) is None


def test_a_run_pings_at_its_beginning_and_end(world: World) -> None:
    plan = world.settings.plans["nightly"]
    record = RunRecord(
        id="b6b1f5c0-0000-4000-8000-000000000001",
        plan="nightly",
        job="backup",
        kind="daily",
        database="shop",
        due=None,
        started=NOW,
        host="a",
        error="the disk is full",
    )
    with web_server() as web:
        for outcome in ("running", "done", "partial", "failed", "interrupted"):
            thread = ping_run(
                plan,
                replace(record, outcome=outcome),  # type: ignore[arg-type]
                {"PING": f"http://127.0.0.1:{web.port}/id"},
                world.history,
            )
            assert thread is not None
            thread.join()
        query = f"?rid={record.id}"
        assert [post.path for post in web.posts] == [
            f"/id{suffix}{query}" for suffix in ("/start", "", "/3", "/fail", "/fail")
        ]
        assert web.posts[-1].body == "the disk is full"


def test_a_watch_evaluates_beside_the_service(world: World) -> None:
    notes: list[str] = []
    environ = {
        **world.environ,
        "PGSTOW_STATE_DIR": str(world.folder / "state"),
        "SLACK": "json://127.0.0.1:1/",
    }
    watch = AlertWatch(lambda: world.settings, environ, notes.append)
    watch(NOW)
    watch.wait()
    assert [note.partition(":")[0] for note in notes] == [
        "the alert '[pgstow] CRITICAL",
        "the alert '[pgstow] CRITICAL",
    ]
    assert world.history.state is not None
    assert [alert.rule for alert in AlertBook(world.history.state).alerts()] == [
        "channel_failed",
        "unprotected",
    ]
    watch(NOW)
    watch.wait()
    assert len(notes) == 2  # another host, or this one, had just done it

    def wrong() -> Settings:
        raise UsageError("the settings are wrong")

    broken = AlertWatch(wrong, environ, notes.append)
    broken(NOW)
    broken.wait()
    assert notes[-1] == "alerts could not be evaluated: the settings are wrong"


class Blind:
    """A watch with a clock and channels of its own, whose settings or look can be made to fail."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.now_s = world, 0.0
        self.notes: list[str] = []
        environ = {**world.environ, "PGSTOW_STATE_DIR": str(world.folder / "state")}
        monkeypatch.setattr("pgstow.app.alert_watch.check_alerts", self.check)
        self.watch = AlertWatch(
            lambda: world.settings,
            environ,
            self.notes.append,
            hostname="db1",
            channels=lambda _: {"slack": world.slack, "mail": world.mail},
            clock_s=lambda: self.now_s,
        )
        self.error: Exception | None = None
        self.hanging = threading.Event()
        self.hanging.set()

    def check(self, *_given: object, **_options: object) -> None:
        self.hanging.wait()
        if self.error is not None:
            raise self.error

    def tick(self, minutes: float, *, wait: bool = True) -> list[str]:
        self.now_s += 60 * minutes
        self.watch(NOW)
        for thread in (self.watch._thread if wait else None, self.watch._teller):
            if thread is not None:
                thread.join()
        assert self.world.mail.titles() == []  # of whom is told later, nobody can say when that is
        return self.world.slack.titles()


@pytest.mark.parametrize("error", [StateError("the state database is away"), KeyError("a bug")])
def test_that_nobody_can_look_is_told_past_the_state_database(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Once, by whoever took the message; and so is its end."""
    blind = Blind(world, monkeypatch)
    assert blind.tick(0) == []
    blind.error = error
    assert [*blind.tick(1), *blind.tick(1), *blind.tick(3.9)] == []
    world.slack.error = "no route to host"
    assert blind.tick(0.2) == []
    assert blind.notes[-1].endswith("did not reach slack: no route to host")
    world.slack.error = None
    assert blind.tick(1) == ["CRITICAL: alerts cannot be evaluated on db1"]
    assert [*blind.tick(1), *blind.tick(600)] == []
    blind.error = None
    assert blind.tick(1) == ["OVER: alerts are evaluated again on db1"]
    assert blind.tick(1) == []
    blind.error = error
    assert blind.tick(1) == []


def test_a_look_that_does_not_end_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = Blind(world, monkeypatch)
    blind.hanging.clear()
    assert [*blind.tick(0, wait=False), *blind.tick(14, wait=False)] == []
    assert blind.tick(1.1, wait=False) == ["CRITICAL: alerts cannot be evaluated on db1"]
    assert blind.tick(1, wait=False) == []
    blind.hanging.set()
    blind.watch.wait()
    assert blind.tick(1) == ["OVER: alerts are evaluated again on db1"]


def test_a_look_that_ends_while_that_is_being_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a network is back, both come to an end at once: whoever heard of it hears of its end, and of the next time."""
    blind = Blind(world, monkeypatch)
    blind.hanging.clear()
    blind.tick(0, wait=False)
    send = world.slack.send

    def slowly(title: str, body: str, *, is_critical: bool) -> str | None:
        if not blind.hanging.is_set():
            blind.hanging.set()
            blind.watch.wait()
        return send(title, body, is_critical=is_critical)

    monkeypatch.setattr(world.slack, "send", slowly)
    told = ["CRITICAL: alerts cannot be evaluated on db1", "OVER: alerts are evaluated again on db1"]
    assert blind.tick(16, wait=False) == told
    assert blind.tick(1) == []
    blind.error = StateError("the state database is away")
    assert [*blind.tick(1), *blind.tick(5.1)] == told[:1]
    blind.error = None
    assert blind.tick(1) == told[1:]


def test_a_message_waits_for_a_host_that_knows_its_channel(states: Callable[[], StateDatabase]) -> None:
    """Another one would note that the channel does not deliver, use up its attempts, and raise a false alarm."""
    book, slack = AlertBook(states()), Heard("slack")
    book.add_message(message())
    assert deliver(book, {"mail": Heard("mail")}, lambda: NOW) == []
    assert book.reaches(["channel slack"], now=NOW)["channel slack"].error is None
    assert [each.error for each in deliver(book, {"slack": slack}, lambda: NOW)] == [None]
    book.add_message(message(1))
    (given_up,) = deliver(book, {"mail": Heard("mail")}, lambda: NOW + timedelta(hours=1))
    assert given_up.error == "it is not in the settings"
