"""Materialized views: those that held rows in the source hold them again; large objects: each one is there."""

from __future__ import annotations

from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import large_object_ids
from pgstow.postgres.inventory import populated_views
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import existing_large_objects

__all__ = ["check_large_objects", "check_materialized_views"]


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


def check_large_objects(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether each large object of the archive is there. Their contents were verified when they were written."""
    oids = [
        oid for entry in restored.toc.large_object_data() for oid in large_object_ids(restored.toc, entry)
    ]
    if not oids:
        yield skipped("large_objects", "the backup holds no large objects")
        return
    missing = sorted(set(oids) - set(existing_large_objects(session, oids)))
    problems = [failed("large_objects", "the large object is missing", subject=str(oid)) for oid in missing]
    yield from summed_up(
        passed("large_objects", f"{counted(len(oids), 'large object')}, all there"), problems
    )
