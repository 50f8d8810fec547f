"""What a report is judged from, as it stands in ``facts.json`` of a bundle.

A documented, versioned contract (docs/evidence.md). Everything that a control says follows from this alone, so that whoever
has a bundle can judge again. Unlike other records unknown keys are refused: what a program does not know it cannot judge.
What could not be looked at is None and has an error beside it. Times are aware and in UTC.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

__all__ = [
    "FACTS_FORMAT",
    "AttestationFacts",
    "AuditEntryFacts",
    "AuditFacts",
    "AuditProblemFacts",
    "BackupFacts",
    "ChannelFacts",
    "DatabaseFacts",
    "DeletionFacts",
    "DrillFacts",
    "EvidenceFacts",
    "GoneFacts",
    "HeadFacts",
    "LockFacts",
    "ManifestFacts",
    "PeriodFacts",
    "PlanFacts",
    "PolicyFacts",
    "RepositoryFacts",
    "RunFacts",
    "SearchFacts",
    "SecretFacts",
    "ServerFacts",
    "TierFacts",
    "ToolFacts",
    "WaiverFacts",
]

FACTS_FORMAT = 1
_Seconds = Annotated[float, Field(ge=0, le=1e10)]  # three centuries


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PeriodFacts(_Facts):
    """From ``begin`` on, before ``end``."""

    name: str
    begin: AwareDatetime
    end: AwareDatetime


class PolicyFacts(_Facts):
    """What the settings call in time."""

    grace_s: _Seconds
    verify_within_s: _Seconds
    drill_within_s: _Seconds
    canary_within_s: _Seconds


class DatabaseFacts(_Facts):
    """A database of the settings."""

    name: str
    rpo_s: float | None = None
    rto_s: float | None = None
    is_partial: bool = False
    critical: tuple[str, ...] = ()


class PlanFacts(_Facts):
    """A plan of the settings. ``dues`` are all times in the period at which it had to run; None without a schedule.

    ``late_s`` is how late a run may be: jitter and grace. ``known_since``: before that nothing shows that there was this plan.
    """

    name: str
    job: str
    kind: str
    databases: tuple[str, ...]
    repositories: tuple[str, ...]
    cron: str | None = None
    dues: tuple[AwareDatetime, ...] | None = None
    late_s: _Seconds = 0.0
    known_since: AwareDatetime | None = None


class DeletionFacts(_Facts):
    """What the credentials that this host uses may destroy in a repository. ``error``: it was asked, and is not known.

    ``may_write`` False: they are not those of who makes backups, and say nothing of these. ``keeps_versions``: what is
    deleted or overwritten stays as an older version. Of a folder ``may_write`` says all of it.
    """

    error: str | None = None
    is_folder: bool = False
    may_write: bool = False
    may_delete: bool = False
    may_delete_versions: bool = False
    keeps_versions: bool = False


class RepositoryFacts(_Facts):
    """A repository as it was found. ``error`` says why it could not be opened: then nothing below is known.

    ``provider``: ``folder``, or the service with its endpoint; ``transport``: ``none`` (nothing leaves the machine), ``https`` or ``http``.
    ``overdue``: backups that retention should have let go days ago. ``known_since``: nothing shows it before.
    ``key_ids`` are the keys that are there; ``keys_removed`` when keys were removed since the period ended, by the audit trail.
    ``tls``: what a connection to its store negotiated when the report was made; None: not known, see ``tls_error``.
    ``deletion`` None: nobody asked.
    """

    name: str
    location: str
    known_since: AwareDatetime | None = None
    error: str | None = None
    unreadable: int = 0  # snapshots: backups may be missing from the list
    encryption: str | None = None
    key_times: tuple[AwareDatetime, ...] | None = None
    keys_undated: int = 0  # keys that do not say when they were made
    key_ids: tuple[str, ...] | None = None
    keys_removed: tuple[AwareDatetime, ...] | None = None
    overdue: int | None = None
    provider: str | None = None
    region: str | None = None
    account: str | None = None
    transport: Literal["none", "https", "http"] | None = None
    tls: str | None = None
    tls_error: str | None = None
    deletion: DeletionFacts | None = None
    drills_error: str | None = None
    drills_unreadable: int = 0


class ManifestFacts(_Facts):
    """What a backup says of itself. ``outdated`` is what is known against the server's release, None if nothing."""

    tls: str | None = None  # the version that was negotiated; None: not encrypted
    via: Literal["socket", "loopback", "network"] | None = (
        None  # how the server was reached; None: not recorded
    )
    imported_from: str | None = None  # a dump that somebody else made: how they connected is not known
    globals_captured: bool = False
    globals_missing: tuple[str, ...] = ()
    extensions: int = 0
    has_configuration: bool = False  # settings of server and database are in it
    server_version: str
    outdated: str | None = None
    is_release_known: bool = True  # whether this program knows which of these releases are good


