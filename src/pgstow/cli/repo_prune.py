"""``pgstow repo prune``"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from pgstow.app.prune import plan_only, prune_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import duration_text, plural, size_text
from pgstow.cli.output import Outcome
from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration
from pgstow.upkeep.prune import PruneResult
from pgstow.upkeep.prune_plan import PackCount, PruneOptions, PrunePlan
from pgstow.upkeep.survey import PackState

__all__ = ["prune_document", "prune_view", "repo_prune_command"]

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%?")


def repo_prune_command(
    invocation: Invocation,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="DURATION", help="Keep packs for so long after they were taken out of use."
        ),
    ] = "24h",
    max_unused: Annotated[
        str,
        typer.Option(
            "--max-unused",
            metavar="PERCENT",
            help="Move blobs out of partly needed packs until no more than this is unused.",
        ),
    ] = "5%",
    wait: Annotated[
        str,
        typer.Option("--wait", metavar="DURATION", help="Wait so long for others who use the repository."),
    ] = "0",
) -> Outcome:
    """Free the space of what no snapshot needs, in two steps.

    Packs are taken out of use first; the next prune, 24 hours later or more, removes them. Nobody else may use
    the repository meanwhile. Snapshots are not removed: that is for retention.
    """
    options = PruneOptions(grace_s=parse_duration(grace), max_unused=_parse_share(max_unused))
    wait_s = parse_duration(wait)
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        if dry_run:
            plan, result = plan_only(repository, options, progress, wait_s=wait_s), None
        else:
            plan, result = prune_repository(
                repository,
                options,
                progress,
                show=lambda plan: _show(invocation, plan),
                wait_s=wait_s,
            )
    return Outcome(
        document=prune_document(plan, result), view=[Text(line) for line in prune_view(plan, result)]
    )


def _parse_share(text: str) -> float:
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--max-unused: {text!r} is no percentage", hint="write it like 5% or 0")
    return share


def _show(invocation: Invocation, plan: PrunePlan) -> None:
    if not invocation.output.as_json:
        for line in _lines(plan):
            invocation.output.note(line)


def _lines(plan: PrunePlan) -> Iterator[str]:
    """Yield the plan as sentences; none when there is nothing to do."""
    if plan.reindex:
        yield f"list again: {_packs(plan.reindex)} that a snapshot needs after all"
    if plan.remove:
        yield f"remove now: {_packs(plan.remove)}, out of use for longer than {_grace(plan)}"
    if plan.unused:
        yield f"take out of use: {_packs(plan.unused)} that nothing needs"
    if plan.gone:
        yield f"take out of the index: {plural(len(plan.gone), 'pack')} that nothing needs and that are gone"
    if plan.repack:
        moved = size_text(plan.moved_bytes)
        yield f"repack: {_packs(plan.repack)}, of which {moved} are needed and move into new packs"
    if plan.orphans:
        yield f"take out of use: {_packs(plan.orphans)} that interrupted runs left behind"
    if plan.wait:
        yield f"leave for now: {_packs(plan.wait)}, out of use for less than {_grace(plan)}"
    if plan.index.obsolete:
        yield f"rewrite {plural(len(plan.index.obsolete), 'index file')} of {plan.index_files}"


def _packs(packs: Sequence[PackState]) -> str:
    count = PackCount.of(packs)
    return f"{plural(count.packs, 'pack')} ({size_text(count.size_bytes)})"


def _grace(plan: PrunePlan) -> str:
    hours = plan.options.grace_s / 3600
    return f"{hours:.0f} h" if hours.is_integer() else duration_text(plan.options.grace_s)


def prune_view(plan: PrunePlan, result: PruneResult | None) -> Iterator[str]:
    """Yield what was done, or with no result what would be, as sentences."""
    if result is None:
        yield from _lines(plan)
    if not plan.has_work:
        yield f"nothing to do; {size_text(plan.used_bytes)} are needed, {size_text(plan.unused_bytes)} unused"
        return
    freed = plan.freed_now_bytes
    change = f"{size_text(freed)} freed" if freed >= 0 else f"{size_text(-freed)} added by moving"
    later = f"{size_text(plan.freed_later_bytes)} more can be removed"
    if result is None:
        yield f"would be: {change}; {later} once the grace is over"
        return
    yield f"{change}; {later} by a prune once the grace of {_grace(plan)} is over"
    yield f"in use: {size_text(plan.used_bytes)} needed, {size_text(plan.unused_bytes)} unused"


def prune_document(plan: PrunePlan, result: PruneResult | None) -> dict[str, Any]:
    """Return the same as part of a JSON document."""
    return {
        "dry_run": result is None,
        "plan": {
            "grace_s": plan.options.grace_s,
            "max_unused": plan.options.max_unused,
            "snapshots": len(plan.survey.snapshots),
            "reindex": _count(plan.reindex),
            "remove": _count(plan.remove),
            "wait": _count(plan.wait),
            "unused": _count(plan.unused),
            "gone": len(plan.gone),
            "repack": _count(plan.repack) | {"moved_bytes": plan.moved_bytes},
            "orphans": _count(plan.orphans),
            "index_files": plan.index_files,
            "obsolete_index_files": len(plan.index.obsolete),
            "used_bytes": plan.used_bytes,
            "unused_bytes": plan.unused_bytes,
            "freed_now_bytes": plan.freed_now_bytes,
            "freed_later_bytes": plan.freed_later_bytes,
        },
        "result": None
        if result is None
        else {
            "new_packs": result.new_packs,
            "index_files_written": result.index_files_written,
            "index_files_removed": result.index_files_removed,
        },
    }


def _count(packs: Sequence[PackState]) -> dict[str, int]:
    count = PackCount.of(packs)
    return {"packs": count.packs, "size_bytes": count.size_bytes}
