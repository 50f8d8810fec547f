"""``pgstow repo stats``"""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from pgstow.app.prune import count_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import count_text, safe, size_text
from pgstow.cli.output import Outcome
from pgstow.cli.tables import plain_table
from pgstow.upkeep.prune_plan import PackCount
from pgstow.upkeep.stats import RepositoryStats

__all__ = ["repo_stats_command"]


def repo_stats_command(invocation: Invocation) -> Outcome:
    """Count what a repository holds: backups, their plain and stored size, and what no backup needs."""
    with invocation.output.progress() as progress:
        stats = count_repository(invocation.repository(progress), progress)
    return Outcome(document=_document(stats), view=[_view(stats)])


def _document(stats: RepositoryStats) -> dict[str, Any]:
    ratio = stats.deduplication
    return {
        "snapshots": stats.snapshots,
        "sources": [
            {"name": source.name, "backups": source.backups, "size_bytes": source.size_bytes}
            for source in stats.sources
        ],
        "other_snapshots": stats.other_snapshots,
        "logical_bytes": stats.logical_bytes,
        "stored_bytes": stats.packs.size_bytes,
        "deduplication": None if ratio is None else round(ratio, 3),
        "packs": stats.packs.packs,
        "blobs": stats.blobs,
        "used_bytes": stats.used_bytes,
        "unused_bytes": stats.unused_bytes,
        "waiting": _count(stats.waiting),
        "orphans": _count(stats.orphans),
        "index_files": stats.index_files,
        "index_bytes": stats.index_bytes,
        "objects": stats.objects,
        "objects_bytes": stats.objects_bytes,
    }


def _count(count: PackCount) -> dict[str, int]:
    return {"packs": count.packs, "size_bytes": count.size_bytes}


def _view(stats: RepositoryStats) -> RenderableType:
    table = plain_table("WHAT", "COUNT", "SIZE", right=("COUNT", "SIZE"))
    for source in stats.sources:
        table.add_row(
            f"backups of {safe(source.name)}", count_text(source.backups), size_text(source.size_bytes)
        )
    if stats.other_snapshots:
        table.add_row("snapshots that pgstow did not make", count_text(stats.other_snapshots), "")
    ratio = stats.deduplication
    in_words = "" if ratio is None else f" (plain : stored = {ratio:.1f})"
    rows = [
        ("all snapshots, plain", stats.snapshots, stats.logical_bytes),
        (f"packs, stored{in_words}", stats.packs.packs, stats.packs.size_bytes),
        ("blobs that a snapshot needs", stats.blobs, stats.used_bytes),
        ("unused in packs that are in use", None, stats.unused_bytes),
        ("packs that wait for their removal", stats.waiting.packs, stats.waiting.size_bytes),
        ("packs left by interrupted runs", stats.orphans.packs, stats.orphans.size_bytes),
        ("index files", stats.index_files, stats.index_bytes),
        ("all objects in the store", stats.objects, stats.objects_bytes),
    ]
    for what, count, size_bytes in rows:
        table.add_row(what, "" if count is None else count_text(count), size_text(size_bytes))
    return table