class BackupFacts(_Facts):
    """A backup that is there now. ``manifest`` None: it was not read, or could not be; see ``manifest_error``.

    ``is_whole``: it holds everything that the settings want; ``counts_for_rpo``: it limits what would be lost.
    """

    id: str
    database: str
    kind: str
    time: AwareDatetime
    repositories: tuple[str, ...]
    is_whole: bool
    counts_for_rpo: bool
    is_damaged: bool = False
    manifest: ManifestFacts | None = None
    manifest_error: str | None = None


class TierFacts(_Facts):
    """The backups of one kind of one database in one repository, whenever they were made."""

    repository: str
    database: str
    kind: str
    backups: int
    oldest: AwareDatetime
    newest: AwareDatetime


class LockFacts(_Facts):
    """How the objects of the newest backup of a kind are held in a repository, read back from its store.

    They should be until ``needed`` (None: the rules of the settings let this kind go on no day). Of ``objects`` so many
    are ``held`` until then in compliance mode, and ``liftable`` in governance mode. ``error``: it could not be read back;
    ``is_lockable`` False: the place cannot hold anything until a day.
    """

    repository: str
    database: str
    kind: str
    backup_id: str
    made: AwareDatetime
    needed: AwareDatetime | None = None
    is_lockable: bool | None = None
    objects: int = 0
    held: int = 0
    liftable: int = 0
    earliest: AwareDatetime | None = None  # of those that are held at all, when the first one is let go
    error: str | None = None


class GoneFacts(_Facts):
    """A backup that a run put into a repository, that is not there, and that the rules of the settings would still keep.

    No entry of the audit trail says that retention let it go. ``until``: the last day it should be there; None: always.
    """

    repository: str
    database: str
    kind: str
    backup_id: str
    made: AwareDatetime
    until: date | None = None


class RunFacts(_Facts):
    """A run of the history. ``stored_in`` are the repositories in which it ended without an error, ``failed_in`` the others."""

    id: str
    plan: str | None = None
    job: str
    kind: str
    database: str | None = None
    due: AwareDatetime | None = None
    started: AwareDatetime
    finished: AwareDatetime | None = None
    outcome: str
    backup_id: str | None = None
    stored_in: tuple[str, ...] = ()
    failed_in: tuple[str, ...] = ()
    error_code: str | None = None


class DrillFacts(_Facts):
    """A drill, as ``drills/ID.json`` of the bundle tells it in full; ``sha256`` is of that file."""

    id: str
    sha256: str
    repository: str
    backup_id: str
    database: str
    kind: str
    is_partial: bool = False
    started: AwareDatetime
    finished: AwareDatetime
    outcome: Literal["passed", "failed", "interrupted"]
    error: str | None = None
    place: str
    is_isolated: bool
    is_removed: bool
    restored_s: float | None = None
    proven_s: float | None = None
    rto_target_s: float | None = None
    checks_passed: int = 0
    checks_failed: int = 0
    checks_unknown: int = 0
    tables_equal: int = 0
    tables_compared: int = 0
    has_data_checks: bool = False  # every row was compared with what the repository holds, and was the same


class ChannelFacts(_Facts):
    """A channel over which alerts go. ``acknowledged`` are the times at which somebody confirmed a test message."""

    name: str
    known_since: AwareDatetime
    acknowledged: tuple[AwareDatetime, ...] = ()
    last_sent: AwareDatetime | None = None


class ServerFacts(_Facts):
    """A server that was asked for its databases. ``database`` of the settings leads to it, and is called ``source`` there."""

    database: str
    source: str | None = None
    identity: str | None = None
    found: tuple[str, ...] | None = None
    error: str | None = None


class ToolFacts(_Facts):
    """A program of this machine that makes or restores backups."""

    name: str
    version: str
    outdated: str | None = None
    is_release_known: bool = True


class SecretFacts(_Facts):
    """How secrets stand in the settings file: the reader refuses those in plain text; files others may read are counted.

    ``known`` secrets were searched for; of ``unknown`` ones the value could not be had, or is too short to tell it from other text.
    """

    references: int
    readable_by_others: int
    known: int = 0
    unknown: int = 0


class SearchFacts(_Facts):
    """A place in which the known secrets were searched for. ``found_in`` names what holds one, and never the secret.

    ``error``: not all of it could be looked at.
    """

    place: Literal["settings", "processes", "records", "logs"]
    looked_at: int
    found_in: tuple[str, ...] = ()
    error: str | None = None


class WaiverFacts(_Facts):
    control: str
    until: date
    reason: str
    by: str


class HeadFacts(_Facts):
    """The newest entry of a chain of the audit trail when the report was made."""

    chain: str
    number: int
    digest: str


