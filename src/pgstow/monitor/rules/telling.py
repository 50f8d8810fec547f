"""Rules about the way in which people are told: channels, test messages, dead man's switches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgstow.monitor.findings import Finding, Severity
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.rules.common import Judgement, lasting, moment

__all__ = [
    "ChannelFacts",
    "PingFacts",
    "TellingFacts",
    "canary_unacknowledged",
    "channel_failed",
    "ping_failed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFacts:
    """How a channel did: when it last failed and why, None once it carried a message again; and its test messages.

    ``known_since`` is when it was first seen in the settings.
    """

    name: str
    known_since: datetime
    failed: datetime | None = None
    error: str | None = None
    canary_sent: datetime | None = None
    canary_acknowledged: datetime | None = None  # when the newest one that was acknowledged, was


@dataclass(frozen=True, slots=True, kw_only=True)
class PingFacts:
    """How the dead man's switch of a plan was reached; ``error`` is None when it was."""

    plan: str
    failed: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TellingFacts:
    now: datetime
    policy: AlertPolicy
    channels: tuple[ChannelFacts, ...] = ()
    pings: tuple[PingFacts, ...] = ()


def channel_failed(facts: TellingFacts) -> Judgement:
    """A channel did not carry the last message it was given. Told over the others."""
    for channel in facts.channels:
        if channel.error is not None:
            yield Finding(
                rule="channel_failed",
                subject=channel.name,
                severity=Severity.CRITICAL,
                message=f"the channel {channel.name} does not deliver: {channel.error}",
                hint="look at its address and credentials; pgstow alerts test tries it",
                since=channel.failed,
                without_channel=channel.name,
            )


def canary_unacknowledged(facts: TellingFacts) -> Judgement:
    """Nobody has acknowledged a test message of a channel for too long: whether it reaches people is unknown."""
    within = timedelta(seconds=facts.policy.canary_within_s)
    for channel in facts.channels:
        proven = channel.canary_acknowledged
        if facts.now - max(channel.known_since, proven or channel.known_since) <= within:
            continue
        last = f"last acknowledged {moment(proven)}" if proven else "never acknowledged"
        sent = (
            f"the last one was sent {moment(channel.canary_sent)}" if channel.canary_sent else "none was sent"
        )
        yield Finding(
            rule="canary_unacknowledged",
            subject=channel.name,
            severity=Severity.WARNING,
            message=f"whether {channel.name} reaches anybody cannot be told: its test message was {last} "
            f"({sent}), and every {lasting(facts.policy.canary_within_s)} one must be",
            hint="pgstow alerts test sends one; who gets it runs pgstow alerts ack with the code in it",
            since=proven,
        )


def ping_failed(facts: TellingFacts) -> Judgement:
    """The dead man's switch of a plan could not be reached: it will raise an alarm of its own."""
    for ping in facts.pings:
        if ping.error is not None:
            yield Finding(
                rule="ping_failed",
                subject=ping.plan,
                severity=Severity.WARNING,
                message=f"the ping of the plan {ping.plan} did not arrive: {ping.error}",
                hint="the backup itself does not depend on it; look at the address and the network",
                since=ping.failed,
            )
