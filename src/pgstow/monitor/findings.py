"""What a look at the facts says is wrong, and what it could not tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pgstow.core.errors import Fact
from pgstow.monitor.subjects import names_in

__all__ = ["Evaluation", "Finding", "Severity", "fingerprint", "id_of"]


class Severity(StrEnum):
    """How soon somebody has to act: at once, or in the coming days."""

    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """A greater number is worse."""
        return list(Severity).index(self)


def fingerprint(rule: str, subject: str) -> str:
    """Return what stays the same as long as the same thing is wrong with the same subject, whoever looks."""
    return f"{rule}/{subject}"


def id_of(fingerprint: str) -> str:
    """Return the short id of an alert, which a person types: the beginning of a hash of its fingerprint."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    ``since`` is when it began, where that is known. ``extent`` counts what it concerns: when it grows, it is told again.
    While a finding with one of the fingerprints ``inhibited_by`` exists, this one is its consequence and not told.
    ``without_channel`` is the channel that it is about, which cannot carry it.
    """

    rule: str
    subject: str
    severity: Severity
    message: str
    hint: str
    since: datetime | None = None
    extent: int = 1
    facts: Mapping[str, Fact] = field(default_factory=dict)
    inhibited_by: tuple[str, ...] = ()
    without_channel: str | None = None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rule, self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The findings, and what could not be judged: an open alert of that neither goes on nor ends.

    ``undecided`` holds fingerprints, and beginnings of fingerprints that end with ``*``. ``watched`` names what was looked
    at, as ``monitor.subjects`` does; None: everything there is.
    """

    findings: tuple[Finding, ...] = ()
    undecided: frozenset[str] = frozenset()
    watched: frozenset[str] | None = None

    def is_watched(self, rule: str, subject: str) -> bool:
        """Whether this was looked at, so that it is over where it was not found."""
        return self.watched is None or self.watched.issuperset(names_in(rule, subject))

    def is_undecided(self, fingerprint: str) -> bool:
        """Whether nothing can be said of this one."""
        return fingerprint in self.undecided or any(
            each.endswith("*") and fingerprint.startswith(each[:-1]) for each in self.undecided
        )
