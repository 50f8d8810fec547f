"""What must hold before anything of an earlier backup, the base, is taken over instead of read.

Each condition is a function that returns a refusal or None, and each answers a way in which a backup came out wrong, or
could not be shown to come out right: docs/reliability.md lists them beside the tests that take one away at a time.
Those that judge single page ranges are in ``reuse.same_ranges()``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgstow.capture.leader import Leader
from pgstow.catalog.manifest import Manifest, TableRecord
from pgstow.postgres.catalogs import TableFacts
from pgstow.postgres.session import CAPTURE_SETTINGS
from pgstow.postgres.shapes import Shapes

__all__ = ["SERVER_CONDITIONS", "TABLE_CONDITIONS", "Source", "refuse_server", "refuse_table"]

_XID_HALF = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything about server and session that must be as it was at the base."""

    system_identifier: str | None
    extensions: Sequence[tuple[str, str, str]]
    leader: Leader


ServerCondition = Callable[[Manifest, Source], str | None]
TableCondition = Callable[[TableRecord, TableFacts, Shapes], str | None]


def same_system(base: Manifest, source: Source) -> str | None:
    if source.system_identifier is None:
        return "this role may not see which server this is"
    if base.server.system_identifier != source.system_identifier:
        return "the base is of another server"
    return None


def same_database(base: Manifest, source: Source) -> str | None:
    return (
        None
        if base.server.database_oid == source.leader.facts.database_oid
        else "the base is of another database"
    )


def no_standby(base: Manifest, source: Source) -> str | None:
    return "a standby was read" if source.leader.facts.is_standby or base.server.is_standby else None


def same_timeline(base: Manifest, source: Source) -> str | None:
    now = source.leader.facts.timeline
    return None if now is not None and base.server.timeline == now else "the server is on another timeline"


def same_start(base: Manifest, source: Source) -> str | None:
    """A server that was started anew may stand on a copy of its files, in which transaction ids come again."""
    now = source.leader.facts.postmaster_start
    return None if now is not None and base.server.postmaster_start == now else "the server was restarted"


def same_release(base: Manifest, source: Source) -> str | None:
    now = source.leader.facts
    same = (base.server.version_num, base.server.encoding) == (now.version_num, now.encoding)
    return None if same else "the server is another release"


def same_settings(base: Manifest, _source: Source) -> str | None:
    same = base.settings == dict(CAPTURE_SETTINGS)
    return None if same else "the rows of the base were written under other settings"


def same_extensions(base: Manifest, source: Source) -> str | None:
    then = {(e.name, e.version, e.schema_) for e in base.extensions}
    return None if then == set(source.extensions) else "extensions were changed"


def few_transactions(base: Manifest, source: Source) -> str | None:
    """Half way round the circle of 32-bit ids, a later one looks earlier."""
    oldest, following, now = base.server.oldest_xid, base.server.next_xid, source.leader.horizon.next
    if oldest is None or following is None:
        return "the base does not say where it stood"
    return None if following <= now < oldest + _XID_HALF else "too many transactions since the base"


SERVER_CONDITIONS: tuple[ServerCondition, ...] = (
    same_system,
    same_database,
    no_standby,
    same_timeline,
    same_start,
    same_release,
    same_settings,
    same_extensions,
    few_transactions,
)


def same_storage(record: TableRecord, facts: TableFacts, _shapes: Shapes) -> str | None:
    """CLUSTER and VACUUM FULL move rows to other places and keep who made them."""
    same = record.filenode is not None and record.filenode == facts.filenode
    return None if same else "it was rewritten"


def proven_types(_record: TableRecord, facts: TableFacts, shapes: Shapes) -> str | None:
    name = shapes.unproven.get(facts.oid)
    return None if name is None else f"type {name} may print the same value in different ways"


def same_shape(record: TableRecord, facts: TableFacts, shapes: Shapes) -> str | None:
    same = record.shape is not None and record.shape == shapes.by_table.get(facts.oid)
    return None if same else "columns or types changed"


TABLE_CONDITIONS: tuple[TableCondition, ...] = (same_storage, proven_types, same_shape)


def refuse_server(base: Manifest, source: Source) -> str | None:
    """Return why nothing of the base can be taken over; None if it may be."""
    refusals = (condition(base, source) for condition in SERVER_CONDITIONS)
    return next((why for why in refusals if why is not None), None)


def refuse_table(record: TableRecord, facts: TableFacts, shapes: Shapes) -> str | None:
    """Return why a table that is in the base is read whole; None if its ranges may be compared."""
    refusals = (condition(record, facts, shapes) for condition in TABLE_CONDITIONS)
    return next((why for why in refusals if why is not None), None)
