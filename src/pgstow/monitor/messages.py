"""The words of a message: a short title, and everything somebody woken at night needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgstow.monitor.alerts import Notification, Why, is_flapping
from pgstow.monitor.findings import Severity, id_of
from pgstow.monitor.policy import AlertPolicy
from pgstow.monitor.rules.common import lasting, moment, some
from pgstow.state.alerts import Alert

__all__ = ["Words", "address", "blind", "canary", "seeing_again", "words"]

_MOST_SINGLE = 3  # more to one channel at once become one message

_HEADS: Mapping[Why, str] = {
    Why.OPENED: "",
    Why.ESCALATED: "not acknowledged: ",
    Why.WORSE: "worse: ",
    Why.REMINDER: "still: ",
    Why.RECOVERED: "",
    Why.DROPPED: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A message as it is to be sent over one channel."""

    title: str
    body: str
    is_critical: bool
    fingerprints: tuple[str, ...] = ()


def address(
    notifications: Iterable[Notification], policy: AlertPolicy, channels: Sequence[str]
) -> dict[str, list[Notification]]:
    """Return what is to be told over each channel, everything once however many contacts share it.

    What is wrong with a channel goes over all others. A channel of a contact that does not exist is left out.
    """
    of_contact = {contact.name: contact.channels for contact in policy.contacts}
    told: dict[str, dict[str, Notification]] = defaultdict(dict)
    for each in notifications:
        broken = each.alert.without_channel
        chosen = (
            of_contact.get(each.contact, ())
            if broken is None
            else [name for name in channels if name != broken]
        )
        for channel in chosen:
            if channel in channels and channel != broken:
                told[channel].setdefault(each.alert.fingerprint, each)
    return {channel: list(by_fingerprint.values()) for channel, by_fingerprint in told.items()}


def words(notifications: Sequence[Notification], policy: AlertPolicy) -> list[Words]:
    """Return the messages for one channel; many at once are one, so that the channel stays readable."""
    if len(notifications) <= _MOST_SINGLE:
        return [_single(each, policy) for each in notifications]
    ordered = sorted(notifications, key=_order)
    wrong = [each for each in ordered if not each.why.is_end]
    is_critical = any(_is_critical(each.alert) for each in wrong)
    over = sum(each.why is Why.RECOVERED for each in ordered)
    unwatched = len(ordered) - len(wrong) - over
    told = [
        some(len(wrong), "alert") if wrong else "",
        f"{unwatched} not watched any more" if unwatched else "",
        f"{over} over" if over else "",
    ]
    title = ", ".join(part for part in told if part) if over < len(ordered) else "all of it is over"
    return [
        Words(
            title=f"[pgstow] {title}",
            body="\n\n".join([*("\n".join(_paragraph(each)) for each in ordered), *_contacts(policy, wrong)]),
            is_critical=is_critical,
            fingerprints=tuple(each.alert.fingerprint for each in ordered),
        )
    ]


def blind(host: str, why: str, since: datetime) -> Words:
    """Return the message that nobody can say whether anything is wrong."""
    return Words(
        title=f"[pgstow] CRITICAL: alerts cannot be evaluated on {host}",
        body=f"Critical: since {moment(since)} pgstow on {host} has not been able to judge whether anything is wrong: {why}\n\n"
        "Whatever fails meanwhile is told by nobody but dead man's switches.\n\n"
        "What to do: look at the state database and at the log of pgstow serve; pgstow alerts check tries the same by hand, and "
        "pgstow status --check looks at the repositories without it. Its end is told.",
        is_critical=True,
    )


def seeing_again(host: str, since: datetime) -> Words:
    """Return the message that alerts are evaluated again."""
    return Words(
        title=f"[pgstow] OVER: alerts are evaluated again on {host}",
        body=f"Over: since {moment(since)} alerts could not be evaluated on {host}. What is wrong now is told as ever.",
        is_critical=False,
    )


def canary(channel: str, code: str) -> Words:
    """Return the test message of a channel."""
    return Words(
        title=f"[pgstow] test of {channel}: {code}",
        body=f"This is a test: nothing is wrong. It shows that alerts of pgstow reach you over {channel}.\n\n"
        f"To say that it did: pgstow alerts ack {code}\n\n"
        "While nobody does, whether this channel reaches anybody is unknown, and that is an alert itself.",
        is_critical=False,
    )


def _single(notification: Notification, policy: AlertPolicy) -> Words:
    alert, why = notification.alert, notification.why
    is_over = why.is_end
    state = {Why.RECOVERED: "OVER", Why.DROPPED: "NOT WATCHED"}.get(why, alert.severity.upper())
    paragraphs = ["\n".join(_paragraph(notification)), *_contacts(policy, () if is_over else [notification])]
    return Words(
        title=f"[pgstow] {state}: {_HEADS[why]}{_shortened(alert.rule)} {alert.subject}",
        body="\n\n".join(paragraphs),
        is_critical=not is_over and _is_critical(alert),
        fingerprints=(alert.fingerprint,),
    )


def _shortened(rule: str) -> str:
    return rule.replace("_", " ")


def _paragraph(notification: Notification) -> list[str]:
    alert = notification.alert
    if notification.why is Why.DROPPED:
        return [
            f"Not watched any more: {_shortened(alert.rule)} {alert.subject}: it is not in the settings, and nobody has seen it for an hour.",
            "Whether it is over is unknown.",
            f"It was: {alert.message}",
        ]
    if notification.why is Why.RECOVERED:
        assert alert.closed is not None
        began = alert.opened or alert.first_seen
        lasted = lasting((alert.closed - began).total_seconds())
        return [
            f"Over: {_shortened(alert.rule)} {alert.subject}, after {lasted}.",
            f"It was: {alert.message}",
        ]
    head = {
        Why.ESCALATED: "Nobody has acknowledged this yet.",
        Why.WORSE: "This has become worse.",
        Why.REMINDER: "This is still so.",
    }.get(notification.why)
    lines = [f"{alert.severity.capitalize()}: {alert.message}"]
    if head:
        lines.insert(0, head)
    lines.append(f"Since: {moment(alert.since or alert.first_seen)}")
    if alert.opened is not None and is_flapping(alert, alert.judged):
        lines.append("It comes and goes; its end is told once it has been quiet for an hour.")
    lines += [
        f"What to do: {alert.hint}",
        f"Acknowledge: pgstow alerts ack {id_of(alert.fingerprint)}   ({alert.fingerprint}; see docs/alerts.md, {alert.rule})",
    ]
    return lines


def _contacts(policy: AlertPolicy, wrong: Sequence[Notification]) -> list[str]:
    """Return whom to call, in the order of escalation, below what is critical."""
    if not any(_is_critical(each.alert) for each in wrong):
        return []
    called = sorted(policy.contacts, key=lambda contact: contact.after_s)
    people = [
        f"{contact.name}{f', {contact.phone}' if contact.phone else ''}"
        + (f" (told after {lasting(contact.after_s)})" if contact.after_s else "")
        for contact in called
    ]
    return ["Contacts: " + "; ".join(people)] if people else []


def _is_critical(alert: Alert) -> bool:
    return alert.severity == Severity.CRITICAL


def _order(notification: Notification) -> tuple[bool, int, str]:
    alert = notification.alert
    return notification.why.is_end, -Severity(alert.severity).rank, alert.fingerprint
