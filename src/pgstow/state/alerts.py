"""Alerts, what silences them, and the messages that are to go out.

An evaluation of the rules changes the alerts and writes the messages in one transaction; messages are delivered after
it, each claimed by one host. A host that dies between sending a message and noting it leaves it to be sent once more:
every message goes out at least once, and only then more than once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pgstow.state.alert_records import (
    ALERTS,
    CANARIES,
    EVALUATIONS,
    MESSAGES,
    REACHES,
    SILENCES,
    Alert,
    Canary,
    Message,
    Reach,
    Silence,
)
from pgstow.state.database import StateDatabase

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
# What is further ahead was written by a clock that was wrong: it must not stand in the way until that time has come.
_LONGEST_LOOK = timedelta(minutes=15)  # from a look at the facts to its end, on another host
_LONGEST_WAIT = timedelta(hours=3)  # of a message that is tried again
# After that a channel that is unknown here is taken to be in nobody's settings.
_OF_OTHERS = timedelta(hours=1)

# What an evaluation makes of the alerts and silences there are: all alerts, and the messages to send.
Change = Callable[[Mapping[str, Alert], Sequence[Silence]], tuple[Iterable[Alert], Sequence[Message]]]


class AlertBook:
    """The alerts in a state database."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state

    # What the evaluation does

    def evaluate(self, change: Change, *, now: datetime) -> bool:
        """Replace all alerts by those that ``change`` makes of them and put its messages out, at once or not at all.

        One evaluation at a time, whatever the host. Return False, having changed nothing, when a look at the facts a little
        later than that of ``now`` was evaluated already: what is older must not overrule it.
        """
        with self._state.begin() as connection:
            self._exclude_others(connection)
            last = connection.execute(sa.select(EVALUATIONS.c.made)).scalar_one_or_none()
            if last is not None and now < last <= now + _LONGEST_LOOK:
                return False
            alerts = {alert.fingerprint: alert for alert in self._alerts(connection)}
            silences = [_silence(row) for row in connection.execute(sa.select(SILENCES))]
            new, messages = change(alerts, silences)
            _rewrite(connection, alerts, new)
            if messages:
                _supersede(connection, messages, now)
                connection.execute(sa.insert(MESSAGES), [_message_row(each) for each in messages])
            if last is None:
                connection.execute(sa.insert(EVALUATIONS).values(id=1, made=now))
            else:
                connection.execute(sa.update(EVALUATIONS).values(made=now))
            _forget(connection, now)
        return True

    def last_evaluation(self) -> datetime | None:
        """Return when the facts were last judged, by anybody."""
        with self._state.begin() as connection:
            made: datetime | None = connection.execute(sa.select(EVALUATIONS.c.made)).scalar_one_or_none()
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
        rows = connection.execute(sa.select(ALERTS).order_by(ALERTS.c.fingerprint))
        return [_alert(row) for row in rows]

    def acknowledge(self, fingerprint: str, *, by: str, now: datetime) -> bool:
        """Note that somebody takes care of an open alert; return False if there is no such alert."""
        statement = (
            sa.update(ALERTS)
            .where(
                ALERTS.c.fingerprint == fingerprint,
                ALERTS.c.opened.is_not(None),
                ALERTS.c.closed.is_(None),
            )
            .values(acknowledged=now, acknowledged_by=by)
        )
        with self._state.begin() as connection:
            self._exclude_others(connection)  # an evaluation under way would write back what it read
            return bool(connection.execute(statement).rowcount)

    def silences(self, now: datetime) -> list[Silence]:
        """Return the silences that have not expired, the first to expire first."""
        query = sa.select(SILENCES).where(SILENCES.c.until > now).order_by(SILENCES.c.until)
        with self._state.begin() as connection:
            return [_silence(row) for row in connection.execute(query)]

    def add_silence(self, silence: Silence) -> None:
        """Keep a silence; one of the same pattern is replaced by it."""
        with self._state.begin() as connection:
            self._exclude_others(connection)
            connection.execute(sa.delete(SILENCES).where(SILENCES.c.pattern == silence.pattern))
            connection.execute(sa.insert(SILENCES).values(_values(SILENCES, silence)))

    # Messages

    def add_message(self, message: Message) -> None:
        with self._state.begin() as connection:
            connection.execute(sa.insert(MESSAGES).values(_message_row(message)))

    def claim(
        self, now: datetime, *, without: Iterable[str] = (), known: Iterable[str] | None = None
    ) -> Message | None:
        """Return a message that is to be sent now, for us alone for three minutes; None when there is none.

        Those to channels in ``without`` are left for later; those to channels that are not ``known`` here are left for an
        hour to hosts that may have them in their settings.
        """
        is_ours = sa.true() if known is None else MESSAGES.c.channel.in_(list(known))
        waiting = (
            sa.select(MESSAGES)
            .where(
                MESSAGES.c.sent.is_(None),
                MESSAGES.c.given_up.is_(None),
                sa.or_(MESSAGES.c.next_attempt <= now, MESSAGES.c.next_attempt > now + _LONGEST_WAIT),
                MESSAGES.c.channel.not_in(list(without)),
                sa.or_(is_ours, MESSAGES.c.made <= now - _OF_OTHERS, MESSAGES.c.made > now + _LONGEST_WAIT),
                _is_unclaimed(now),
            )
            .order_by(MESSAGES.c.made, MESSAGES.c.id)
        )
        with self._state.begin() as connection:
            for row in connection.execute(waiting).all():
                seen = (
                    MESSAGES.c.claimed_until.is_(None)
                    if row.claimed_until is None
                    else (MESSAGES.c.claimed_until == row.claimed_until)
                )
                # The condition is judged again by the database: of two hosts that saw the same, one gets it.
                claimed = connection.execute(
                    sa.update(MESSAGES)
                    .where(MESSAGES.c.id == row.id, MESSAGES.c.sent.is_(None), seen)
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
                sa.update(MESSAGES).where(MESSAGES.c.id == message.id).values(sent=now, error=None)
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
            connection.execute(sa.update(MESSAGES).where(MESSAGES.c.id == message.id).values(values))
            _reach(connection, target, now, error)

    def messages(self) -> list[Message]:
        """Return the messages of the last thirty days, oldest first."""
        with self._state.begin() as connection:
            rows = connection.execute(sa.select(MESSAGES).order_by(MESSAGES.c.made, MESSAGES.c.id))
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
        """Return how each target was last reached; one that is new is known from now on.

        So is one that a clock which was ahead made known only in times to come: nothing would be missed until then.
        """
        wanted = list(targets)
        with self._state.begin() as connection:
            self._exclude_others(connection)
            ahead = REACHES.c.known_since > now
            connection.execute(sa.update(REACHES).where(ahead).values(known_since=now))
            known = {row.target: Reach(**row._mapping) for row in connection.execute(sa.select(REACHES))}  # noqa: SLF001  SQLAlchemy's documented name for it
            new = [Reach(target=each, known_since=now) for each in wanted if each not in known]
            for each in new:
                connection.execute(sa.insert(REACHES).values(_values(REACHES, each)))
        return {each: known[each] for each in wanted if each in known} | {each.target: each for each in new}

    def add_canary(self, canary: Canary) -> None:
        with self._state.begin() as connection:
            connection.execute(sa.insert(CANARIES).values(_values(CANARIES, canary)))

    def canaries(self) -> list[Canary]:
        """Return the test messages that are remembered, oldest first."""
        with self._state.begin() as connection:
            rows = connection.execute(sa.select(CANARIES).order_by(CANARIES.c.sent, CANARIES.c.code))
            return [Canary(**row._mapping) for row in rows]  # noqa: SLF001  SQLAlchemy's documented name for it

    def acknowledge_canary(self, code: str, *, by: str, now: datetime) -> bool:
        """Note that a test message reached somebody; return False if its code is not known."""
        with self._state.begin() as connection:
            updated = connection.execute(
                sa.update(CANARIES).where(CANARIES.c.code == code).values(acknowledged=now, by=by)
            )
            return bool(updated.rowcount)

    @staticmethod
    def new_id() -> str:
        return str(uuid.uuid4())


def _rewrite(connection: Connection, old: Mapping[str, Alert], new: Iterable[Alert]) -> None:
    kept = {alert.fingerprint: alert for alert in new}
    for fingerprint in old.keys() - kept.keys():
        connection.execute(sa.delete(ALERTS).where(ALERTS.c.fingerprint == fingerprint))
    for fingerprint, alert in kept.items():
        if fingerprint not in old:
            connection.execute(sa.insert(ALERTS).values(_alert_row(alert)))
        elif alert != old[fingerprint]:
            connection.execute(
                sa.update(ALERTS).where(ALERTS.c.fingerprint == fingerprint).values(_alert_row(alert))
            )


def _supersede(connection: Connection, messages: Iterable[Message], now: datetime) -> None:
    """Give up what still waits for a channel and of which a new message says what has become of it since.

    A message that was refused is tried again much later: "critical" must not arrive after "over". One that is being
    sent at this moment is left alone.
    """
    said: dict[str, set[str]] = {}
    for each in messages:
        said.setdefault(each.channel, set()).update(each.fingerprints)
    waiting = sa.select(MESSAGES).where(
        MESSAGES.c.sent.is_(None),
        MESSAGES.c.given_up.is_(None),
        MESSAGES.c.channel.in_(list(said)),
        _is_unclaimed(now),
    )
    for row in connection.execute(waiting).all():
        if row.fingerprints and said[row.channel].issuperset(row.fingerprints):
            values = {"given_up": now, "error": "a later message says what became of it"}
            connection.execute(sa.update(MESSAGES).where(MESSAGES.c.id == row.id).values(values))


def _is_unclaimed(now: datetime) -> sa.ColumnElement[bool]:
    claimed_until = MESSAGES.c.claimed_until
    return sa.or_(claimed_until.is_(None), claimed_until <= now, claimed_until > now + _LONGEST_WAIT)


def _forget(connection: Connection, now: datetime) -> None:
    """Drop what nobody asks for any more; of the test messages of a channel the newest acknowledged one is kept."""
    ended = sa.or_(MESSAGES.c.sent < now - _KEPT, MESSAGES.c.given_up < now - _KEPT)
    connection.execute(sa.delete(MESSAGES).where(ended))
    connection.execute(sa.delete(SILENCES).where(SILENCES.c.until < now - _KEPT))
    later = CANARIES.alias()
    newer = sa.exists().where(later.c.channel == CANARIES.c.channel, later.c.acknowledged > CANARIES.c.sent)
    connection.execute(sa.delete(CANARIES).where(CANARIES.c.sent < now - 12 * _KEPT, newer))


def _reach(connection: Connection, target: str, now: datetime, error: str | None) -> None:
    values = {"succeeded": now, "error": None} if error is None else {"failed": now, "error": error}
    updated = connection.execute(sa.update(REACHES).where(REACHES.c.target == target).values(values))
    if not updated.rowcount:
        connection.execute(sa.insert(REACHES).values(target=target, known_since=now, **values))


def _values(table: sa.Table, record: object) -> dict[str, Any]:
    return {column.name: getattr(record, column.name) for column in table.columns}


def _alert_row(alert: Alert) -> dict[str, Any]:
    return _values(ALERTS, alert) | {
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
        for column in MESSAGES.columns
        if column.name != "claimed_until"
    }
    return values | {"fingerprints": list(message.fingerprints)}


def _message(row: sa.Row[Any]) -> Message:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's documented name for it
    del values["claimed_until"]
    values["fingerprints"] = tuple(values["fingerprints"])
    return Message(**values)
