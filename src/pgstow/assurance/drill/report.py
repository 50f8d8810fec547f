"""The report of a drill, for people: its record in words and tables, as Markdown or as one HTML page.

Every word of it may come from a database or from whoever wrote the notes, so all of it is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.assurance.drill.next_steps import next_steps
from pgstow.catalog.drills import CheckRecord, DrillRecord, PhaseRecord
from pgstow.core.foreign_text import safe
from pgstow.core.quantities import duration_text, size_text

__all__ = ["html_report", "markdown_report"]

_MARKDOWN = re.compile(r"([\\`*_{}\[\]|<>~&]|^[#+=-])")
_CODE = re.compile(r"`([^`]+)`")
_OUTCOMES = {"passed": "PASSED", "failed": "FAILED", "interrupted": "INTERRUPTED"}
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;
vertical-align:top;overflow-wrap:anywhere}th{background:#f4f4f4}td.n{text-align:right;white-space:nowrap}h1{font-size:1.6rem}
h2{font-size:1.2rem;margin-top:2rem}.passed{color:#0a6b2d}.failed{color:#b00020}.interrupted{color:#8a5a00}code{background:#f4f4f4}
@media print{body{margin:0;max-width:none}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A heading with lines of text, or a table whose first column is a heading too if it has no ``columns``."""

    title: str
    lines: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numbers: frozenset[int] = frozenset()  # columns that hold numbers


def _title(record: DrillRecord) -> str:
    return f"Restore drill of {record.backup_name}: {_OUTCOMES[record.outcome]}"


def _sections(record: DrillRecord) -> Iterator[_Section]:
    yield _summary(record)
    yield _objectives(record)
    steps = list(next_steps(record))
    if record.error is not None:
        hint = [f"What to do: {record.hint}"] if record.hint else []
        yield _Section(title="What stopped it", lines=[f"{record.error} (code {record.error_code})", *hint])
    if steps:
        yield _Section(title="What to do next", lines=steps)
    if record.issues:
        yield _checks("Issues", record.issues)
    if record.checks:
        yield _checks("What was checked", record.checks)
    if record.tables:
        yield _tables(record)
    if record.phases:
        yield _phases(record)
    yield _circumstances(record)
    if record.heads:
        yield _heads(record)
    if record.warnings:
        yield _Section(title="Remarks", lines=record.warnings)


def _summary(record: DrillRecord) -> _Section:
    kind = f"{record.backup_kind}, partial" if record.is_partial else record.backup_kind
    rows = [
        ("Date", f"{_moment(record.started)} UTC"),
        ("Result", _OUTCOMES[record.outcome].lower()),
        (
            "Backup",
            f"{record.backup_id} of {record.backup_name} ({kind}), data from {_moment(record.snapshot_taken)} UTC",
        ),
        ("Time to restore", _time_to_restore(record)),
        ("Data integrity", _integrity(record)),
        ("Issues found", _issues(record)),
        ("Notes", " ".join((record.notes or "none").split())),
    ]
    return _Section(title="Summary", rows=rows)


def _time_to_restore(record: DrillRecord) -> str:
    if record.restored_s is None:
        return "not restored"
    proven = (
        f"; {duration_text(record.proven_s)} until everything was checked"
        if record.proven_s is not None
        else ""
    )
    return f"{duration_text(record.restored_s)} until the database could be used{proven}"


def _integrity(record: DrillRecord) -> str:
    if not record.tables:
        return "nothing was compared" if record.restored_s is None else "the backup holds no rows of tables"
    equal = sum(table.is_equal for table in record.tables)
    every = "every row of" if equal == len(record.tables) else f"only {equal} of"
    return (
        f"{every} {len(record.tables)} tables equals what the repository holds ({record.rows:,} rows,"
        f" {size_text(record.size_bytes)})"
    )


def _issues(record: DrillRecord) -> str:
    found = [f"{_named(one)}: {one.message}" for one in record.issues]
    if record.error is not None:
        found.insert(0, record.error)
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more if found else "none"


def _objectives(record: DrillRecord) -> _Section:
    rows = [
        (
            "Recovery time (RTO)",
            _achieved(record.proven_s),
            *_against(record, record.proven_s, record.rto_target_s),
        ),
        (
            "Recovery point (RPO)",
            _achieved(record.lost_s),
            *_against(record, record.lost_s, record.rpo_target_s),
        ),
    ]
    return _Section(title="Objectives", columns=("Objective", "Achieved", "Target", "Verdict"), rows=rows)


