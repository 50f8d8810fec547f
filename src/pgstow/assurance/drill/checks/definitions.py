"""Everything but rows: what pg_dump would write of the restored database is what it wrote of the source.

pg_dump knows every kind of object there is, and its table of contents is complete before the first row. So it is started on
the restored database, and each entry of the backup's archive must be among its own: the same kind and name, with
the same owner, the same privileges and the same definition.

A definition is compared line by line as sets of words. Expressions are printed anew from what the server has understood, and
after a restore parentheses and casts may stand elsewhere in them; a word that is missing or another one is a difference.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from pgstow.assurance.drill.checks.dumped import Side, dumped_again, incomparable, key_text
from pgstow.assurance.drill.checks.ownership import (
    Pairs,
    check_database_settings,
    check_owners,
    check_privileges,
)
from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.assertions import Severity
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.archive import Toc, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import described, text
from pgstow.restore.selection import PRIVILEGES, is_about_database

__all__ = ["CODES", "check_definitions"]

CODES = ("objects", "definitions", "owners", "privileges", "settings")

# Rows, values and large objects have checks of their own; remarks have no name to look for, and are compared as they are.
_OTHERS = {
    b"ENCODING", b"STDSTRINGS", b"SEARCHPATH", b"TABLE DATA", b"SEQUENCE SET", b"STATISTICS DATA", b"BLOBS", b"BLOB",
    b"BLOB METADATA", b"BLOB COMMENTS", b"COMMENT", b"SECURITY LABEL", b"MATERIALIZED VIEW DATA",
}  # fmt: skip
# Their definitions are expressions, or hold some: what differs in one of them is worth a look.
_PRINTED_ANEW = {
    b"VIEW", b"MATERIALIZED VIEW", b"RULE", b"INDEX", b"STATISTICS", b"POLICY", b"TRIGGER", b"DEFAULT", b"DOMAIN",
    b"CONSTRAINT", b"CHECK CONSTRAINT",
}  # fmt: skip
_WITH_SECRETS = {
    b"SUBSCRIPTION",
    b"USER MAPPING",
    b"SERVER",
    b"FOREIGN DATA WRAPPER",
}  # connections, passwords
_REMARKS = {b"COMMENT", b"SECURITY LABEL"}
# A word, a text, a quoted name, a number, an operator; casts and parentheses are none of these.
_WORD = re.compile(r"""[eE]?'(?:[^']|'')*+'|"(?:[^"]|"")*+"|\d+(?:\.\d+)?|\w+|[-+*/<>=~!@#%^&|`?]+""")
# Since 18 NOT NULL has a name, which a partition may have been given by another parent.
_NOT_NULL = re.compile(r'CONSTRAINT (?:"(?:[^"]|"")*+"|\w+) (?=NOT NULL)')


def check_definitions(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether every object is there, with its definition, owner and privileges, and the database with its settings."""
    present = dumped_again(restored, session)

    def is_wanted(entry: TocEntry) -> bool:
        if entry.desc == b"SUBSCRIPTION" and not restored.context.is_throwaway:
            return False  # pg_dump shows them to superusers alone
        return entry.dump_id not in restored.left_out and _is_object(entry) and not restored.is_unset(entry)

    wanted = Side.of(restored.toc, is_wanted)
    there = Side.of(present, _is_object)
    yield from _objects(wanted, there)
    pairs = [
        (key, entries, there.entries[key])
        for key, entries in wanted.entries.items()
        if len(there.entries.get(key, ())) == len(entries)
    ]
    yield from _definitions(restored, pairs, present)
    yield from check_owners(restored, pairs, present)
    yield from check_privileges(restored, present)
    yield from check_database_settings(restored, present)


def _is_object(entry: TocEntry) -> bool:
    if entry.desc in _OTHERS or entry.desc in PRIVILEGES or is_about_database(entry):
        return False
    # initdb makes the schema public: an entry that makes nothing is about its owner alone
    return not (entry.desc == b"SCHEMA" and entry.tag == b"public" and not _creates(entry))


def _creates(entry: TocEntry) -> bool:
    return (entry.defn or b"").startswith(b"CREATE ")


def _objects(wanted: Side, there: Side) -> Iterator[CheckRecord]:
    missing = []
    for key, entries in wanted.entries.items():
        lack = len(entries) - len(there.entries.get(key, ()))
        if lack > 0:
            missing.append(
                failed(
                    "objects", f"{described(entries[0], wanted.encoding)} is missing", subject=key_text(key)
                )
            )
    kinds = Counter(kind for kind, _, _ in wanted.entries)
    if not kinds:
        yield skipped("objects", "the backup holds no objects")
        return
    shown = ", ".join(f"{kind.lower()} {count}" for kind, count in kinds.most_common())
    yield from summed_up(passed("objects", f"every object of the backup is there: {shown}"), missing)


def _definitions(restored: Restored, pairs: Pairs, present: Toc) -> Iterator[CheckRecord]:
    encoding, there = restored.toc.encoding, present.encoding
    why = incomparable(restored)
    if why is not None:
        yield skipped("definitions", f"definitions are not compared: {why}")
        return
    problems, count = [], 0
    for key, before, after in pairs:
        count += 1
        old = [_statement(one, encoding) for one in before]
        new = [_statement(one, there) for one in after]
        if sorted(old) == sorted(new) or _words(old) == _words(new):
            continue
        severity: Severity = "warning" if before[0].desc in _PRINTED_ANEW else "error"
        problems.append(
            failed(
                "definitions",
                f"{described(before[0], encoding)} is defined in another way",
                subject=key_text(key),
                severity=severity,
                expected=_told(before[0], old),
                found=_told(after[0], new),
            )
        )
    problems += _remarks(restored, present)
    yield from summed_up(passed("definitions", f"{counted(count, 'definition')} as in the source"), problems)


def _remarks(restored: Restored, present: Toc) -> Iterator[CheckRecord]:
    """Yield the comments and security labels that are lost. They change nothing about the rows: these are warnings."""

    def is_compared(entry: TocEntry) -> bool:
        if entry.desc not in _REMARKS or is_about_database(entry) or entry.dump_id in restored.left_out:
            return False
        # a comment on an extension belongs to who may change the extension
        return restored.context.is_throwaway or not entry.tag.startswith(b"EXTENSION ")

    there = Counter(_statement(one, present.encoding) for one in present.entries if one.desc in _REMARKS)
    for entry in restored.toc.entries:
        if is_compared(entry) and not there[_statement(entry, restored.toc.encoding)]:
            yield failed(
                "definitions",
                f"the {restored.text(entry.desc).lower()} on {restored.text(entry.tag)} is lost or another one",
                subject=restored.described(entry),
                severity="warning",
                expected=_statement(entry, restored.toc.encoding),
            )


def _told(entry: TocEntry, statements: Iterable[str]) -> str | None:
    return None if entry.desc in _WITH_SECRETS else "\n".join(sorted(statements))


def _statement(entry: TocEntry, encoding: str) -> str:
    return text(entry.defn, encoding)


def _words(statements: Iterable[str]) -> Counter[frozenset[str]]:
    """Return the words of each line; where in the line they stand is of no matter."""
    lines = (line for each in statements for line in _NOT_NULL.sub("", each).splitlines())
    return Counter(frozenset(_WORD.findall(line)) for line in lines)
