"""What is restored last, as a recovery can do without it: what the server refuses is told, with the remedy.

These depend on more than the backup: on policies, functions and other servers (materialized views), on programs that are loaded
(security labels), on who restores (publications, subscriptions, event triggers). Nothing else needs them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pgstow.core.errors import RestoreError
from pgstow.postgres.archive import Toc, TocEntry
from pgstow.restore.naming import described, text
from pgstow.restore.report import Skipped
from pgstow.restore.sections import REFRESH, Sections

__all__ = ["LateWork", "restore_late"]

_LABEL = b"SECURITY LABEL"
_TRIED_LABELS = 20
_AS_THE_OTHERS = f"not tried any more, after {_TRIED_LABELS} labels of this provider were refused"
_NO_SPACE = "No space left on device"  # then nothing else will work either
# pg_restore lost its own session or got none: the server fell over or is gone. What a server says of sessions that a statement
# had elsewhere (postgres_fdw, dblink) begins with ERROR.
_CUT_OFF = re.compile(
    r"^pg_restore: error: (?:could not execute query: |query failed: )?"
    r"(?:FATAL|PANIC|server closed the connection|connection to server|no connection to the server|SSL |could not (?:receive|send) )",
    re.MULTILINE,
)
_FILLED_UNDER_POLICIES = "was filled with what row level security (FORCE) lets its owner see, as REFRESH does for everybody; without that the server said"
_REMEDIES: Mapping[bytes, str] = {
    b"PUBLICATION": "create it as a role that may, with the statement in the archive (pgstow export)",
    b"SUBSCRIPTION": "create it as a superuser, with connect = false as the archive has it (pgstow export)",
    b"EVENT TRIGGER": "create it as a superuser, with the statement in the archive (pgstow export)",
    _LABEL: "load the label provider (shared_preload_libraries) and set the label again, as the archive has it"
    " (pgstow export)",
}


@dataclass(slots=True)
class LateWork:
    """What came of it."""

    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def restore_late(
    sections: Sections, entries: Sequence[TocEntry], *, jobs: int, maintenance_work_mem: int
) -> LateWork:
    """Restore ``entries``; what the server refuses is a loss in the report.

    Materialized views are filled first: event triggers must see nothing of it. Raises RestoreError when a disk is full, or the
    server fell over, which empties unlogged tables whose rows were there before.
    """
    done = LateWork()
    refreshes = [entry for entry in entries if entry.desc == REFRESH]
    try:
        sections.restore(refreshes, jobs=jobs, maintenance_work_mem=maintenance_work_mem)
    except RestoreError as exc:
        _refuse_what_ends_all(exc)
        for entry in refreshes:  # in the order of the archive: some are made of others
            _refresh(sections, entry, done)
    others = [entry for entry in entries if entry.desc != REFRESH]
    try:
        sections.restore(others, is_one_transaction=True)
    except RestoreError as exc:
        _refuse_what_ends_all(exc)
        _one_by_one(sections, others, done)
    return done


def _refresh(sections: Sections, entry: TocEntry, done: LateWork) -> None:
    """Fill a materialized view; if that fails under pg_restore's row_security = off, then as anybody's REFRESH would."""
    try:
        sections.restore([entry])
    except RestoreError as exc:
        _refuse_what_ends_all(exc)
        name = f"{text(entry.namespace, sections.toc.encoding)}.{text(entry.tag, sections.toc.encoding)}"
        try:
            sections.restore([entry], has_row_security=True)
        except RestoreError as again:
            _refuse_what_ends_all(again)
            why = f"{_said(again)}; it is empty: REFRESH MATERIALIZED VIEW {name} once that is mended"
            done.skipped.append(Skipped(what=f"rows of materialized view {name}", why=why, is_loss=True))
        else:
            first, _, _ = _said(exc).partition(" HINT: ")
            done.warnings.append(f"materialized view {name} {_FILLED_UNDER_POLICIES}: {first}")


def _one_by_one(sections: Sections, entries: Sequence[TocEntry], done: LateWork) -> None:
    """Restore each by itself, all of it or nothing; what is about one that could not be made goes with it.

    There may be a label on every column, and a provider that is not loaded takes none of them.
    """
    lost: set[int] = set()
    refused: Counter[bytes] = Counter()  # labels, by their providers
    for entry in entries:
        what = described(entry, sections.toc.encoding)
        is_hopeless = refused[_provider(entry)] >= _TRIED_LABELS
        if is_hopeless or lost.intersection(entry.dependencies):
            lost.add(entry.dump_id)
            why = _AS_THE_OTHERS if is_hopeless else "what it is about could not be restored"
            done.skipped.append(Skipped(what=what, why=why, is_loss=True))
            continue
        try:
            sections.restore([entry], is_one_transaction=True)
        except RestoreError as exc:
            _refuse_what_ends_all(exc)
            lost.add(entry.dump_id)
            refused.update([_provider(entry)] if entry.desc == _LABEL else [])
            why = "; ".join(_told(entry, exc, sections.toc))
            done.skipped.append(Skipped(what=what, why=why, is_loss=True))


def _provider(entry: TocEntry) -> bytes:
    """Return whose label an entry is; nothing where it is none."""
    words = (entry.defn or b"").split(None, 4)  # SECURITY LABEL FOR provider ON ...
    return words[3] if entry.desc == _LABEL and len(words) > 3 else b""


def _told(entry: TocEntry, exc: RestoreError, toc: Toc) -> Iterator[str]:
    yield _said(exc)
    kind = next((desc for desc in _REMEDIES if entry.desc.startswith(desc)), None)
    if kind is not None:
        yield _REMEDIES[kind]
    elif entry.desc == b"COMMENT":
        yield f"{text(entry.tag, toc.encoding)} is without its comment"


def _said(exc: RestoreError) -> str:
    """Return what the server said, without what pg_restore was at."""
    return exc.message.partition(": ")[2] or exc.message


def _refuse_what_ends_all(exc: RestoreError) -> None:
    if _NO_SPACE in exc.message or _CUT_OFF.search(str(exc.facts.get("stderr_tail", ""))):
        raise exc