def _achieved(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration_text(seconds)


def _against(record: DrillRecord, achieved_s: float | None, target_s: float | None) -> tuple[str, str]:
    if target_s is None:
        return "none set", "-"
    if achieved_s is not None and achieved_s > target_s:
        verdict = "MISSED"
    else:
        verdict = "met" if record.is_passed else "not proven"  # nothing is achieved with a backup that fails
    return duration_text(target_s), verdict


def _checks(title: str, checks: Iterable[CheckRecord]) -> _Section:
    rows = [
        (
            one.code,
            one.subject or "",
            one.outcome if one.severity == "error" else f"{one.outcome} (warning)",
            _found(one),
            duration_text(one.seconds) if one.seconds else "",
        )
        for one in checks
    ]
    return _Section(
        title=title,
        columns=("Check", "Of", "Result", "What was found", "Took"),
        rows=rows,
        numbers=frozenset({4}),
    )


def _found(check: CheckRecord) -> str:
    if check.expected is None and check.found is None:
        return check.message
    return f"{check.message} (expected {check.expected}, found {check.found})"


def _named(check: CheckRecord) -> str:
    return f"{check.code} of {check.subject}" if check.subject else check.code


def _tables(record: DrillRecord) -> _Section:
    largest_first = sorted(
        record.tables, key=lambda one: (one.is_equal, -one.size_bytes, one.schema_, one.name)
    )
    return _Section(
        title="Tables",
        columns=("Table", "Rows", "Size", "Loaded in", "Content"),
        rows=[
            (
                f"{one.schema_}.{one.name}",
                f"{one.rows:,}",
                size_text(one.size_bytes),
                duration_text(one.load_s),
                "equal" if one.is_equal else "NOT EQUAL",
            )
            for one in largest_first
        ],
        numbers=frozenset({1, 2, 3}),
    )


def _phases(record: DrillRecord) -> _Section:
    """Return the phases. They overlap, so that the share of each is that of the work, not of the time."""
    work_s = sum(_busy_s(one) for one in record.phases) or 1.0
    return _Section(
        title="Phases",
        columns=("Phase", "Began after", "Took", "Work of all sessions", "Share of the work"),
        rows=[
            (
                one.name,
                duration_text(one.begun_s),
                duration_text(one.seconds),
                duration_text(_busy_s(one)),
                f"{100 * _busy_s(one) / work_s:.0f} %",
            )
            for one in record.phases
        ],
        numbers=frozenset({1, 2, 3, 4}),
    )


def _busy_s(phase: PhaseRecord) -> float:
    return phase.seconds if phase.busy_s is None else phase.busy_s


def _circumstances(record: DrillRecord) -> _Section:
    where = (
        "a throwaway server of its own"
        if record.place == "throwaway"
        else "a database of its own on a server"
    )
    chosen = record.selected + (f" (seed {record.seed})" if record.seed else "")
    rows = [
        ("Drill", record.id),
        ("Made by", f"{record.by} on {record.host}" + (f", plan {record.plan}" if record.plan else "")),
        ("Backup chosen as", chosen),
        ("Repository", record.repository),
        ("Source", record.source_version),
        ("Restored into", f"{where}: {record.server}"),
        ("Isolated", "yes: nobody else could reach it" if record.is_isolated else "no, or not known"),
        ("Removed afterwards", "yes" if record.is_removed else "NO"),
        ("Restored database", size_text(record.restored_bytes)),
        ("SHA-256 of the backup's manifest", record.manifest_sha256 or "unknown"),
        *((f"Version of {name}", text) for name, text in record.tools.items()),
    ]
    return _Section(title="Circumstances", rows=rows)


def _heads(record: DrillRecord) -> _Section:
    return _Section(
        title="Audit trail when the drill began",
        columns=("Repository", "Chain", "Entry", "SHA-256 of the entry"),
        rows=[(head.repository, head.chain, str(head.number), head.digest) for head in record.heads],
        numbers=frozenset({2}),
    )


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


# -- Markdown


def markdown_report(record: DrillRecord) -> str:
    """Return the report as Markdown."""
    lines = [f"# {_markdown(_title(record))}", ""]
    for section in _sections(record):
        lines += [f"## {_markdown(section.title)}", ""]
        lines += [f"- {_markdown_line(line)}" for line in section.lines]
        if section.rows:
            columns = section.columns or ("", "")
            lines.append(_markdown_row(_markdown(column) for column in columns))
            lines.append(
                _markdown_row(
                    "---:" if number in section.numbers else "---" for number in range(len(columns))
                )
            )
            lines += [_markdown_row(_markdown(cell) for cell in row) for row in section.rows]
        lines.append("")
    return "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", safe(text))


def _markdown_line(text: str) -> str:
    """Return a line whose commands stay in backquotes."""
    parts = _CODE.split(text)
    return "".join(f"`{safe(part)}`" if place % 2 else _markdown(part) for place, part in enumerate(parts))


# -- HTML


def html_report(record: DrillRecord) -> str:
    """Return the report as one page that needs nothing else: no script, no picture, no network."""
    title = html.escape(safe(_title(record)))
    body = "\n".join(_html_section(section) for section in _sections(record))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1 class="{record.outcome}">{title}</h1>\n{body}\n</body>\n</html>\n'
    )


def _html_section(section: _Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.lines:
        parts.append("<ul>" + "".join(f"<li>{_html_line(line)}</li>" for line in section.lines) + "</ul>")
    if section.rows:
        heads = "".join(f"<th>{html.escape(column)}</th>" for column in section.columns)
        rows = "\n".join(_html_row(section, row) for row in section.rows)
        parts.append(
            "<table>"
            + (f"<thead><tr>{heads}</tr></thead>" if heads else "")
            + f"<tbody>\n{rows}\n</tbody></table>"
        )
    return "\n".join(parts)


def _html_row(section: _Section, row: Sequence[str]) -> str:
    cells = []
    for place, cell in enumerate(row):
        text = html.escape(safe(cell))
        if not section.columns and place == 0:
            cells.append(f"<th>{text}</th>")
        elif place in section.numbers:
            cells.append(f'<td class="n">{text}</td>')
        else:
            cells.append(f"<td>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _html_line(text: str) -> str:
    parts = _CODE.split(text)
    return "".join(
        f"<code>{html.escape(safe(part))}</code>" if place % 2 else html.escape(safe(part))
        for place, part in enumerate(parts)
    )
