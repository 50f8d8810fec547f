"""Constraints: each one of the archive is there, and the rows have been held against it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.archive.entries import NAME, unquote
from pgstow.postgres.inventory import ConstraintState, constraint_states
from pgstow.postgres.raw import RawSession

__all__ = ["check_constraints"]

_KINDS = (b"CONSTRAINT", b"CHECK CONSTRAINT", b"FK CONSTRAINT")
# What a constraint says that the source had never held against all rows; the server validates it in no restore either.
_UNHELD = re.compile(rb"\bNOT (?:VALID|ENFORCED)\b")
# pg_dump writes constraints of a table or domain one to a line; text in literals is no statement.
_INLINE = re.compile(rb"^\s+CONSTRAINT (%b) (?:CHECK|NOT NULL)\b([^\n]*)" % NAME, re.MULTILINE)
_TEXT = re.compile(rb"""("(?:[^"]|"")*+")|'(?:[^']|'')*+'""")

_Key = tuple[bytes, bytes, bytes]  # schema, table or domain, constraint


def check_constraints(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether all constraints are there and validated; those that never were in the source are no failure."""
    unset = restored.context.restored.unset_foreign_keys
    entries = [entry for entry in restored.entries(*_KINDS) if not restored.is_unset(entry)]
    inline = list(_inline(restored))
    found = list(constraint_states(session))
    if not entries and not inline and not unset and not found:
        yield skipped("constraints", "the backup holds no constraints")
        return
    problems = [
        failed("constraints", f"{restored.described(entry)} is missing", subject=restored.qualified(entry))
        for entry in _missing(entries, found)
    ]
    there = {(one.schema, one.owner, one.name) for one in found}
    problems += [
        failed("constraints", "the constraint is missing", subject=_shown(restored, key))
        for key, _ in inline
        if key not in there
    ]
    problems += _unvalidated(restored, entries, inline, found)
    problems += [
        skipped(
            "constraints",
            f"the backup holds chosen tables alone, and this foreign key could not be set: {one.reason}",
            subject=f"{one.table} {one.name}",
        )
        for one in unset
    ]
    good = passed("constraints", f"{counted(len(found), 'constraint')}, and all rows were held against them")
    yield from summed_up(good, problems)


def _missing(entries: list[TocEntry], found: list[ConstraintState]) -> Iterator[TocEntry]:
    there = {(one.schema, one.owner + b" " + one.name) for one in found}
    for entry in entries:
        if (entry.namespace or b"", entry.tag) not in there:
            yield entry


def _inline(restored: Restored) -> Iterator[tuple[_Key, bool]]:
    """Yield the named constraints in CREATE TABLE and CREATE DOMAIN, and whether they bind nobody."""
    for entry in restored.entries(b"TABLE", b"FOREIGN TABLE", b"DOMAIN"):
        for match in _INLINE.finditer(_without_texts(entry.defn or b"")):
            key = (entry.namespace or b"", entry.tag, unquote(match[1]))
            yield key, _UNHELD.search(match[2]) is not None


def _without_texts(statement: bytes) -> bytes:
    return _TEXT.sub(lambda match: match[1] or b"''", statement)


def _unvalidated(
    restored: Restored, entries: list[TocEntry], inline: list[tuple[_Key, bool]], found: list[ConstraintState]
) -> Iterator[CheckRecord]:
    never = {
        (one.namespace or b"", one.tag) for one in entries if _UNHELD.search(_without_texts(one.defn or b""))
    }
    never |= {(schema, owner + b" " + name) for (schema, owner, name), is_unheld in inline if is_unheld}
    for one in found:
        own_name = one.owner + b" " + one.name
        if one.is_validated or (one.schema, own_name) in never:
            continue
        # what is inherited, or was made for a partition, is as its parent is
        inherits = not one.is_local or one.root != one.name
        if inherits and any(tag.endswith(b" " + one.root) for _, tag in never):
            continue
        yield failed(
            "constraints",
            "the constraint is there, but its rows were not held against it (NOT VALID)",
            subject=_shown(restored, (one.schema, one.owner, one.name)),
        )


def _shown(restored: Restored, key: _Key) -> str:
    schema, owner, name = (restored.text(part) for part in key)
    return f"{schema}.{owner} {name}"
