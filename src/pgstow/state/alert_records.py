"""What the state database holds of alerts: records and their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pgstow.state.schema import METADATA, Moment

__all__ = [
    "ALERTS",
    "CANARIES",
    "EVALUATIONS",
    "MESSAGES",
    "REACHES",
    "SILENCES",
    "Alert",
    "Canary",
    "Message",
    "Reach",
    "Silence",
]


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


ALERTS = sa.Table(
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
SILENCES = sa.Table(
    "alert_silences",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("pattern", sa.String, nullable=False),
    sa.Column("until", Moment, nullable=False),
    sa.Column("made", Moment, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String),
)
MESSAGES = sa.Table(
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
CANARIES = sa.Table(
    "alert_canaries",
    METADATA,
    sa.Column("code", sa.String, primary_key=True),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("sent", Moment, nullable=False),
    sa.Column("acknowledged", Moment),
    sa.Column("by", sa.String),
)
REACHES = sa.Table(
    "alert_reaches",
    METADATA,
    sa.Column("target", sa.String, primary_key=True),
    sa.Column("known_since", Moment, nullable=False),
    sa.Column("succeeded", Moment),
    sa.Column("failed", Moment),
    sa.Column("error", sa.String),
)
EVALUATIONS = sa.Table(
    "alert_evaluations",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("made", Moment, nullable=False),
)
