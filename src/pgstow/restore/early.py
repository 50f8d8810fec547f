"""Which tables may be read back while others still load: those whose rows nothing changes any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgstow.postgres.archive import Toc, TocEntry
from pgstow.restore.builds import Build
from pgstow.restore.sent_rows import ReadTarget

__all__ = ["may_be_read_early"]

_OF_USERS = {b"FUNCTION", b"PROCEDURE"}
_CALLING_THEM = _OF_USERS | {b"OPERATOR", b"OPERATOR CLASS", b"OPERATOR FAMILY", b"AGGREGATE"}
_CONSTRAINTS = {b"CONSTRAINT", b"CHECK CONSTRAINT"}


def may_be_read_early(
    targets: Iterable[ReadTarget], toc: Toc, post_data: Iterable[TocEntry], builds: Sequence[Build]
) -> list[ReadTarget]:
    """Return the tables that can be compared as soon as they are loaded, in a database that this restore made.

    Nobody else knows of that database, and in a table that the restore made there nobody but it writes: rows come in
    by the one COPY; indexes, keys and statistics do not change rows; rules and triggers are made when there is
    nothing left that would set them off. All others are to be read at the very end.
    """
    if _may_write_rows(toc, post_data, builds):
        return []
    return [target for target in targets if len(target.members) == 1 and target.members[0].is_ours]


def _may_write_rows(toc: Toc, post_data: Iterable[TocEntry], builds: Sequence[Build]) -> bool:
    """Whether users' code that writes could run in what pg_restore does after the rows are loaded.

    Refreshing a materialized view may call any function, and sets off event triggers; a constraint that is checked then may call any
    function, too. Functions of indexes cannot write: those of a kind that indexes take are refused that by PostgreSQL.
    """
    by_id = toc.by_id()
    if not any(entry.desc in _OF_USERS for entry in toc.entries):
        return False
    built = {one.entry.dump_id for one in builds}
    return any(
        entry.desc == b"MATERIALIZED VIEW DATA"
        or (
            entry.desc in _CONSTRAINTS
            and any(by_id[one].desc in _CALLING_THEM for one in entry.dependencies if one in by_id)
        )
        for entry in post_data
        if entry.dump_id not in built
    )