class AuditProblemFacts(_Facts):
    kind: str
    chain: str
    number: int | None = None
    message: str


class AuditFacts(_Facts):
    """The audit trail in one repository, checked as a whole. ``error``: it could not be; then nothing below is known.

    ``id`` is that of the repository, which its entries carry.
    """

    repository: str
    id: str | None = None
    error: str | None = None
    entries: int = 0
    anchors: int = 0
    heads: tuple[HeadFacts, ...] = ()
    problems: tuple[AuditProblemFacts, ...] = ()
    pending: int = 0
    unenrolled: tuple[str, ...] = ()


class AttestationFacts(_Facts):
    """What somebody states to be so, in an entry of the audit trail; ``attestations.jsonl`` of the bundle has it as it was signed.

    ``by`` did it or had it done on the day ``on``, and says so in ``note``; ``until`` is the last day that it may be relied
    on, at most. ``key`` is what was measured, not stated: the key that a password which was fetched for a test opened.
    """

    repository: str
    chain: str
    number: int
    at: AwareDatetime
    host: str
    user: str
    control: str
    id: str
    by: str
    on: date
    until: date | None = None
    statement: str = ""
    note: str = ""
    file: str | None = None
    file_sha256: str | None = None
    key: str | None = None


class AuditEntryFacts(_Facts):
    """An entry of the audit trail within the period; ``audit.jsonl`` of the bundle has it as it was signed.

    ``had_secrets``: a password stood among the arguments of the command. ``tls``: the version that was negotiated with the
    store while it ran.
    """

    repository: str
    chain: str
    number: int
    at: AwareDatetime
    host: str
    user: str
    action: str
    subjects: tuple[str, ...] = ()
    result: str
    had_secrets: bool = False
    tls: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.repository}/{self.chain[:16]}/{self.number}"


class EvidenceFacts(_Facts):
    """Everything that was gathered at ``made``.

    ``rules`` is the version of the judgement that was passed on it. ``runs`` None: the history could not be read; it
    reaches back to ``runs_since`` (None: there is none). ``channels`` None: what was told could not be read.
    """

    format: int = FACTS_FORMAT
    rules: int
    pgstow: str
    made: AwareDatetime
    host: str
    by: str
    period: PeriodFacts
    policy: PolicyFacts
    databases: tuple[DatabaseFacts, ...] = ()
    plans: tuple[PlanFacts, ...] = ()
    repositories: tuple[RepositoryFacts, ...] = ()
    backups: tuple[BackupFacts, ...] = ()
    tiers: tuple[TierFacts, ...] = ()
    locks: tuple[LockFacts, ...] = ()
    gone: tuple[GoneFacts, ...] = ()
    runs: tuple[RunFacts, ...] | None = None
    runs_since: AwareDatetime | None = None
    runs_error: str | None = None
    drills: tuple[DrillFacts, ...] = ()
    channels: tuple[ChannelFacts, ...] | None = None
    contacts: int = 0
    servers: tuple[ServerFacts, ...] = ()
    excluded_databases: tuple[str, ...] = ()
    tools: tuple[ToolFacts, ...] = ()
    secrets: SecretFacts | None = None
    searches: tuple[SearchFacts, ...] = ()
    audit: tuple[AuditFacts, ...] = ()
    audit_entries: tuple[AuditEntryFacts, ...] = ()
    attestations: tuple[AttestationFacts, ...] = ()
    waivers: tuple[WaiverFacts, ...] = ()

    @property
    def begin(self) -> datetime:
        return self.period.begin

    @property
    def until(self) -> datetime:
        """The end of what can be judged: nothing is known of what comes after the report was made."""
        return min(self.period.end, self.made)

    def runs_cover(self, moment: datetime) -> bool:
        """Whether the history of runs tells what happened at that moment."""
        return self.runs is not None and self.runs_since is not None and self.runs_since <= moment

    def readable(self) -> tuple[RepositoryFacts, ...]:
        """Return the repositories whose backups are all known."""
        return tuple(one for one in self.repositories if one.error is None and not one.unreadable)

    @property
    def are_backups_known(self) -> bool:
        """Whether no repository may hold a backup that is not in the list."""
        return len(self.readable()) == len(self.repositories)

    def drills_of(self, *, since: datetime, until: datetime | None = None) -> tuple[DrillFacts, ...]:
        """Return the drills that began then, oldest first."""
        limit = until or self.until
        return tuple(
            sorted(
                (one for one in self.drills if since <= one.started < limit),
                key=lambda one: (one.started, one.id),
            )
        )

    @property
    def year_before(self) -> datetime:
        """The beginning of the twelve months that end where the judgement does."""
        return self.until - timedelta(days=366)
