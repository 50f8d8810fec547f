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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.capture.contents import read_contents
from pgstow.catalog.assertions import Severity
from pgstow.catalog.drills import CheckRecord
from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ToolMissing
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.programs import no_timeouts
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import described, rename_database, text
from pgstow.restore.selection import PRIVILEGES, is_about_database

__all__ = ["CODES", "check_definitions"]

CODES = ("objects", "definitions", "owners", "privileges", "settings")

_LOCK_TIMEOUT_S = 60.0
# Rows, values and large objects have checks of their own; remarks change nothing about a database.
_OTHERS = {
    b"ENCODING", b"STDSTRINGS", b"SEARCHPATH", b"TABLE DATA", b"SEQUENCE SET", b"STATISTICS DATA", b"BLOBS", b"BLOB",
    b"BLOB METADATA", b"BLOB COMMENTS", b"COMMENT", b"SECURITY LABEL", b"MATERIALIZED VIEW DATA",
}  # fmt: skip
# Their definitions are expressions, or hold some: what differs in one of them is worth a look.
_PRINTED_ANEW = {
    b"VIEW", b"MATERIALIZED VIEW", b"RULE", b"INDEX", b"STATISTICS", b"POLICY", b"TRIGGER", b"DEFAULT", b"DOMAIN",
    b"CONSTRAINT", b"CHECK CONSTRAINT",
}  # fmt: skip
_WORD = re.compile(r"""[eE]?'(?:[^']|'')*+'|"(?:[^"]|"")*+"|\w+""")
# Since 18 NOT NULL has a name, which a partition may have been given by another parent.
_NOT_NULL = re.compile(r'CONSTRAINT (?:"(?:[^"]|"")*+"|\w+) (?=NOT NULL)')

_Key = tuple[str, str, str]  # kind, schema, name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The entries of one archive by kind and name: an operator's name may stand for several."""

    encoding: str
    entries: dict[_Key, list[TocEntry]]

    @classmethod
    def of(cls, toc: Toc, keep: Callable[[TocEntry], bool]) -> _Side:
        encoding = toc.encoding
        entries: dict[_Key, list[TocEntry]] = {}
        for entry in toc.entries:
            if keep(entry):
                key = (text(entry.desc, encoding), text(entry.namespace, encoding), text(entry.tag, encoding))
                entries.setdefault(key, []).append(entry)
        return cls(encoding=encoding, entries=entries)


