"""Alerts, what silences them, and the messages that are to go out.

An evaluation of the rules changes the alerts and writes the messages in one transaction; messages are delivered after
it, each claimed by one host. A host that dies between sending a message and noting it leaves it to be sent once more:
every message goes out at least once, and only then more than once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pgstow.state.database import StateDatabase
from pgstow.state.schema import METADATA, Moment

__all__ = [
    "Alert",
    "AlertBook",
    "Canary",
    "Message",
    "Reach",
    "Silence",
]

_LOCK = 0x7067_7374_6F78  # an advisory lock's number: one evaluation at a time
_CLAIM = timedelta(minutes=3)  # longer than one delivery may take
_RETRY = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2))
_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is or was wrong, and who was told.

    ``opened`` is None while it was not seen often enough; ``closed`` is set once it is over. ``told`` says when each
    contact was last told. ``tellable_since`` is when it could first be told, and begins anew when it was silenced or
    inhibited: escalation counts from there. ``openings`` are recent times at which it opened.
    """

    fingerprint: str
    rule: str
    subject: str
    severity: str
    message: str
    hint: str
    since: datetime | None = None
    extent: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)
    inhibited_by: tuple[str, ...] = ()
    without_channel: str | None = None
    first_seen: datetime
    last_seen: datetime
    judged: datetime
    sightings: int = 1
    clean: int = 0
    clean_since: datetime | None = None
    opened: datetime | None = None
    closed: datetime | None = None
    openings: tuple[datetime, ...] = ()
    tellable_since: datetime | None = None
    is_silenced: bool = False
    silence_ended: datetime | None = None
    is_inhibited: bool = False
    told: Mapping[str, datetime] = field(default_factory=dict)
    told_severity: str | None = None
    told_extent: int = 0
    acknowledged: datetime | None = None
    acknowledged_by: str | None = None

    @property
    def is_open(self) -> bool:
        return self.opened is not None and self.closed is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts of a fingerprint, of all whose fingerprint begins with ``pattern/``, or all for ``*``, are not told until then."""

    id: str
    pattern: str
    until: datetime
    made: datetime
    by: str
    reason: str | None = None

    def covers(self, fingerprint: str, now: datetime) -> bool:
        return now < self.until and (
            self.pattern in ("*", fingerprint) or fingerprint.startswith(f"{self.pattern}/")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Words for one channel. ``given_up`` is when nobody tries any longer."""

    id: str
    channel: str
    title: str
    body: str
    is_critical: bool
    made: datetime
    next_attempt: datetime
    fingerprints: tuple[str, ...] = ()
    attempts: int = 0
    sent: datetime | None = None
    given_up: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A test message of a channel, which whoever got it acknowledges with its code."""

    code: str
    channel: str
    sent: datetime
    acknowledged: datetime | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How something outside, a channel or the dead man's switch of a plan, was last reached."""

    target: str
    known_since: datetime
    succeeded: datetime | None = None
    failed: datetime | None = None
    error: str | None = None


_ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("rule", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sa.Column("hint", sa.String, nullable=False),
    sa.Column("since", Moment),
    sa.Column("extent", sa.Integer, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("inhibited_by", sa.JSON, nullable=False),
    sa.Column("without_channel", sa.String),
    sa.Column("first_seen", Moment, nullable=False),
    sa.Column("last_seen", Moment, nullable=False),
    sa.Column("judged", Moment, nullable=False),
    sa.Column("sightings", sa.Integer, nullable=False),
    sa.Column("clean", sa.Integer, nullable=False),
    sa.Column("clean_since", Moment),
    sa.Column("opened", Moment),
    sa.Column("closed", Moment),
    sa.Column("openings", sa.JSON, nullable=False),
    sa.Column("tellable_since", Moment),
    sa.Column("is_silenced", sa.Boolean, nullable=False),
    sa.Column("silence_ended", Moment),
    sa.Column("is_inhibited", sa.Boolean, nullable=False),
    sa.Column("told", sa.JSON, nullable=False),
    sa.Column("told_severity", sa.String),
    sa.Column("told_extent", sa.Integer, nullable=False),
    sa.Column("acknowledged", Moment),
    sa.Column("acknowledged_by", sa.String),
)
_SILENCES = sa.Table(
    "alert_silences",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("pattern", sa.String, nullable=False),
    sa.Column("until", Moment, nullable=False),
    sa.Column("made", Moment, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String),
)
_MESSAGES = sa.Table(
    "alert_messages",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("is_critical", sa.Boolean, nullable=False),
    sa.Column("made", Moment, nullable=False),
    sa.Column("next_attempt", Moment, nullable=False),
    sa.Column("fingerprints", sa.JSON, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent", Moment),
    sa.Column("given_up", Moment),
    sa.Column("error", sa.String),
    sa.Column("claimed_until", Moment),
)
_CANARIES = sa.Table(
    "alert_canaries",
    METADATA,
    sa.Column("code", sa.String, primary_key=True),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("sent", Moment, nullable=False),
    sa.Column("acknowledged", Moment),
    sa.Column("by", sa.String),
)
_REACHES = sa.Table(
    "alert_reaches",
    METADATA,
    sa.Column("target", sa.String, primary_key=True),
    sa.Column("known_since", Moment, nullable=False),
    sa.Column("succeeded", Moment),
    sa.Column("failed", Moment),
    sa.Column("error", sa.String),
)
_EVALUATIONS = sa.Table(
    "alert_evaluations",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("made", Moment, nullable=False),
)

Change = Callable[[Mapping[str, Alert], Sequence[Silence]], tuple[Iterable[Alert], Sequence[Message]]]


class AlertBook:
    """The alerts in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    # What the evaluation does

    def evaluate(self, change: Change, *, now: datetime) -> bool:
        """Replace all alerts by those that ``change`` makes of them and put its messages out, at once or not at all.

        One evaluation at a time, whatever the host. Return False, having changed nothing, when a later look at the facts
        than that of ``now`` was evaluated already: what is older must not overrule it.
        """
        with self._state.begin() as connection:
            self._exclude_others(connection)
            last = connection.execute(sa.select(_EVALUATIONS.c.made)).scalar_one_or_none()
            if last is not None and now < last:
                return False
            alerts = {alert.fingerprint: alert for alert in self._alerts(connection)}
            silences = [_silence(row) for row in connection.execute(sa.select(_SILENCES))]
            new, messages = change(alerts, silences)
            _rewrite(connection, alerts, new)
            if messages:
                _supersede(connection, messages, now)
                connection.execute(sa.insert(_MESSAGES), [_message_row(each) for each in messages])
            if last is None:
                connection.execute(sa.insert(_EVALUATIONS).values(id=1, made=now))
            else:
                connection.execute(sa.update(_EVALUATIONS).values(made=now))
            _forget(connection, now)
        return True

    def last_evaluation(self) -> datetime | None:
        """Return when the facts were last judged, by anybody."""
        with self._state.begin() as connection:
            made: datetime | None = connection.execute(sa.select(_EVALUATIONS.c.made)).scalar_one_or_none()
        return made

    def _exclude_others(self, connection: Connection) -> None:
        # SQLite's transactions begin as writers, which excludes others by itself.
        if self._state.is_shared:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))

    # What people ask for

    def alerts(self) -> list[Alert]:
        """Return every alert that is kept, in the order of their fingerprints; those that are over as well."""
        with self._state.begin() as connection:
            return self._alerts(connection)

    @staticmethod
    def _alerts(connection: Connection) -> list[Alert]:
        rows = connection.execute(sa.select(_ALERTS).order_by(_ALERTS.c.fingerprint))
        return [_alert(row) for row in rows]

    def acknowledge(self, fingerprint: str, *, by: str, now: datetime) -> bool:
        """Note that somebody takes care of an open alert; return False if there is no such alert."""
        statement = (
            sa.update(_ALERTS)
            .where(
                _ALERTS.c.fingerprint == fingerprint,
                _ALERTS.c.opened.is_not(None),
                _ALERTS.c.closed.is_(None),
            )
            .values(acknowledged=now, acknowledged_by=by)
        )
        with self._state.begin() as connection:
            self._exclude_others(connection)  # an evaluation under way would write back what it read
            return bool(connection.execute(statement).rowcount)

    def silences(self, now: datetime) -> list[Silence]:
        """Return the silences that have not expired, the first to expire first."""
        query = sa.select(_SILENCES).where(_SILENCES.c.until > now).order_by(_SILENCES.c.until)
        with self._state.begin() as connection:
            return [_silence(row) for row in connection.execute(query)]

    def add_silence(self, silence: Silence) -> None:
        """Keep a silence; one of the same pattern is replaced by it."""
        with self._state.begin() as connection:
            self._exclude_others(connection)
            connection.execute(sa.delete(_SILENCES).where(_SILENCES.c.pattern == silence.pattern))
            connection.execute(sa.insert(_SILENCES).values(_values(_SILENCES, silence)))

    # Messages

    def add_message(self, message: Message) -> None:
        with self._state.begin() as connection:
            connection.execute(sa.insert(_MESSAGES).values(_message_row(message)))

    def claim(self, now: datetime, *, without: Iterable[str] = ()) -> Message | None:
        """Return a message that is to be sent now, for us alone for three minutes; None when there is none.

        Those to channels in ``without`` are left for later.
        """
        waiting = (
            sa.select(_MESSAGES)
            .where(
                _MESSAGES.c.sent.is_(None),
                _MESSAGES.c.given_up.is_(None),
                _MESSAGES.c.next_attempt <= now,
                _MESSAGES.c.channel.not_in(list(without)),
                sa.or_(_MESSAGES.c.claimed_until.is_(None), _MESSAGES.c.claimed_until <= now),
            )
            .order_by(_MESSAGES.c.made, _MESSAGES.c.id)
        )
        with self._state.begin() as connection:
            for row in connection.execute(waiting).all():
                seen = (
                    _MESSAGES.c.claimed_until.is_(None)
                    if row.claimed_until is None
                    else (_MESSAGES.c.claimed_until == row.claimed_until)
                )
                # The condition is judged again by the database: of two hosts that saw the same, one gets it.
                claimed = connection.execute(
                    sa.update(_MESSAGES)
                    .where(_MESSAGES.c.id == row.id, _MESSAGES.c.sent.is_(None), seen)
                    .values(claimed_until=now + _CLAIM, attempts=row.attempts + 1)
                )
                if claimed.rowcount:
                    return replace(_message(row), attempts=row.attempts + 1)
        return None

    def delivered(self, message: Message, *, target: str, now: datetime) -> None:
        """Note that the channel took a message, and that ``target`` was reached."""
        with self._state.begin() as connection:
            self._exclude_others(connection)
            connection.execute(
                sa.update(_MESSAGES).where(_MESSAGES.c.id == message.id).values(sent=now, error=None)
            )
            _reach(connection, target, now, None)

    def undelivered(self, message: Message, error: str, *, target: str, now: datetime) -> None:
        """Note why a channel did not take a message: it is tried again four times, ever later, and then given up."""
        values: dict[str, Any] = {"error": error, "claimed_until": None}
        if message.attempts > len(_RETRY):
            values["given_up"] = now
        else:
            values["next_attempt"] = now + _RETRY[message.attempts - 1]
        with self._state.begin() as connection:
            self._exclude_others(connection)
            connection.execute(sa.update(_MESSAGES).where(_MESSAGES.c.id == message.id).values(values))
            _reach(connection, target, now, error)

    def messages(self) -> list[Message]:
        """Return the messages of the last thirty days, oldest first."""
        with self._state.begin() as connection:
            rows = connection.execute(sa.select(_MESSAGES).order_by(_MESSAGES.c.made, _MESSAGES.c.id))
            return [_message(row) for row in rows]

    def refused(self) -> dict[str, tuple[str, ...]]:
        """Return, by fingerprint, the channels that did not take the last message about it."""
        channels: dict[str, dict[str, bool]] = {}
        for message in self.messages():
            for fingerprint in message.fingerprints:
                is_refused = message.sent is None and message.error is not None
                channels.setdefault(fingerprint, {})[message.channel] = is_refused
        return {
            fingerprint: tuple(name for name, is_refused in found.items() if is_refused)
            for fingerprint, found in channels.items()
            if any(found.values())
        }

    # Whether anybody is reached

    def reached(self, target: str, *, error: str | None, now: datetime) -> None:
        """Note how something outside was reached, or that it was not, and why."""
        with self._state.begin() as connection:
            self._exclude_others(connection)
            _reach(connection, target, now, error)

    def reaches(self, targets: Iterable[str], *, now: datetime) -> dict[str, Reach]:
        """Return how each target was last reached; one that is new is known from now on."""
        wanted = list(targets)
        with self._state.begin() as connection:
            self._exclude_others(connection)
            known = {row.target: Reach(**row._mapping) for row in connection.execute(sa.select(_REACHES))}  # noqa: SLF001  SQLAlchemy's documented name for it
            new = [Reach(target=each, known_since=now) for each in wanted if each not in known]
            for each in new:
                connection.execute(sa.insert(_REACHES).values(_values(_REACHES, each)))
        return {each: known[each] for each in wanted if each in known} | {each.target: each for each in new}

    def add_canary(self, canary: Canary) -> None:
        with self._state.begin() as connection:
            connection.execute(sa.insert(_CANARIES).values(_values(_CANARIES, canary)))

    def canaries(self) -> list[Canary]:
        """Return the test messages that are remembered, oldest first."""
        with self._state.begin() as connection:
            rows = connection.execute(sa.select(_CANARIES).order_by(_CANARIES.c.sent, _CANARIES.c.code))
            return [Canary(**row._mapping) for row in rows]  # noqa: SLF001  SQLAlchemy's documented name for it

    def acknowledge_canary(self, code: str, *, by: str, now: datetime) -> bool:
        """Note that a test message reached somebody; return False if its code is not known."""
        with self._state.begin() as connection:
            updated = connection.execute(
                sa.update(_CANARIES).where(_CANARIES.c.code == code).values(acknowledged=now, by=by)
            )
            return bool(updated.rowcount)

    @staticmethod
    def new_id() -> str:
        return str(uuid.uuid4())


def _rewrite(connection: Connection, old: Mapping[str, Alert], new: Iterable[Alert]) -> None:
    kept = {alert.fingerprint: alert for alert in new}
    for fingerprint in old.keys() - kept.keys():
        connection.execute(sa.delete(_ALERTS).where(_ALERTS.c.fingerprint == fingerprint))
    for fingerprint, alert in kept.items():
        if fingerprint not in old:
            connection.execute(sa.insert(_ALERTS).values(_alert_row(alert)))
        elif alert != old[fingerprint]:
            connection.execute(
                sa.update(_ALERTS).where(_ALERTS.c.fingerprint == fingerprint).values(_alert_row(alert))
            )


def _supersede(connection: Connection, messages: Iterable[Message], now: datetime) -> None:
    """Give up what still waits for a channel and of which a new message says what has become of it since.

    A message that was refused is tried again much later: "critical" must not arrive after "over". One that is being
    sent at this moment is left alone.
    """
    said: dict[str, set[str]] = {}
    for each in messages:
        said.setdefault(each.channel, set()).update(each.fingerprints)
    waiting = sa.select(_MESSAGES).where(
        _MESSAGES.c.sent.is_(None),
        _MESSAGES.c.given_up.is_(None),
        _MESSAGES.c.channel.in_(list(said)),
        sa.or_(_MESSAGES.c.claimed_until.is_(None), _MESSAGES.c.claimed_until <= now),
    )
    for row in connection.execute(waiting).all():
        if row.fingerprints and said[row.channel].issuperset(row.fingerprints):
            values = {"given_up": now, "error": "a later message says what became of it"}
            connection.execute(sa.update(_MESSAGES).where(_MESSAGES.c.id == row.id).values(values))


def _forget(connection: Connection, now: datetime) -> None:
    """Drop what nobody asks for any more; of the test messages of a channel the newest acknowledged one is kept."""
    ended = sa.or_(_MESSAGES.c.sent < now - _KEPT, _MESSAGES.c.given_up < now - _KEPT)
    connection.execute(sa.delete(_MESSAGES).where(ended))
    connection.execute(sa.delete(_SILENCES).where(_SILENCES.c.until < now - _KEPT))
    later = _CANARIES.alias()
    newer = sa.exists().where(later.c.channel == _CANARIES.c.channel, later.c.acknowledged > _CANARIES.c.sent)
    connection.execute(sa.delete(_CANARIES).where(_CANARIES.c.sent < now - 12 * _KEPT, newer))


def _reach(connection: Connection, target: str, now: datetime, error: str | None) -> None:
    values = {"succeeded": now, "error": None} if error is None else {"failed": now, "error": error}
    updated = connection.execute(sa.update(_REACHES).where(_REACHES.c.target == target).values(values))
    if not updated.rowcount:
        connection.execute(sa.insert(_REACHES).values(target=target, known_since=now, **values))


def _values(table: sa.Table, record: object) -> dict[str, Any]:
    return {column.name: getattr(record, column.name) for column in table.columns}


def _alert_row(alert: Alert) -> dict[str, Any]:
    return _values(_ALERTS, alert) | {
        "facts": dict(alert.facts),
        "inhibited_by": list(alert.inhibited_by),
        "openings": [each.timestamp() for each in alert.openings],
        "told": {contact: at.timestamp() for contact, at in alert.told.items()},
    }


def _alert(row: sa.Row[Any]) -> Alert:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it
    values["inhibited_by"] = tuple(values["inhibited_by"])
    values["openings"] = tuple(_moment(each) for each in values["openings"])
    values["told"] = {contact: _moment(at) for contact, at in values["told"].items()}
    return Alert(**values)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _silence(row: sa.Row[Any]) -> Silence:
    return Silence(**row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it


def _message_row(message: Message) -> dict[str, Any]:
    values = {
        column.name: getattr(message, column.name)
        for column in _MESSAGES.columns
        if column.name != "claimed_until"
    }
    return values | {"fingerprints": list(message.fingerprints)}


def _message(row: sa.Row[Any]) -> Message:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it
    del values["claimed_until"]
    values["fingerprints"] = tuple(values["fingerprints"])
    return Message(**values)
