"""Drills as the commands show them: as documents, in a few lines, and as reports in files."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pgstow.assurance.drill.next_steps import next_steps
from pgstow.assurance.drill.report import html_report, markdown_report
from pgstow.catalog.drills import DrillRecord
from pgstow.cli.formats import content_text, duration_text, plural, safe, time_text
from pgstow.cli.output import safe_lines
from pgstow.cli.tables import facts_table
from pgstow.core.errors import PgstowError, UsageError

__all__ = [
    "ReportFormat",
    "drill_document",
    "drill_lines",
    "outcome_text",
    "rendered",
    "report_format",
    "unsaved_lines",
    "write_report",
]

_ISSUES_SHOWN = 8
_STYLES = {"passed": "bold green", "failed": "bold red", "interrupted": "bold yellow"}


class ReportFormat(StrEnum):
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


def report_format(path: Path) -> ReportFormat:
    """Return the format that a file's name asks for; UsageError if it names none, or cannot be written there."""
    try:
        found = ReportFormat(path.suffix.lower().removeprefix("."))
    except ValueError:
        raise UsageError(
            f"--report {path}: what kind of report is that to be", hint="end its name in .md, .html or .json"
        ) from None
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"--report {path}: no file can be written there", hint="name a file in a folder that exists"
        )
    return found


def rendered(record: DrillRecord, form: ReportFormat) -> str:
    """Return the report of a drill."""
    match form:
        case ReportFormat.MARKDOWN:
            return markdown_report(record)
        case ReportFormat.HTML:
            return html_report(record)
        case ReportFormat.JSON:
            return record.to_json().decode()


def write_report(record: DrillRecord, path: Path, form: ReportFormat) -> None:
    """Write a report, in the place of one that may be there, whole or not at all. Raises PgstowError."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with unfinished.open("x", encoding="utf-8") as file:
                file.write(rendered(record, form))
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise PgstowError(f"the report cannot be written to {path}: {exc.strerror}") from exc


def drill_document(record: DrillRecord) -> dict[str, Any]:
    """Return a record as it appears in every JSON document."""
    document: dict[str, Any] = json.loads(record.to_json())
    return document


def outcome_text(record: DrillRecord) -> tuple[str, str]:
    """Return the outcome and its style."""
    return record.outcome, _STYLES[record.outcome]


def drill_lines(record: DrillRecord) -> Iterator[RenderableType]:
    """Yield what a person wants to know of a drill."""
    outcome, style = outcome_text(record)
    kind = f"{record.backup_kind}, partial" if record.is_partial else record.backup_kind
    backup = f"backup {record.backup_id[:8]} of {safe(record.backup_name)} ({safe(kind)}) from {time_text(record.snapshot_taken)}Z"
    yield Text.assemble((f"{outcome}: ", style), backup)
    if record.error is not None:
        yield Text.assemble(("  error: ", "bold red"), safe_lines(record.error))
    if record.hint is not None:
        yield Text.assemble(("  HINT: ", "bold"), safe(record.hint))
    yield _facts(record)
    for issue in record.issues[:_ISSUES_SHOWN]:
        of = f" of {issue.subject}" if issue.subject else ""
        how = "bold red" if issue.severity == "error" else "yellow"
        yield Text.assemble((f"  {issue.outcome}: ", how), safe(f"{issue.code}{of}: {issue.message}"))
    if len(record.issues) > _ISSUES_SHOWN:
        yield Text(f"  and {len(record.issues) - _ISSUES_SHOWN} more issues; the report has them all")
    for warning in record.warnings:
        yield Text.assemble(("  remark: ", "yellow"), safe(warning))
    for step in next_steps(record):
        yield Text.assemble(("  next: ", "bold"), safe(step.replace("`", "")))


def _facts(record: DrillRecord) -> Table:
    table = facts_table()
    if record.restored_s is not None:
        table.add_row("  restored in", _restored(record))
    table.add_row("  lost", _lost(record))
    if record.tables:
        table.add_row("  content", _content(record))
    if record.checks:
        table.add_row("  checks", _checks(record))
    phases = _phases(record)
    if phases:
        table.add_row("  phases", phases)
    table.add_row("  where", _where(record))
    return table


def _restored(record: DrillRecord) -> str:
    assert record.restored_s is not None
    proven = f", checked after {duration_text(record.proven_s)}" if record.proven_s is not None else ""
    return f"{duration_text(record.restored_s)}{proven}{_against(record, record.proven_s, record.rto_target_s, 'RTO')}"


def _lost(record: DrillRecord) -> str:
    return f"what came in the {duration_text(max(record.lost_s, 0.0))} before the drill{_against(record, record.lost_s, record.rpo_target_s, 'RPO')}"


def _against(record: DrillRecord, achieved_s: float | None, target_s: float | None, name: str) -> str:
    if target_s is None or achieved_s is None:
        return ""
    verdict = "MISSED" if achieved_s > target_s else "met" if record.is_passed else "not proven"
    return f" ({name} target {duration_text(target_s)}: {verdict})"


def _content(record: DrillRecord) -> str:
    told = content_text(tables=len(record.tables), rows=record.rows, size_bytes=record.size_bytes)
    different = [one for one in record.tables if not one.is_equal]
    if not different:
        return f"{told}: every row equals the repository's"
    return f"{told}: {plural(len(different), 'table')} NOT equal to the repository's"


def _checks(record: DrillRecord) -> str:
    found = Counter[str](one.outcome for one in record.checks)
    words = {"pass": "passed", "fail": "failed", "unknown": "unknown", "skipped": "skipped"}
    return ", ".join(f"{found[outcome]} {word}" for outcome, word in words.items() if found[outcome])


def _phases(record: DrillRecord) -> str:
    return ", ".join(f"{safe(one.name)} {duration_text(one.seconds)}" for one in record.phases)


def _where(record: DrillRecord) -> str:
    isolated = "reached by nobody else" if record.is_isolated else "not isolated"
    removed = "removed" if record.is_removed else "NOT removed"
    return (
        f"{safe(record.server)}; {isolated}, {removed}"
        if record.restored_s is not None
        else f"{safe(record.server)}, {removed}"
    )


def unsaved_lines(reason: str, kept_in: Path | None) -> Sequence[RenderableType]:
    """Return what is to be said of a record that is not in the repository."""
    where = (
        f"; it waits in {safe(str(kept_in))}, and the next drill, or pgstow drills list, saves it"
        if kept_in
        else "; it is in this output alone"
    )
    return [Text.assemble(("  not saved: ", "bold yellow"), f"{safe(reason)}{where}")]
