"""From findings to alerts: what is told to whom, and when. A pure function of what was known before and of the time.

A finding becomes an alert when its rule's patience ends, and the alert is over when it was not found as often as the rule
wants. One that opens again and again is kept open until it has been quiet for an hour. An alert is told to the first
contact, to the next ones while nobody acknowledges it, and again after a while; who was told hears of its end.

Hosts that share alerts may have different settings for a while. Who does not look at something ends no alert of it; one that
nobody has seen for an hour, nor looked for, is dropped, which is not told as its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from pgstow.monitor.findings import Evaluation, Finding, Severity
from pgstow.monitor.policy import AlertPolicy, Contact
from pgstow.monitor.rules import patience_of
from pgstow.state.alerts import Alert, Silence

__all__ = ["Notification", "Step", "Why", "advance", "is_flapping"]

_FLAP_WINDOW = timedelta(hours=1)
_FLAP_OPENINGS = 3
_UNWATCHED = timedelta(hours=1)  # after which what is in these settings no more is taken to be in nobody's
_REMEMBERED = timedelta(days=7)  # how long an alert that is over is still listed


class Why(StrEnum):
    """Why somebody is told."""

    OPENED = "opened"
    ESCALATED = "escalated"  # nobody acknowledged it in time
    WORSE = "worse"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    DROPPED = "dropped"  # nobody looks at it any more: whether it is over is unknown

    @property
    def is_end(self) -> bool:
        return self in (Why.RECOVERED, Why.DROPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """That one contact is to be told of one alert."""

    why: Why
    alert: Alert
    contact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """All alerts as they are now, those that are over as well, and who is to be told."""

    alerts: tuple[Alert, ...]
    notifications: tuple[Notification, ...]


def advance(
    alerts: Mapping[str, Alert],
    evaluation: Evaluation,
    *,
    silences: Sequence[Silence],
    policy: AlertPolicy,
    now: datetime,
) -> Step:
    """Return what became of the alerts and who is to be told, after one look at the facts.

    Looking twice at the same ``now`` counts as once. Severities of findings are ``Severity``; of the contacts, the one
    with the shortest delay is told first.
    """
    alerts = {fingerprint: _not_ahead(alert, now) for fingerprint, alert in alerts.items()}
    found = {finding.fingerprint: finding for finding in evaluation.findings}
    seen = [
        alert
        for fingerprint in sorted(alerts.keys() | found.keys())
        if (alert := _seen(fingerprint, alerts.get(fingerprint), found.get(fingerprint), evaluation, now))
    ]
    current: list[Alert] = []
    notifications: list[Notification] = []
    unsettled = {alert.fingerprint for alert in seen if alert.closed is None}
    for alert in seen:
        told, who = _tell(
            alert,
            is_silenced=any(silence.covers(alert.fingerprint, now) for silence in silences),
            is_inhibited=any(each in unsettled for each in alert.inhibited_by),
            is_watched=evaluation.is_watched(alert.rule, alert.subject),
            policy=policy,
            now=now,
        )
        current.append(told)
        notifications += who
    return Step(alerts=tuple(current), notifications=tuple(notifications))


def is_flapping(alert: Alert, now: datetime) -> bool:
    """Whether an alert opened so often within an hour that its end is not believed at once."""
    return len(_recent(alert.openings, now)) >= _FLAP_OPENINGS


def _not_ahead(alert: Alert, now: datetime) -> Alert:
    """Return an alert as if what a clock that was ahead wrote down had happened now: it would go on until then."""
    if alert.judged <= now:
        return alert
    return replace(
        alert,
        first_seen=min(alert.first_seen, now),
        last_seen=min(alert.last_seen, now),
        judged=now,
        clean_since=_at_latest(alert.clean_since, now),
        opened=_at_latest(alert.opened, now),
        closed=_at_latest(alert.closed, now),
        tellable_since=_at_latest(alert.tellable_since, now),
        silence_ended=_at_latest(alert.silence_ended, now),
        acknowledged=_at_latest(alert.acknowledged, now),
        openings=tuple(min(each, now) for each in alert.openings),
        told={contact: min(at, now) for contact, at in alert.told.items()},
    )


def _at_latest(moment: datetime | None, now: datetime) -> datetime | None:
    return None if moment is None else min(moment, now)


def _recent(openings: Iterable[datetime], now: datetime) -> tuple[datetime, ...]:
    return tuple(each for each in openings if now - each <= _FLAP_WINDOW)


# Whether it is open


def _seen(
    fingerprint: str, alert: Alert | None, finding: Finding | None, evaluation: Evaluation, now: datetime
) -> Alert | None:
    """Return the alert after it was found, or not; None when nothing is left to remember."""
    if finding is not None:
        return _found(alert, finding, now)
    assert alert is not None
    if alert.closed is not None:
        return alert if now - alert.closed <= _REMEMBERED else None
    is_watched = evaluation.is_watched(alert.rule, alert.subject)
    if evaluation.is_undecided(fingerprint) or (not is_watched and now - alert.last_seen < _UNWATCHED):
        return alert
    if alert.opened is None:
        return _withdrawn(alert, now)
    return _not_found(alert, now)


def _withdrawn(alert: Alert, now: datetime) -> Alert | None:
    """Forget what was never an alert; but not that there was one before, which would hide that it flaps."""
    return replace(alert, closed=now, judged=now) if _recent(alert.openings, now) else None


def _found(alert: Alert | None, finding: Finding, now: datetime) -> Alert:
    if alert is None or alert.closed is not None:
        alert = _new(finding, now, openings=alert.openings if alert is not None else ())
    else:
        alert = _as_it_says_now(alert, finding)
        if now > alert.judged:
            if alert.opened is not None and alert.clean >= patience_of(alert.rule).clean:
                # Only kept open because it flaps: it would have opened again.
                alert = replace(alert, openings=(*_recent(alert.openings, now), now))
            alert = replace(
                alert,
                last_seen=now,
                judged=now,
                sightings=alert.sightings + 1,
                clean=0,
                clean_since=None,
            )
    patience = patience_of(alert.rule)
    seen_s = (now - alert.first_seen).total_seconds()
    is_due = alert.sightings >= patience.sightings or 0 < patience.seconds <= seen_s
    if alert.opened is None and is_due:
        alert = replace(alert, opened=now, openings=(*_recent(alert.openings, now), now))
    return alert


def _new(finding: Finding, now: datetime, *, openings: tuple[datetime, ...]) -> Alert:
    bare = Alert(
        fingerprint=finding.fingerprint,
        rule=finding.rule,
        subject=finding.subject,
        severity=finding.severity.value,
        message=finding.message,
        hint=finding.hint,
        first_seen=now,
        last_seen=now,
        judged=now,
        openings=openings,
    )
    return _as_it_says_now(bare, finding)


def _as_it_says_now(alert: Alert, finding: Finding) -> Alert:
    return replace(
        alert,
        severity=finding.severity.value,
        message=finding.message,
        hint=finding.hint,
        since=finding.since,
        extent=finding.extent,
        facts=dict(finding.facts),
        inhibited_by=finding.inhibited_by,
        without_channel=finding.without_channel,
    )


def _not_found(alert: Alert, now: datetime) -> Alert:
    if now <= alert.judged:
        return alert
    alert = replace(alert, judged=now, clean=alert.clean + 1, clean_since=alert.clean_since or now)
    assert alert.clean_since is not None
    is_quiet = not is_flapping(alert, alert.clean_since) or now - alert.clean_since >= _FLAP_WINDOW
    if alert.clean >= patience_of(alert.rule).clean and is_quiet:
        return replace(alert, closed=now)
    return alert


# Who is told


def _tell(
    alert: Alert,
    *,
    is_silenced: bool,
    is_inhibited: bool,
    is_watched: bool,
    policy: AlertPolicy,
    now: datetime,
) -> tuple[Alert, list[Notification]]:
    if alert.closed is not None:
        return _tell_end(alert, Why.RECOVERED if is_watched else Why.DROPPED)
    if alert.opened is None:
        return alert, []
    if is_silenced or is_inhibited:
        # The flag of a silence stays until the alert can be told: then its end has to be noticed.
        return replace(
            alert,
            tellable_since=None,
            is_silenced=alert.is_silenced or is_silenced,
            is_inhibited=is_inhibited,
        ), []
    alert = replace(
        alert,
        is_silenced=False,
        silence_ended=now if alert.is_silenced else alert.silence_ended,
        is_inhibited=False,
        tellable_since=alert.tellable_since or now,
    )
    is_worse = _is_worse(alert)
    if is_worse:  # whoever acknowledged it has not seen this
        alert = replace(alert, acknowledged=None, acknowledged_by=None)
    if alert.acknowledged is not None:
        return alert, []
    reasons = {
        contact.name: why
        for contact in policy.contacts
        if (why := _why(alert, contact, policy, now, is_worse=is_worse))
    }
    if not reasons:
        return alert, []
    alert = replace(
        alert,
        told={**alert.told, **dict.fromkeys(reasons, now)},
        told_severity=alert.severity,
        told_extent=alert.extent,
    )
    return alert, [Notification(why=why, alert=alert, contact=name) for name, why in reasons.items()]


def _why(alert: Alert, contact: Contact, policy: AlertPolicy, now: datetime, *, is_worse: bool) -> Why | None:
    """Return why a contact is to be told now; None when not."""
    assert alert.tellable_since is not None
    if (now - alert.tellable_since).total_seconds() < contact.after_s:
        return None
    before = alert.told.get(contact.name)
    if before is None:
        return Why.ESCALATED if alert.told else Why.OPENED
    if is_worse:
        return Why.WORSE
    if alert.silence_ended is not None and before < alert.silence_ended:
        return Why.REMINDER  # the silence is over and it is still wrong
    return Why.REMINDER if (now - before).total_seconds() >= policy.repeat_s else None


def _tell_end(alert: Alert, why: Why) -> tuple[Alert, list[Notification]]:
    """Tell everybody who was told that it is over, silence or not: nobody is left believing what is no longer so."""
    ended = replace(alert, told={}, told_severity=None, told_extent=0)
    return ended, [Notification(why=why, alert=alert, contact=name) for name in alert.told]


def _is_worse(alert: Alert) -> bool:
    if not alert.told or alert.told_severity is None:
        return False
    return (
        Severity(alert.severity).rank > Severity(alert.told_severity).rank or alert.extent > alert.told_extent
    )
