"""What is made of tables while others still load: indexes and constraints.

Left to the end, foreign keys would be checked one after the other, by one process each, with all other processors
idle. So whatever depends on tables alone is built as soon as those are filled. A foreign key is set
without looking at the rows and then validated, which several tables may be at once. All else of the post-data
section stays with pg_restore.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgstow.core.errors import ConnectionFailed, PostgresError, RestoreError
from pgstow.postgres import loading
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import qualified, quoted
from pgstow.restore.naming import described

__all__ = ["Build", "Validation", "build", "select_builds", "validate"]

_OF_ONE_TABLE = b"ALTER TABLE ONLY "
# Functions of users may look at tables; what is theirs among operators and aggregates calls them.
_OF_USE_LATER = {
    b"MATERIALIZED VIEW",
    b"FUNCTION",
    b"PROCEDURE",
    b"AGGREGATE",
    b"OPERATOR",
    b"OPERATOR CLASS",
    b"OPERATOR FAMILY",
}
_KINDS = {b"INDEX", b"CONSTRAINT", b"FK CONSTRAINT"}
# Sorting integers and merging them takes a third of the processor time of PostgreSQL's choice, a hash table that no cache
# holds: measured with 0.6 to 1.05 million keys, memory for all of them or for few. Not so for uuid (the same) and text (more).
_BY_MERGING = b"SET LOCAL enable_hashjoin = off; "


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An index or constraint, and the dump ids of the tables and builds it needs."""

    entry: TocEntry
    tables: frozenset[int]
    builds: frozenset[int]
    referencing: TocEntry | None = None  # the table of a foreign key that is validated in a job of its own

    @property
    def statement(self) -> bytes:
        """The statement to run; pg_dump's own, but for NOT VALID."""
        statement = self.entry.defn or b""
        return (
            statement if self.referencing is None else statement.rstrip().removesuffix(b";") + b" NOT VALID;"
        )

    @property
    def constraint(self) -> bytes:
        """The name of the foreign key, which follows the table's in the archive."""
        table = self.referencing.tag if self.referencing else b""
        return self.entry.tag.removeprefix(table + b" ")


@dataclass(frozen=True, slots=True)
class Validation:
    """The rows of a foreign key that was set without looking at them."""

    of: Build


def select_builds(toc: Toc, post_data: Iterable[TocEntry]) -> list[Build]:
    """Return the entries of ``post_data`` that need nothing but ordinary tables and each other, in archive order.

    Left out: partitioned tables and partitions (indexes are attached, locks spread over all of them), constraints that
    reach into children, what goes into a tablespace of its own, and what calls users' functions, which may look
    at tables that are still empty.
    """
    by_id = toc.by_id()
    partitioning = {one for e in toc.entries if e.desc == b"TABLE ATTACH" for one in e.dependencies}
    found: dict[int, Build] = {}
    for entry in post_data:
        if entry.desc not in _KINDS or entry.tablespace or not entry.defn:
            continue
        if entry.desc != b"INDEX" and not entry.defn.startswith(_OF_ONE_TABLE):
            continue
        needs = [by_id[one] for one in entry.dependencies if one in by_id]
        tables = frozenset(other.dump_id for other in needs if other.desc == b"TABLE")
        builds = frozenset(other.dump_id for other in needs if other.dump_id in found)
        is_simple = all(_is_there(other) or other.dump_id in builds for other in needs)
        if tables and is_simple and not tables & partitioning:
            found[entry.dump_id] = Build(
                entry=entry, tables=tables, builds=builds, referencing=_referencing(entry, needs)
            )
    return list(found.values())


def _referencing(entry: TocEntry, needs: Iterable[TocEntry]) -> TocEntry | None:
    """Return the table of a foreign key whose rows can be looked at later; None where that is not certain."""
    body = (entry.defn or b"").rstrip().removesuffix(b";")
    if entry.desc != b"FK CONSTRAINT" or body.endswith((b" NOT VALID", b" NOT ENFORCED")):
        return None
    candidates = [
        other
        for other in needs
        if other.desc == b"TABLE"
        and other.namespace == entry.namespace
        and entry.tag.startswith(other.tag + b" ")
    ]
    return candidates[0] if len(candidates) == 1 else None


def _is_there(entry: TocEntry) -> bool:
    """Whether an entry is of use before rows are loaded."""
    return entry.section is Section.PRE_DATA and entry.desc not in _OF_USE_LATER


def build(session: RawSession, one: Build, encoding: str) -> None:
    """Build an index or set a constraint. Raises RestoreError naming it, ConnectionFailed."""
    _run(session, one, one.statement, encoding)


def validate(session: RawSession, one: Validation, encoding: str) -> None:
    """Check the rows of a foreign key. Raises RestoreError naming it, ConnectionFailed."""
    assert one.of.referencing is not None
    table = qualified(session, one.of.entry.namespace or b"", one.of.referencing.tag)
    constraint = quoted(session, one.of.constraint)
    statement = b"ALTER TABLE ONLY " + table + b" VALIDATE CONSTRAINT " + constraint
    if loading.has_integer_key(session, table, one.of.constraint):
        statement = _BY_MERGING + statement
    _run(session, one.of, statement, encoding)


def _run(session: RawSession, one: Build, statement: bytes, encoding: str) -> None:
    what = described(one.entry, encoding)
    try:
        session.execute(statement, doing=f"restoring {what}")
    except ConnectionFailed:
        raise
    except PostgresError as exc:
        raise RestoreError(exc.message, hint=exc.hint, object=what, **exc.facts) from exc
