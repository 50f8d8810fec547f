"""Retention plans as documents and in words, and reading one again that was kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgstow.cli.formats import plural, safe, size_text, time_text
from pgstow.cli.retention_rules import GivenRules
from pgstow.cli.tables import plain_table
from pgstow.core.errors import UsageError
from pgstow.retention import Decision
from pgstow.upkeep.expire import ExpiryPlan, PlannedDrops

__all__ = ["drop_lines", "note_lines", "plan_document", "plan_view", "read_planned", "summary_line"]

_HASH = re.compile(r"[0-9a-f]{16}")
_DROP, _KEEP = "drop", "keep"
_TABLE_COLUMNS = 120  # in fewer, the reasons would be squeezed into a column of a few words
_INDENT = 6


def plan_document(plan: ExpiryPlan, rules: GivenRules) -> dict[str, Any]:
    """Return a plan as it appears in JSON documents."""
    return {
        "hash": plan.hash,
        "now": plan.now.isoformat(),
        "dropped": len(plan.dropped),
        "kept": len(plan.kept),
        "rules": rules.document(),
        "notes": list(plan.notes),
        "decisions": [_decision_document(plan, decision) for decision in plan.decisions],
    }


def _decision_document(plan: ExpiryPlan, decision: Decision) -> dict[str, Any]:
    backup = decision.backup
    return {
        "action": _KEEP if decision.is_kept else _DROP,
        "id": backup.id,
        "name": backup.name,
        "kind": backup.kind,
        "label": backup.label,
        "partial": backup.is_partial,
        "damaged": backup.is_damaged,
        "time": backup.time.isoformat(),
        "size_bytes": backup.size_bytes,
        "snapshots": list(plan.snapshots[backup.id]),
        "reasons": [
            {
                "code": str(reason.code),
                "keeps": reason.code.keeps,
                "text": reason.text,
                "until": reason.until.isoformat() if reason.until is not None else None,
            }
            for reason in decision.reasons
        ],
    }


def read_planned(text: str | None) -> PlannedDrops | None:
    """Return the plan that ``--plan`` names: by its hash, or by the file that holds its document."""
    if text is None or _HASH.fullmatch(text):
        return PlannedDrops(hash=text) if text else None
    try:
        plan = json.loads(Path(text).read_bytes())["plan"]
        drops = frozenset(str(each["id"]) for each in plan["decisions"] if each["action"] == _DROP)
        return PlannedDrops(hash=str(plan["hash"]), backup_ids=drops)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(
            f"--plan: {text!r} is neither the hash of a plan nor a file with one",
            hint="pgstow retention plan prints the hash; with --json, its output is such a file",
        ) from exc


def plan_view(plan: ExpiryPlan, rules: GivenRules) -> Iterator[RenderableType]:
    """Yield every backup with what becomes of it and why, and what to do next."""
    if not plan.decisions:
        yield Text("no backups")
        return
    yield _Decisions(plan.decisions)
    yield Text()
    yield from (Text(line, style="yellow") for line in note_lines(plan))
    yield Text(safe(f"{summary_line(plan, 'would be removed', rules)}; plan {plan.hash}"))
    if plan.dropped:
        yield Text(
            f"pgstow retention apply --plan {plan.hash}, with the same rules, removes exactly these",
            style="dim",
        )


class _Decisions:
    """A table where a terminal is wide enough for the reasons; else the reasons stand below each backup."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = decisions

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= _TABLE_COLUMNS:
            yield self._table()
        else:
            for decision in self._decisions:
                yield Text("  ").join(_cells(decision))
                for reason in _reasons(decision):
                    yield Padding(Text(reason), (0, 0, 0, _INDENT))

    def _table(self) -> Table:
        table = plain_table("", "ID", "NAME", "KIND", "TIME (UTC)", "SIZE", "WHY", right=("SIZE",))
        for decision in self._decisions:
            table.add_row(*_cells(decision), "; ".join(_reasons(decision)))
        return table


def _cells(decision: Decision) -> list[Text]:
    """Return what becomes of a backup, and which it is."""
    backup = decision.backup
    marks = (" partial" if backup.is_partial else "") + (" damaged" if backup.is_damaged else "")
    return [
        Text(_KEEP, style="green") if decision.is_kept else Text(_DROP, style="bold red"),
        Text(backup.short_id),
        Text(safe(backup.name)),
        Text(safe(backup.kind) + marks),
        Text(time_text(backup.time)),
        Text(size_text(backup.size_bytes)),
    ]


def _reasons(decision: Decision) -> list[str]:
    """Return why: what speaks for a backup that is kept, everything of one that goes."""
    return [safe(each.text) for each in decision.reasons if each.code.keeps or not decision.is_kept]


def drop_lines(plan: ExpiryPlan) -> Iterator[str]:
    """Yield one line for each backup that goes."""
    for decision in plan.dropped:
        backup = decision.backup
        label = f" ({safe(backup.label)})" if backup.label else ""
        yield (
            f"remove {backup.short_id} of {safe(backup.name)}, {safe(backup.kind)}{label}, from {time_text(backup.time)}Z: "
            f"{'; '.join(_reasons(decision))}"
        )


def note_lines(plan: ExpiryPlan) -> Iterator[str]:
    """Yield what a person should read beside the decisions."""
    return (f"note: {safe(note)}" for note in plan.notes)


def summary_line(plan: ExpiryPlan, what: str, rules: GivenRules) -> str:
    """Return how many backups go and how many stay, by which rules; ``what`` says what becomes of the first."""
    return f"{plural(len(plan.dropped), 'backup')} {what}, {len(plan.kept):,} kept, by {rules}"
