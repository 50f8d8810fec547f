"""What to do after a drill that failed, for each way in which it can fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pgstow.catalog.drills import DrillRecord

__all__ = ["next_steps"]

_BY_ERROR: Mapping[str, str] = MappingProxyType(
    {
        "repository_damaged": "Run `pgstow verify --read-data` to see how far the damage goes, make a new backup at once, and drill that;"
        " `pgstow repo repair` drops what is lost, and another destination may still hold this backup.",
        "object_not_found": "An object of the repository is gone: run `pgstow verify`, and look at who may delete from the store.",
        "content_mismatch": "What came back is not what was saved: run `pgstow verify --read-data` on this backup, make a new one, drill"
        " that one, and keep this report.",
        "target_refused": "Nothing was restored: the place to restore into does not fit. The hint above says what it lacks.",
        "restore": "PostgreSQL refused a part of the backup. What it said names the object: a restore in an emergency would stop there,"
        " too. Repair the definition at the source, make a new backup and drill that one.",
        "tool_missing": "Install what is missing on this machine, and on the machine where you would restore in an emergency.",
        "connection_failed": "The server was away or went away. Drill again; if it happens again, look at the server's log. Of a throwaway server"
        " the remarks have what is left of it.",
        "store_unavailable": "The store could not be reached. Drill again when it can: nothing was found wrong with the backup.",
        "store_denied": "The store refused the credentials. Give the drill some that may read the repository.",
        "repository_locked": "Somebody removed the drill's lock or worked on the repository. Drill again.",
        "process_failed": "A program failed. Its words stand above; try the same release by hand on this machine.",
        "disk_full": "The disk ran full while the backup was restored: the hint above says what to do. A real restore needs that room as well.",
        "internal": "This is a fault in pgstow. Set PGSTOW_DEBUG=1, drill again, and report what it prints.",
    }
)
_NOTHING_KNOWN = "Nothing was found wrong with the backup, and nothing was proven: drill again."
_DOUBTFUL = "Until a drill passes, take this backup for one that may not come back, and an older proven one for the last that does."
_PARTIAL = (
    "This is a partial backup: the types, functions and extensions that it needs come from a whole backup of the same database, made"
    " before it. See with `pgstow list` whether this repository has one."
)
_BY_CHECK: Mapping[str, str] = MappingProxyType(
    {
        "content": "Rows came back that are not the ones that were saved: run `pgstow verify --read-data`, make a new backup, drill that"
        " one, and keep this report.",
        "row_counts": "Rows are missing or too many: run `pgstow verify --read-data`, make a new backup and drill that one.",
        "newest_rows": "The newest rows of a table are not those that the backup recorded: compare them with the source.",
        "indexes": "An index is missing or broken after the restore: look at it at the source with amcheck, too, and REINDEX it there.",
        "constraints": "A constraint is missing or not validated: rows at the source may break it; find them and validate it there.",
        "sequences": "A sequence would hand out numbers that are in use: set it, at the source and after a real restore.",
        "assertion": "A rule of your own does not hold in the restored database. If it did not hold when the backup was made, the data at"
        " the source is wrong; else the backup is.",
        "large_objects": "Large objects are missing: compare them with the source, make a new backup and drill that one.",
        "objects": "An object of the backup is not in the restored database: the report names it; look for it at the source, and restore it"
        " by hand from `pgstow export --format plain`.",
        "definitions": "A definition came back as another one: compare it with the source before you rely on it.",
        "amcheck": "An index is not what its table says: look at it at the source with amcheck, and REINDEX it there.",
        "tables": "Pages of a table are not sound after the restore: look at this machine's memory and disk, and drill again elsewhere.",
        "materialized_views": "A materialized view is not filled as it was: REFRESH it after a real restore.",
        "owners": "Something belongs to another role than at the source: check the roles of the target before a real restore.",
        "privileges": "Rights are missing or too many after the restore: compare them with the source before anybody works there.",
        "settings": "The restored database has other settings than the source, such as its locale: text may sort differently.",
        "roles": "A role is missing: back up with a connection that may read them, or keep globals.sql apart.",
        "extensions": "An extension is missing or has another version: install the packages that the source has.",
    }
)


def next_steps(record: DrillRecord) -> Iterator[str]:
    """Yield what a person does next, the most important first; nothing after a drill that passed."""
    if record.outcome == "interrupted":
        yield "The drill was interrupted and says nothing about the backup: drill again."
    if record.outcome == "failed":
        if record.error_code is not None:
            yield _BY_ERROR.get(record.error_code, "The error above says what went wrong.")
        if record.error_code == "restore" and record.is_partial:
            yield _PARTIAL
        grave = [issue for issue in record.issues if issue.severity == "error"]
        wrong = dict.fromkeys(issue.code for issue in grave if issue.outcome == "fail")
        unknown = dict.fromkeys(
            issue.code for issue in grave if issue.outcome == "unknown" and issue.code not in wrong
        )
        for code in wrong:
            yield _BY_CHECK.get(code, f"Look at what the check {code} found, above.")
        if unknown:
            yield (
                f"What could not be found out counts as failed ({', '.join(unknown)}): its message above says why. Clear that, and drill"
                " again."
            )
        only_unknown = (
            unknown and not wrong and record.error is None and all(one.is_equal for one in record.tables)
        )
        yield _NOTHING_KNOWN if record.is_of_place or only_unknown else _DOUBTFUL
    if not record.is_removed:
        yield "Something that was made for the drill is still there; the next drill removes it. The remarks name it."
    if _missed(record.proven_s, record.rto_target_s):
        yield (
            "The restore took longer than the target: more jobs, a faster disk, a destination nearby, or fewer and smaller indexes."
        )
    if _missed(record.lost_s, record.rpo_target_s):
        yield "The backup is older than what may be lost: drill the newest one, or back up more often."


def _missed(achieved_s: float | None, target_s: float | None) -> bool:
    return achieved_s is not None and target_s is not None and achieved_s > target_s
