"""An archive that only drops.

``pg_restore --clean`` drops everything in an archive and creates it again; together with --section it drops
that section only and fails on the first foreign key. ``drop_only`` keeps the statements that drop, and their
order, and leaves nothing to create, so one pass over the whole archive can go first.

pg_restore adds IF EXISTS by searching each statement for ``DROP`` and the kind of object. Where that goes
wrong (names that contain those words; statements that have no IF EXISTS) the statement is written out here.
It then begins with a comment that holds the words searched for: PostgreSQL 15 and newer leave such a
statement alone, 14 puts its IF EXISTS into the comment.

Source: PostgreSQL pg_backup_archiver.c, RestoreArchive and _printTocEntry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from pgstow.postgres.archive.entries import NAME, QUALIFIED_NAME, metadata_oids, unquote
from pgstow.postgres.archive.toc import DIRECTORY_FORMAT, Section, Toc, TocEntry, is_session_setting

__all__ = ["drop_only"]

_CONSTRAINT = re.compile(
    rb"ALTER (?P<kind>(?:FOREIGN )?TABLE|DOMAIN) (?P<only>(?:ONLY )?)(?P<target>%b) "
    rb"DROP CONSTRAINT (?P<name>%b);\n" % (QUALIFIED_NAME, NAME)
)
_DEFAULT = re.compile(
    rb"ALTER (?:FOREIGN )?TABLE (?:ONLY )?(?P<target>%b) ALTER COLUMN (?P<name>%b) DROP DEFAULT;\n"
    % (QUALIFIED_NAME, NAME)
)
_DUMMY_VIEW = re.compile(rb"CREATE OR REPLACE VIEW (?P<target>%b) " % QUALIFIED_NAME)
_CONSTRAINT_KINDS = {b"CONSTRAINT", b"CHECK CONSTRAINT", b"FK CONSTRAINT"}
_LARGE_OBJECTS_PER_STATEMENT = 100  # each is locked until the statement ends


def drop_only(toc: Toc, *, keep: Callable[[TocEntry], bool] = lambda _: False) -> Toc:
    """Return the TOC of a directory archive whose only effect is to drop what ``toc`` describes.

    For ``pg_restore --clean --if-exists --exit-on-error`` on a folder that holds nothing but this
    ``toc.dat``. Objects that are not there are passed over, so it can be run again. Entries for which
    ``keep`` is true are not dropped; nor are the database, the schema public, and default privileges.
    """
    attached = _attached_constraints(toc)
    entries: list[TocEntry] = []
    next_id = max((entry.dump_id for entry in toc.entries), default=0) + 1
    for entry in toc.entries:
        if is_session_setting(entry):
            entries.append(replace(entry, file_name=b""))
        elif keep(entry) or entry.dump_id in attached:
            continue
        elif entry.desc == b"BLOB METADATA":
            for statement in _unlink_statements(entry):
                entries.append(_bare(entry, statement, dump_id=next_id, desc=b"BLOB"))
                next_id += 1
        elif _is_droppable(entry):
            entries.append(_bare(entry, _drop_statement(entry), dump_id=entry.dump_id, desc=entry.desc))
    header = replace(toc.header, format=DIRECTORY_FORMAT, compression=0)
    return Toc(header=header, entries=tuple(entries))


def _is_droppable(entry: TocEntry) -> bool:
    if not entry.drop_stmt or entry.desc in {b"DATABASE", b"DATABASE PROPERTIES"}:
        return False
    # A statement that is a comment says why nothing is dropped: the schema public belongs to initdb.
    return not entry.drop_stmt.startswith(b"--")


def _bare(entry: TocEntry, drop_stmt: bytes, *, dump_id: int, desc: bytes) -> TocEntry:
    """Return the entry with nothing left to do but its drop."""
    return replace(
        entry,
        dump_id=dump_id,
        desc=desc,
        has_data=False,
        section=Section.PRE_DATA if entry.section is Section.DATA else entry.section,
        defn=b"-- dropped only\n",  # pg_restore passes over entries without a definition
        drop_stmt=drop_stmt,
        copy_stmt=None,
        tablespace=None,
        table_am=None,
        owner=b"",  # else ALTER ... OWNER would follow
        dependencies=(),
        file_name=b"",
    )


def _attached_constraints(toc: Toc) -> set[int]:
    """Return the constraints of partitions that go with their parent's and cannot be dropped alone."""
    attached = {(e.namespace, e.tag): set(e.dependencies) for e in toc.entries if e.desc == b"INDEX ATTACH"}
    found = set()
    for entry in toc.entries:
        match = _CONSTRAINT.fullmatch(entry.drop_stmt or b"") if entry.desc == b"CONSTRAINT" else None
        if match and entry.dump_id in attached.get((entry.namespace, unquote(match["name"])), ()):
            found.add(entry.dump_id)
    return found


