"""Audit trails for tests: hosts that write entries, and ways to tamper with what they wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgstow.audit.anchoring import write_anchor
from pgstow.audit.documents import ENTRY, entry_bytes
from pgstow.audit.entries import AuditEntry, AuditProblem
from pgstow.audit.journal import Journal
from pgstow.audit.keys import HostKey
from pgstow.audit.trail import SignedEntry, entry_name, read_trail
from pgstow.audit.writing import Written, look, send, write
from pgstow.repository import Repository

MOMENT = datetime(2026, 11, 21, 14, tzinfo=UTC)


def draft(
    action: str = "list", *, at: datetime = MOMENT, facts: Mapping[str, str] | None = None
) -> AuditEntry:
    """Return an entry as an access makes it, before it has a place in a chain."""
    return AuditEntry(
        chain="",
        number=1,
        at=at,
        host="db1",
        user="anna",
        action=action,
        result="done",
        facts=facts or {},
    )


@dataclass
class Host:
    """A machine with a journal of its own; its clock goes on by a minute with each entry."""

    folder: Path
    now: datetime = MOMENT
    entries: list[SignedEntry] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @property
    def key(self) -> HostKey:
        return next(self.journal.key_choices())

    def keeps(self, repository: Repository, *actions: str) -> Written:
        """Keep entries on the machine."""
        sight = look(repository, self.journal, now=self.now)
        drafts = []
        for action in actions:
            self.now += timedelta(minutes=1)
            drafts.append(draft(action, at=self.now))
        return write(repository, self.journal, drafts, sight)

    def writes(self, repository: Repository, *actions: str) -> Written:
        """Keep entries, each by an access of its own, and send them; return what the last one gave."""
        written = Written()
        for action in actions:
            written = self.keeps(repository, action)
            send(repository, self.journal, written.unkept)
        return written

    def anchors(self, repository: Repository) -> None:
        self.now += timedelta(minutes=1)
        write_anchor(repository, self.journal, now=self.now)


def names_of(repository: Repository) -> list[str]:
    """Return the objects of entries by chain and number."""
    return [entry_name(each.entry, each.raw) for each in read_trail(repository).entries]


def forged(entry: AuditEntry, key: HostKey) -> bytes:
    """Return an entry that somebody signed with this key."""
    return key.signed(ENTRY, entry_bytes(entry)).encode()


def kinds(problems: Sequence[AuditProblem]) -> list[str]:
    """Return the kinds of problems, each once."""
    return sorted({problem.kind for problem in problems})
