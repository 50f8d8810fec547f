"""Materialized views: those that held rows in the source hold them again."""

from __future__ import annotations

from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.inventory import populated_views
from pgstow.postgres.raw import RawSession

__all__ = ["check_materialized_views"]

_OUT_OF_REACH = "it is not populated: it reads a foreign table, and a throwaway server reaches no others"


def check_materialized_views(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether each materialized view is there, and populated where it was."""
    views = restored.entries(b"MATERIALIZED VIEW")
    if not views:
        yield skipped("materialized_views", "the backup holds no materialized views")
        return
    filled = {(one.namespace, one.tag) for one in restored.entries(b"MATERIALIZED VIEW DATA")}
    states = populated_views(session)
    problems = []
    for entry in views:
        is_populated = states.get((entry.namespace or b"", entry.tag))
        if is_populated is None:
            problems.append(
                failed(
                    "materialized_views",
                    "the materialized view is missing",
                    subject=restored.qualified(entry),
                )
            )
        elif (
            not is_populated and (entry.namespace, entry.tag) in filled and _is_out_of_reach(restored, entry)
        ):
            yield skipped("materialized_views", _OUT_OF_REACH, subject=restored.qualified(entry))
        elif not is_populated and (entry.namespace, entry.tag) in filled:
            problems.append(
                failed(
                    "materialized_views",
                    "the materialized view is not populated; it was in the source",
                    subject=restored.qualified(entry),
                )
            )
    good = passed(
        "materialized_views", f"{counted(len(views), 'materialized view')}, {len(filled)} of them populated"
    )
    yield from summed_up(good, problems)


def _is_out_of_reach(restored: Restored, view: TocEntry) -> bool:
    """Whether a view reads, directly or by way of other views, what lies on another server."""
    if not restored.context.is_throwaway:
        return False
    by_id = restored.toc.by_id()
    seen: set[int] = set()
    to_see = [view.dump_id]
    while to_see:
        entry = by_id.get(one := to_see.pop())
        if entry is None or one in seen:
            continue
        if entry.desc == b"FOREIGN TABLE":
            return True
        seen.add(one)
        to_see += entry.dependencies
    return False
