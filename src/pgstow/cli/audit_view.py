"""How the audit trail is shown: documents for machines, tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from pgstow.audit.documents import heads_document
from pgstow.audit.entries import AuditEntry, AuditProblem, AuditVerdict
from pgstow.audit.trail import SignedEntry
from pgstow.cli.formats import plural, safe, time_text
from pgstow.cli.tables import FittingTable, plain_table

__all__ = ["entry_documents", "entry_view", "problem_documents", "verdict_document", "verdict_view"]

_SHORT = 16
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def entry_documents(entries: Sequence[SignedEntry]) -> list[dict[str, Any]]:
    """Return entries as documents hold them."""
    return [
        {
            "chain": each.entry.chain,
            "number": each.entry.number,
            "digest": each.digest,
            "time": each.entry.at.isoformat(),
            "host": each.entry.host,
            "user": each.entry.user,
            "database_user": each.entry.database_user,
            "origin": each.entry.origin,
            "action": each.entry.action,
            "subjects": list(each.entry.subjects),
            "result": each.entry.result,
            "error_code": each.entry.error_code,
            "facts": dict(each.entry.facts),
        }
        for each in entries
    ]


def entry_view(entries: Sequence[SignedEntry], problems: Sequence[AuditProblem]) -> Iterator[RenderableType]:
    """Yield entries as a person reads them."""
    if entries:
        table = FittingTable(
            "TIME (UTC)", "HOST", "USER", "FROM", "ACTION", "RESULT", "WHAT", below=("WHAT",)
        )
        for each in entries:
            entry = each.entry
            table.add_row(
                time_text(entry.at),
                safe(entry.host),
                safe(_user(entry)),
                safe(entry.origin or ""),
                safe(entry.action),
                Text(safe(entry.result), style="" if entry.result in ("done", "begun") else "bold red"),
                safe(_what(entry)),
            )
        yield table
    else:
        yield Text("no entries")
    for problem in problems:
        yield Text.assemble((f"{problem.kind}: ", "bold red"), safe(problem.message))
    if problems:
        yield Text("pgstow audit verify checks the whole trail", style="dim")


def _user(entry: AuditEntry) -> str:
    sudo = entry.facts.get("sudo_user")
    user = f"{entry.user} (sudo by {sudo})" if sudo else entry.user
    return f"{user} as {entry.database_user}" if entry.database_user else user


def _what(entry: AuditEntry) -> str:
    subjects = ", ".join(_short(each) for each in entry.subjects)
    hidden = {"sudo_user", "backup"} if entry.subjects else {"sudo_user"}
    facts = ", ".join(f"{key}: {_short(value)}" for key, value in entry.facts.items() if key not in hidden)
    return "; ".join(part for part in (entry.error_code, subjects, facts) if part)


def _short(value: str) -> str:
    """Return ids and digests by their beginning; everything else as it is."""
    return value[:8] if _ID.fullmatch(value) else value[:_SHORT] if _DIGEST.fullmatch(value) else value


def problem_documents(problems: Sequence[AuditProblem]) -> list[dict[str, Any]]:
    """Return problems as documents hold them."""
    return [
        {"kind": each.kind, "chain": each.chain or None, "number": each.number, "message": each.message}
        for each in problems
    ]


def verdict_document(verdict: AuditVerdict) -> dict[str, Any]:
    """Return a verdict as documents hold it; ``heads`` is what ``--anchors`` takes."""
    return {
        "repository": verdict.repository,
        "intact": verdict.is_intact,
        "entries": verdict.entries,
        "heads": heads_document(verdict.heads),
        "anchors": verdict.anchors,
        "problems": problem_documents(verdict.problems),
        "pending": verdict.pending,
        "unenrolled": list(verdict.unenrolled),
        "notes": list(verdict.notes),
    }


def verdict_view(
    verdict: AuditVerdict, administrators: Sequence[str], hosts: Mapping[str, str]
) -> Iterator[RenderableType]:
    """Yield a verdict as a person reads it; ``hosts`` are the names of the chains' hosts, as they say."""
    for problem in verdict.problems:
        where = f"chain {problem.chain[:_SHORT]}: " if problem.chain else ""
        yield Text.assemble((f"{problem.kind}: ", "bold red"), safe(f"{where}{problem.message}"))
    for note in verdict.notes:
        yield Text.assemble(("note: ", "yellow"), safe(note))
    if verdict.heads:
        table = plain_table("CHAIN", "HOST", "ENTRIES", "KEY", right=("ENTRIES",))
        for head in verdict.heads:
            key = "not enrolled" if head.chain in verdict.unenrolled else "enrolled"
            table.add_row(
                head.chain[:_SHORT],
                safe(hosts.get(head.chain, "")),
                f"{head.number:,}",
                key if administrators else "not known: no administrator was named",
            )
        yield table
    if verdict.pending:
        yield Text(
            f"{plural(verdict.pending, 'entry', 'entries')} of this host wait here until the repository takes them"
        )
    held = f"held against {plural(verdict.anchors, 'recorded head')}"
    if verdict.is_intact:
        yield Text.assemble(
            ("intact: ", "bold green"), f"{plural(verdict.entries, 'entry', 'entries')}, {held}"
        )
    else:
        yield Text.assemble(
            (f"{plural(len(verdict.problems), 'problem')} ", "bold red"),
            f"in {plural(verdict.entries, 'entry', 'entries')}, {held}",
        )
