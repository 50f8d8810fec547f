"""What a restore and its errors say, as a record of a drill says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pgstow.catalog.drills import PhaseRecord, TableProof
from pgstow.core.errors import PgstowError
from pgstow.restore.engine import SAID_OF_THE_DATABASE
from pgstow.restore.naming import split_name
from pgstow.restore.report import RestoredTable, RestoreReport

__all__ = ["error_code", "error_hint", "left_out", "restore_phases", "table_proofs"]

_SHOWN = 10
# What the restore calls its kinds of work, and what a record does where that is another name.
_PHASES: Mapping[str, str] = {
    "checking": "preparation",
    "creating the database": "pre-data",
    "loading": "data",
    "other data": "large-objects",
    "statistics": "analyze",
    "comparison": "content",
}


def restore_phases(report: RestoreReport, offset_s: float) -> list[PhaseRecord]:
    """Return the phases of a restore that began ``offset_s`` after the drill, in the order of their beginnings."""
    found: dict[str, PhaseRecord] = {}
    for span in report.spans:
        name = _PHASES.get(span.name, span.name)
        begun_s, ended_s = span.begun_s, span.begun_s + span.seconds
        known = found.get(name)
        if known is not None:
            begun_s = min(begun_s, known.begun_s)
            ended_s = max(ended_s, known.begun_s + known.seconds)
        busy_s = span.busy_s + (known.busy_s or 0.0 if known is not None else 0.0)
        found[name] = PhaseRecord(
            name=name, begun_s=begun_s, seconds=round(ended_s - begun_s, 3), busy_s=round(busy_s, 3)
        )
    moved = [one.model_copy(update={"begun_s": round(one.begun_s + offset_s, 3)}) for one in found.values()]
    return sorted(moved, key=lambda one: one.begun_s)


def table_proofs(report: RestoreReport) -> tuple[TableProof, ...]:
    """Return how each table came out. Rows that a partitioned table spread itself are judged with it, as a whole."""
    is_equal = {(one.schema, one.name): one.is_equal for one in report.compared}

    def judged(table: RestoredTable) -> bool:
        if table.loaded_via is None:
            return is_equal.get((table.schema, table.name), False)
        schema, name = split_name(table.loaded_via.encode())
        return is_equal.get(((schema or b"").decode(), name.decode()), False)

    return tuple(
        TableProof(
            schema_=table.schema,
            name=table.name,
            rows=table.rows,
            size_bytes=table.size_bytes,
            load_s=table.seconds,
            is_equal=judged(table),
        )
        for table in report.tables
    )


def left_out(report: RestoreReport) -> Iterator[str]:
    """Yield what was not restored, with the reason; many of one reason in one sentence.

    What is said of the database itself was restored when the drill made it.
    """
    by_reason: dict[str, list[str]] = {}
    for one in report.skipped:
        if one.what == SAID_OF_THE_DATABASE:
            continue
        by_reason.setdefault(one.why, []).append(one.what)
    for why, what in by_reason.items():
        more = f" and {len(what) - _SHOWN} more" if len(what) > _SHOWN else ""
        yield f"not restored: {', '.join(what[:_SHOWN])}{more}: {why}"
    for key in report.unset_foreign_keys:
        yield f"not set: foreign key {key.name} of {key.table}: {key.reason}"


def error_code(error: PgstowError | None) -> str | None:
    if error is None:
        return None
    return error.code if type(error) is not PgstowError else "internal"


def error_hint(error: PgstowError | None) -> str | None:
    """Return what to do, without what a restore says of its target: that is gone."""
    if error is None or error.hint is None:
        return None
    if "missing_extensions" in error.facts:
        packages = error.facts.get("packages")
        named = f" ({', '.join(packages)} on Debian)" if isinstance(packages, list) and packages else ""
        return (
            f"install the packages on this machine{named}, drill on a server that has them with --on URL, or say with"
            " --optional-extension NAME that what needs one may be left out"
        )
    if "missing_roles" in error.facts:
        return "create these roles on that server, or leave --on out: on a throwaway server they are made from the backup"
    left = str(error.facts.get("left_behind", ""))
    return error.hint.removesuffix(left).removesuffix("; ") or None if left else error.hint
