"""What a retention plan is made from: backups, what was marked, how the newest runs ended, and the time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pgstow.catalog.backups import IMPORT, BackupRecord
from pgstow.repository import Hold, Proof, Retirement

__all__ = ["Attempt", "AttemptHistory", "BackupFacts", "RetentionState", "facts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """What retention needs to know of one backup. ``time`` is the moment its data is from."""

    id: str
    name: str
    kind: str
    time: datetime
    is_partial: bool = False
    is_damaged: bool = False
    label: str | None = None
    size_bytes: int | None = None
    set_id: str | None = None

    @property
    def short_id(self) -> str:
        return self.id[:8]

    @property
    def is_whole(self) -> bool:
        """Whether it brings the database back: nothing was left out and nothing was lost.

        Not a dump that was imported, which shows nothing of whether backups are made.
        """
        return not (self.is_partial or self.is_damaged or self.kind == IMPORT)

    @property
    def order(self) -> tuple[datetime, str]:
        return self.time, self.id

    def day(self, zone: ZoneInfo) -> date:
        """Return the calendar day it is from."""
        return self.time.astimezone(zone).date()


def facts_of(record: BackupRecord) -> BackupFacts:
    """Return what retention needs of a catalogued backup."""
    return BackupFacts(
        id=record.id,
        name=record.name,
        kind=record.kind,
        time=record.time,
        is_partial=record.is_partial,
        is_damaged=record.is_damaged,
        label=record.label,
        size_bytes=record.size_bytes,
        set_id=record.set_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The newest run that was to back up a database, as far as somebody wrote it down.

    ``when`` is when it ended; ``has_succeeded`` is None where that is not known: then only the repository is judged.
    A failure is made up for by a newer backup of the same ``kind`` or of the whole database; without a kind, by any.
    """

    name: str
    when: datetime
    has_succeeded: bool | None
    error: str | None = None
    kind: str | None = None

    def is_made_up_for_by(self, backup: BackupFacts) -> bool:
        """Whether this backup has what the attempt was to bring, and is newer."""
        return backup.time > self.when and (self.kind in (None, backup.kind) or backup.is_whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptHistory:
    """The newest run of each database; ``problem`` says why nothing is known of runs where something should be.

    ``names`` are the databases in the settings; None where there are none to know it from.
    """

    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    problem: str | None = None
    names: Collection[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionState:
    """Everything a plan depends on besides the policy. ``now`` is by the store's clock.

    ``doubtful_proofs`` are ids of backups with a proof that cannot be read; ``doubts`` says, by database, what is wrong with
    the newest backup that its snapshot does not tell.
    """

    backups: Sequence[BackupFacts]
    now: datetime
    holds: Mapping[str, Sequence[Hold]] = field(default_factory=dict)
    proofs: Sequence[Proof] = ()
    doubtful_proofs: Collection[str] = ()
    retirements: Mapping[str, Retirement] = field(default_factory=dict)
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