def check_definitions(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether every object is there, with its definition, owner and privileges, and the database with its settings."""
    if restored.context.tools is None:
        raise ToolMissing("pg_dump was not given", hint="install the client programs of the server's release")
    present = _dumped_again(restored, session)
    unset = {(one.table, one.name) for one in restored.context.restored.unset_foreign_keys}

    def is_wanted(entry: TocEntry) -> bool:
        if entry.desc == b"SUBSCRIPTION" and not restored.context.is_throwaway:
            return False  # pg_dump shows them to superusers alone
        if entry.desc == b"SUBSCRIPTION" and not restored.context.is_throwaway:
            return False  # pg_dump shows them to superusers alone
        return (
            entry.dump_id not in restored.left_out
            and _is_object(entry)
            and not _is_unset(restored, entry, unset)
        )

    wanted = _Side.of(restored.toc, is_wanted)
    there = _Side.of(present, _is_object)
    yield from _objects(wanted, there)
    yield from _alike(restored, wanted, there)
    yield from _privileges(restored, present)
    yield from _settings(restored, present)


def _dumped_again(restored: Restored, session: RawSession) -> Toc:
    context = restored.context
    assert context.tools is not None, "looked at before"
    session.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", doing="beginning to read")
    try:
        snapshot = session.value(b"SELECT pg_catalog.pg_export_snapshot()", doing="exporting a snapshot")
        return read_contents(
            context.tools,
            context.target,
            snapshot=session.decode(snapshot),
            selection=Selection(),
            lock_timeout_s=_LOCK_TIMEOUT_S,
            settings=no_timeouts(restored.version_num),
        ).toc
    finally:
        session.execute(b"ROLLBACK", doing="ending to read")


def _is_object(entry: TocEntry) -> bool:
    if entry.desc in _OTHERS or entry.desc in PRIVILEGES or is_about_database(entry):
        return False
    # initdb makes the schema public: an entry that makes nothing is about its owner alone
    return not (entry.desc == b"SCHEMA" and entry.tag == b"public" and not _creates(entry))


def _creates(entry: TocEntry) -> bool:
    return (entry.defn or b"").startswith(b"CREATE ")


def _is_unset(restored: Restored, entry: TocEntry, unset: set[tuple[str, str]]) -> bool:
    """Whether it is a foreign key that could not be set: the restore has said so."""
    if entry.desc != b"FK CONSTRAINT" or not unset:
        return False
    schema = restored.text(entry.namespace)
    return any(f"{table} {name}" == f"{schema}.{restored.text(entry.tag)}" for table, name in unset)


def _objects(wanted: _Side, there: _Side) -> Iterator[CheckRecord]:
    missing = []
    for key, entries in wanted.entries.items():
        lack = len(entries) - len(there.entries.get(key, ()))
        if lack > 0:
            missing.append(
                failed("objects", f"{described(entries[0], wanted.encoding)} is missing", subject=_shown(key))
            )
    kinds = Counter(kind for kind, _, _ in wanted.entries)
    if not kinds:
        yield skipped("objects", "the backup holds no objects")
        return
    shown = ", ".join(f"{kind.lower()} {count}" for kind, count in kinds.most_common())
    yield from summed_up(passed("objects", f"every object of the backup is there: {shown}"), missing)


def _alike(restored: Restored, wanted: _Side, there: _Side) -> Iterator[CheckRecord]:
    pairs = [
        (key, entries, there.entries[key])
        for key, entries in wanted.entries.items()
        if len(there.entries.get(key, ())) == len(entries)
    ]
    yield from _definitions(restored, pairs, wanted.encoding, there.encoding)
    yield from _owners(restored, pairs, wanted.encoding, there.encoding)


_Pairs = Iterable[tuple[_Key, list[TocEntry], list[TocEntry]]]


def _definitions(restored: Restored, pairs: _Pairs, encoding: str, there: str) -> Iterator[CheckRecord]:
    why = _incomparable(restored)
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
                subject=_shown(key),
                severity=severity,
                expected="\n".join(sorted(old)),
                found="\n".join(sorted(new)),
            )
        )
    yield from summed_up(passed("definitions", f"{counted(count, 'definition')} as in the source"), problems)


def _incomparable(restored: Restored) -> str | None:
    """Return why pg_dump prints definitions in another way than it did; None if it does not."""
    archive, tools = restored.toc.header.pg_dump_version or b"", restored.context.tools
    made_by = archive.split(b".")[0].decode("ascii", "replace")
    if tools is not None and made_by != str(tools.version[0]):
        return f"the archive was made by pg_dump {made_by}, and this one is {tools.version[0]}"
    source, here = restored.manifest.server.version_num // 10000, restored.version_num // 10000
    return f"the source was PostgreSQL {source}, this server is {here}" if source != here else None


def _statement(entry: TocEntry, encoding: str) -> str:
    return text(entry.defn, encoding)


def _words(statements: Iterable[str]) -> Counter[frozenset[str]]:
    """Return the words of each line; where in the line they stand is of no matter."""
    lines = (line for each in statements for line in _NOT_NULL.sub("", each).splitlines())
    return Counter(frozenset(_WORD.findall(line)) for line in lines)


def _owners(restored: Restored, pairs: _Pairs, encoding: str, there: str) -> Iterator[CheckRecord]:
    why = _without_roles(restored)
    if why is not None:
        yield skipped("owners", f"owners are not compared: {why}")
        return
    problems, count = [], 0
    for key, before, after in pairs:
        if before[0].section is Section.NONE:
            continue
        count += 1
        old = sorted(text(one.owner, encoding) for one in before)
        new = sorted(text(one.owner, there) for one in after)
        if old != new:
            problems.append(
                failed(
                    "owners",
                    f"{described(before[0], encoding)} belongs to somebody else",
                    subject=_shown(key),
                    expected=", ".join(old),
                    found=", ".join(new),
                )
            )
    yield from summed_up(
        passed("owners", f"{counted(count, 'object')} with the owner of the source"), problems
    )


def _without_roles(restored: Restored) -> str | None:
    """Return why owners and privileges cannot be those of the source; None if they can."""
    if not restored.context.is_throwaway:
        return "the roles of a given server are its own"
    missing = restored.context.restored.missing_roles
    return f"the backup does not hold all roles ({', '.join(missing[:5])})" if missing else None


def _privileges(restored: Restored, present: Toc) -> Iterator[CheckRecord]:
    why = _without_roles(restored) or _incomparable(restored)
    if why is not None:
        yield skipped("privileges", f"privileges are not compared: {why}")
        return

    def is_privilege(entry: TocEntry) -> bool:
        return entry.desc in PRIVILEGES and not is_about_database(entry)

    wanted = _Side.of(restored.toc, lambda one: is_privilege(one) and one.dump_id not in restored.left_out)
    there = _Side.of(present, is_privilege)
    if not wanted.entries:
        yield skipped("privileges", "the backup holds no privileges other than those of owners")
        return
    problems = []
    for key, entries in wanted.entries.items():
        old = _lines(entries, wanted.encoding)
        new = _lines(there.entries.get(key, []), there.encoding)
        if old != new:
            problems.append(
                failed(
                    "privileges",
                    "privileges are others than in the source",
                    subject=_shown(key),
                    expected="\n".join(sorted((old - new).elements())) or None,
                    found="\n".join(sorted((new - old).elements())) or None,
                )
            )
    yield from summed_up(
        passed("privileges", f"privileges on {counted(len(wanted.entries), 'object')} as in the source"),
        problems,
    )


def _lines(entries: Iterable[TocEntry], encoding: str) -> Counter[str]:
    return Counter(line for one in entries for line in text(one.defn, encoding).splitlines() if line.strip())


def _settings(restored: Restored, present: Toc) -> Iterator[CheckRecord]:
    """Yield whether ALTER DATABASE ... SET and ALTER ROLE ... IN DATABASE ... SET came back."""
    old, new = _of_database(restored.toc), _of_database(present)
    if not old:
        return
    if not restored.context.restored.created_database:
        yield skipped(
            "settings", "settings of the database itself come back only where the restore makes the database"
        )
        return
    if _without_roles(restored) is not None:
        old = Counter({line: count for line, count in old.items() if line.startswith("ALTER DATABASE ")})
    lost = old - new
    problems = [
        failed("settings", "a setting of the database did not come back", expected=line) for line in lost
    ]
    yield from summed_up(
        passed("settings", f"{counted(old.total(), 'setting')} of the database came back"), problems
    )


def _of_database(toc: Toc) -> Counter[str]:
    entries = [entry for entry in toc.entries if entry.desc == b"DATABASE PROPERTIES"]
    return Counter(
        line
        for entry in entries
        for line in text(rename_database(entry.defn or b"", b"the_database"), toc.encoding).splitlines()
        if " SET " in line
    )


def _shown(key: _Key) -> str:
    kind, schema, name = key
    return f"{kind.lower()} {schema}.{name}" if schema else f"{kind.lower()} {name}"
