"""The use cases of alerts: judge the facts and tell people; acknowledge, silence, test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pgstow.app.alert_facts import (
    alert_facts,
    alert_policy,
    channel_target,
    telling_facts,
    watched_names,
)
from pgstow.app.observation import History, KnownDrills
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, PgstowError, StateError, UsageError
from pgstow.monitor.alerts import Step, advance
from pgstow.monitor.channels import AppriseChannel, BrokenChannel, Channel
from pgstow.monitor.facts import Facts
from pgstow.monitor.findings import Evaluation, id_of
from pgstow.monitor.messages import Words, address, canary, words
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.rules import RULES, evaluate
from pgstow.state.alerts import Alert, AlertBook, Canary, Message, Silence
from pgstow.state.database import StateDatabase

__all__ = [
    "Acknowledged",
    "CheckReport",
    "Delivery",
    "ListedAlerts",
    "acknowledge",
    "check_alerts",
    "deliver",
    "listed_alerts",
    "open_book",
    "open_channels",
    "send_canaries",
    "silence",
]

# Letters and digits that nobody mistakes for each other when reading them from a telephone.
_CODE_LETTERS = "ACDEFHJKMNPQRTUVWXY34679"
_CODE_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one message in this process: ``error`` is None when the channel took it."""

    channel: str
    title: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was found, what it means together with what was known, and who was told.

    ``is_outdated``: another host judged later facts meanwhile, and this look changed nothing. ``untold`` are open alerts
    for which there is nobody to tell: no channel is in the settings. ``refused`` are, by fingerprint, the channels that
    did not take the last message about an alert.
    """

    now: datetime
    evaluation: Evaluation
    open_alerts: tuple[Alert, ...]
    deliveries: tuple[Delivery, ...] = ()
    untold: tuple[Alert, ...] = ()
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_outdated: bool = False

    @property
    def is_told(self) -> bool:
        """Whether, as far as is known, everybody who is to be told was: no channel fails, and there is one."""
        is_broken = any(alert.rule == "channel_failed" for alert in self.open_alerts)
        return not (self.failures or self.untold or is_broken)

    @property
    def pending(self) -> int:
        """How many findings are no alert yet: they have to be seen once more."""
        open_now = {alert.fingerprint for alert in self.open_alerts}
        return sum(finding.fingerprint not in open_now for finding in self.evaluation.findings)

    @property
    def failures(self) -> list[Delivery]:
        return [each for each in self.deliveries if each.error is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAlerts:
    """What is known without looking at anything anew; ``evaluated`` is when somebody last looked.

    ``refused`` is as in ``CheckReport``.
    """

    alerts: tuple[Alert, ...]
    silences: tuple[Silence, ...]
    evaluated: datetime | None
    refused: Mapping[str, tuple[str, ...]]


def listed_alerts(history: History, *, show_all: bool = False) -> ListedAlerts:
    """Return the open alerts and the silences; with ``show_all`` also what is not open yet, or not any more."""
    state, book = open_book(history)
    return ListedAlerts(
        alerts=tuple(alert for alert in book.alerts() if show_all or alert.is_open),
        silences=tuple(book.silences(state.now())),
        evaluated=book.last_evaluation(),
        refused=book.refused(),
    )


def open_book(history: History) -> tuple[StateDatabase, AlertBook]:
    """Return the alerts; StateError when the state database cannot be had, for without it nobody knows who was told what."""
    if history.state is None:
        raise history.error or StateError("there is no state database")
    return history.state, AlertBook(history.state)


def open_channels(settings: Settings, environ: Mapping[str, str]) -> dict[str, Channel]:
    """Return the channels by name; one whose address cannot be had is a channel that fails with the reason."""
    channels: dict[str, Channel] = {}
    for name, channel in settings.channels.items():
        try:
            channels[name] = AppriseChannel(name, channel.url.resolve(environ))
        except Interrupted:
            raise
        except PgstowError as exc:
            channels[name] = BrokenChannel(name, exc)
    return channels


def check_alerts(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    *,
    channels: Mapping[str, Channel] | None = None,
    unless_within_s: float | None = None,
    drills: KnownDrills | None = None,
    note: Callable[[str], None] = lambda _message: None,
) -> CheckReport | None:
    """Judge the facts of now, note what became of the alerts, and tell whoever is to be told.

    ``unless_within_s``: None is returned, and nothing done, when somebody did it that recently (a fleet shares the
    work). Raises StateError; everything else that cannot be reached is a finding.
    """
    state, book = open_book(history)
    now = state.now()
    last = book.last_evaluation() if unless_within_s is not None else None
    if last is not None and 0 <= (now - last).total_seconds() < (unless_within_s or 0):
        return None
    channels = open_channels(settings, environ) if channels is None else channels
    facts = alert_facts(settings, environ, history, now=now, note=note, drills=drills)
    policy = alert_policy(settings)

    evaluation = _judged(facts, settings, book, now)
    is_current = _apply(book, evaluation, policy, tuple(channels), now)
    deliveries = deliver(book, channels, state.now)
    if any(each.error is not None for each in deliveries):
        # A channel that just failed is told over the others now, not at the next look, which may be a day away.
        evaluation = _judged(facts, settings, book, now)
        is_current = _apply(book, evaluation, policy, tuple(channels), now)
        deliveries += deliver(book, channels, state.now, without=_failed(deliveries))
    open_alerts = tuple(alert for alert in book.alerts() if alert.is_open)
    return CheckReport(
        now=now,
        evaluation=evaluation,
        open_alerts=open_alerts,
        deliveries=tuple(deliveries),
        untold=() if channels else open_alerts,
        refused=book.refused(),
        is_outdated=not is_current,
    )


def _judged(facts: Facts, settings: Settings, book: AlertBook, now: datetime) -> Evaluation:
    evaluation = evaluate(facts, telling_facts(settings, book, now=now))
    return replace(evaluation, watched=watched_names(settings, facts.plans))


def _failed(deliveries: Sequence[Delivery]) -> set[str]:
    return {each.channel for each in deliveries if each.error is not None}


def _apply(
    book: AlertBook, evaluation: Evaluation, policy: AlertPolicy, channels: Sequence[str], now: datetime
) -> bool:
    """Write what became of the alerts, and the messages that say so; False when a later evaluation was first."""

    def change(
        alerts: Mapping[str, Alert], silences: Sequence[Silence]
    ) -> tuple[tuple[Alert, ...], list[Message]]:
        step: Step = advance(alerts, evaluation, silences=silences, policy=policy, now=now)
        told = address(step.notifications, policy, channels)
        return step.alerts, [
            _message(channel, each, now) for channel, who in told.items() for each in words(who, policy)
        ]

    return book.evaluate(change, now=now)


def _message(channel: str, said: Words, now: datetime) -> Message:
    return Message(
        id=AlertBook.new_id(),
        channel=channel,
        title=said.title,
        body=said.body,
        is_critical=said.is_critical,
        made=now,
        next_attempt=now,
        fingerprints=said.fingerprints,
    )


def deliver(
    book: AlertBook,
    channels: Mapping[str, Channel],
    clock: Callable[[], datetime],
    *,
    without: set[str] | None = None,
) -> list[Delivery]:
    """Send every message that waits, and return what became of those that this process sent.

    A channel that fails is left alone for the rest: its messages wait for the next time. So do those to channels that
    only other hosts have in their settings.
    """
    resting = set(without or ())
    deliveries: list[Delivery] = []
    while (message := book.claim(clock(), without=resting, known=channels)) is not None:
        channel = channels.get(message.channel)
        if channel is None:
            error: str | None = "it is not in the settings"
        else:
            error = channel.send(message.title, message.body, is_critical=message.is_critical)
        if error is None:
            book.delivered(message, target=channel_target(message.channel), now=clock())
        else:
            book.undelivered(message, error, target=channel_target(message.channel), now=clock())
            resting.add(message.channel)
        deliveries.append(Delivery(channel=message.channel, title=message.title, error=error))
    return deliveries


# What people do


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What an acknowledgement was for: alerts, or the test message of a channel."""

    alerts: tuple[Alert, ...] = ()
    channel: str | None = None