def _unlink_statements(entry: TocEntry) -> Iterator[bytes]:
    oids = metadata_oids(entry)
    for start in range(0, len(oids), _LARGE_OBJECTS_PER_STATEMENT):
        listed = b", ".join(b"%d" % oid for oid in oids[start : start + _LARGE_OBJECTS_PER_STATEMENT])
        yield (
            b"-- DROP BLOB\nSELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata "
            b"WHERE oid IN (%b);\n" % listed
        )


def _drop_statement(entry: TocEntry) -> bytes:
    statement = entry.drop_stmt or b""
    spelled_out = None
    if entry.desc in _CONSTRAINT_KINDS:
        spelled_out = _constraint_drop(statement)
    elif entry.desc == b"DEFAULT":
        spelled_out = _default_drop(statement)
    elif entry.desc == b"RULE":
        spelled_out = _view_emptying(statement)
    if spelled_out is None:
        return statement  # pg_restore's own insertion of IF EXISTS is right
    kind = b"CONSTRAINT" if entry.desc in _CONSTRAINT_KINDS else entry.desc
    return b"-- DROP %b, if it is there\n%b" % (kind, spelled_out)


def _constraint_drop(statement: bytes) -> bytes | None:
    match = _CONSTRAINT.fullmatch(statement)
    if match is None:
        return None
    kind, only, target, name = match.group("kind", "only", "target", "name")
    if kind != b"DOMAIN":
        return b"ALTER %b IF EXISTS %b%b DROP CONSTRAINT IF EXISTS %b;\n" % (kind, only, target, name)
    exists = b"pg_catalog.to_regtype(%b) IS NOT NULL" % _literal(target)
    return _guarded(exists, b"ALTER DOMAIN %b DROP CONSTRAINT IF EXISTS %b;\n" % (target, name))


def _default_drop(statement: bytes) -> bytes | None:
    match = _DEFAULT.fullmatch(statement)
    if match is None:
        return None
    table, column = _literal(match["target"]), _literal(unquote(match["name"]))
    exists = (
        b"EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%b) "
        b"AND attname = %b AND NOT attisdropped)" % (table, column)
    )
    return _guarded(exists, statement)


def _view_emptying(statement: bytes) -> bytes | None:
    """Return what frees a view of everything it depends on, or None if the statement drops a plain rule.

    pg_dump's own statement replaces the view by constants of the columns it had; this one takes the columns
    it has now, as the columns of a view cannot be taken away by replacing it.
    """
    match = _DUMMY_VIEW.match(statement)
    if match is None:
        return None
    return _block(_EMPTY_VIEW % {b"view": _literal(match["target"])})


_EMPTY_VIEW = b"""
DECLARE
  dummy text;
BEGIN
  SELECT pg_catalog.format('CREATE OR REPLACE VIEW %%s AS SELECT %%s', c.oid::pg_catalog.regclass,
    (SELECT pg_catalog.string_agg(pg_catalog.format('NULL::%%s%%s AS %%I',
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       (SELECT pg_catalog.format(' COLLATE %%I.%%I', n.nspname, o.collname)
          FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace n ON n.oid = o.collnamespace
          WHERE o.oid = a.attcollation AND o.oid <> t.typcollation),
       a.attname), ', ' ORDER BY a.attnum)
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = c.oid AND a.attnum > 0))
  INTO dummy FROM pg_catalog.pg_class c
  WHERE c.oid = pg_catalog.to_regclass(%(view)b) AND c.relkind = 'v';
  IF dummy IS NOT NULL THEN
    EXECUTE dummy;
  END IF;
END
"""


def _guarded(condition: bytes, statement: bytes) -> bytes:
    return _block(b"\nBEGIN\n  IF %b THEN\n    %b  END IF;\nEND\n" % (condition, statement))


def _block(body: bytes) -> bytes:
    tag = b"$pgstow$"
    while tag in body:
        tag = b"$x" + tag[1:]
    return b"DO %b%b%b;\n" % (tag, body, tag)


def _literal(text: bytes) -> bytes:
    """Return a string literal that means ``text`` whatever standard_conforming_strings is."""
    return b" E'%b'" % text.replace(b"\\", b"\\\\").replace(b"'", b"''")
