"""Entries of the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

__all__ = [
    "HAD_SECRETS",
    "STORE_TLS",
    "AuditEntry",
    "AuditProblem",
    "AuditVerdict",
    "ChainHead",
    "ForeignHead",
    "ProblemKind",
    "Result",
]

# Names of facts that others judge by.
HAD_SECRETS = "password_in_arguments"  # a password stood among the arguments of the command
STORE_TLS = "store_tls"  # the version of TLS that was negotiated with the store meanwhile

# begun: written before something that cannot be taken back; the entry that tells how it ended follows, or is missing.
Result = Literal["begun", "done", "partial", "failed", "interrupted"]
ProblemKind = Literal[
    "edited", "reordered", "missing", "truncated", "forked", "unsigned", "unenrolled", "unreadable", "gap"
]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ChainHead:
    """The newest entry of a chain that somebody has seen: number and SHA-256 of its bytes, in hex."""

    chain: str
    number: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ForeignHead:
    """A head in the audit trail of the repository with this id."""

    repository: str
    head: ChainHead


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, when, from where, and what became of it. ``chain`` is the fingerprint of the host's public key.

    ``previous`` is the digest of the entry before it in its chain, empty for the first; ``heads`` are those of other chains.
    ``origin``: where the person came from (an SSH client's address, cron, the service), as far as that can be told.
    """

    chain: str
    number: int  # from 1
    at: datetime
    host: str
    user: str  # of the operating system
    database_user: str | None = None
    origin: str | None = None
    action: str  # init, backup, list, show, restore, export, verify, drill, prune, keys add, hold, config ...
    subjects: tuple[str, ...] = ()  # ids of backups, names of databases
    result: Result
    error_code: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    heads: tuple[ChainHead, ...] = ()
    previous: str = ""
    repository: str = ""  # id of the repository whose trail it belongs to
    elsewhere: tuple[ForeignHead, ...] = ()  # heads of other repositories that this host writes to


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProblem:
    """Something that is not as it was written, or not shown to be. ``gap`` alone may be innocent: entries not uploaded yet."""

    kind: ProblemKind
    chain: str
    number: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What checking every chain showed. ``anchors`` is how many recorded heads the chains were held against."""

    repository: str  # its id
    entries: int
    heads: tuple[ChainHead, ...]
    anchors: int
    problems: tuple[AuditProblem, ...]
    pending: int = 0  # of this host, not in the repository yet
    unenrolled: tuple[str, ...] = ()  # chains whose key no administrator has signed
    notes: tuple[str, ...] = ()  # worth knowing, and no sign of tampering: a clock that was set back

    @property
    def is_intact(self) -> bool:
        return not self.problems