def acknowledge(history: History, text: str, *, by: str) -> Acknowledged:
    """Acknowledge the open alert with an id, its beginning or a fingerprint, or the test message with a code.

    UsageError when there is none, or more than one.
    """
    state, book = open_book(history)
    now = state.now()
    code = text.strip().upper().replace("-", "")
    of_code = [each for each in book.canaries() if each.code == code]
    if of_code and book.acknowledge_canary(code, by=by, now=now):
        return Acknowledged(channel=of_code[0].channel)
    alert = _find(book, text)
    if not book.acknowledge(alert.fingerprint, by=by, now=now):
        raise UsageError(f"the alert {text} is over meanwhile", hint="pgstow alerts list shows what is open")
    return Acknowledged(alerts=(alert,))


def _find(book: AlertBook, text: str) -> Alert:
    found = [
        alert
        for alert in book.alerts()
        if alert.is_open
        and (
            alert.fingerprint == text
            or (len(text) >= 4 and id_of(alert.fingerprint).startswith(text.lower()))
        )
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text} is the beginning of {len(found)} ids", hint="write more of the id")
    raise UsageError(
        f"{text} is neither an open alert nor the code of a test message",
        hint="pgstow alerts list shows the ids of what is open",
    )


def silence(history: History, text: str, *, until: datetime, by: str, reason: str | None) -> Silence:
    """Tell nobody of an alert (id or fingerprint), of a rule (its name) or of anything (``*``) until a time.

    What was recorded already counts: an alert stays open meanwhile, and is told again when the time has come. A time
    that has passed ends a silence.
    """
    state, book = open_book(history)
    pattern = text
    if text != "*" and text.partition("/")[0] not in RULES:
        pattern = _find(book, text).fingerprint
    made = Silence(
        id=AlertBook.new_id(), pattern=pattern, until=until, made=state.now(), by=by, reason=reason
    )
    book.add_silence(made)
    return made


def send_canaries(
    settings: Settings,
    environ: Mapping[str, str],
    history: History,
    *,
    only: Sequence[str] = (),
    channels: Mapping[str, Channel] | None = None,
) -> list[Delivery]:
    """Send a test message over every channel, or ``only`` some; each has a code of its own.

    Who gets one acknowledges it with the code: until then it is unknown whether the channel reaches anybody.
    """
    unknown = sorted(set(only) - set(settings.channels))
    if unknown or not settings.channels:
        raise UsageError(
            f"there is no channel called {unknown[0]}"
            if unknown
            else "there are no channels in the settings",
            hint=f"the settings have {', '.join(settings.channels)}" if settings.channels else "add channels",
        )
    state, book = open_book(history)
    channels = open_channels(settings, environ) if channels is None else channels
    deliveries = []
    for name in only or settings.channels:
        code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
        said = canary(name, code)
        # Written first: whoever gets it may answer before we hear from the service, or although we never do.
        book.add_canary(Canary(code=code, channel=name, sent=state.now()))
        error = channels[name].send(said.title, said.body, is_critical=False)
        book.reached(channel_target(name), error=error, now=state.now())
        # Without the code: only who got the message shall know it.
        title = said.title.replace(f": {code}", "")
        deliveries.append(Delivery(channel=name, title=title, error=error))
    return deliveries
