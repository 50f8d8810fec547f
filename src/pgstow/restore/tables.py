"""Choosing single tables and schemas: what belongs to them, and what they cannot do without."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pgstow.core.errors import UsageError
from pgstow.postgres.archive import Section, Toc, TocEntry, copy_target, is_load_via_root
from pgstow.postgres.target import ObjectKey
from pgstow.restore.naming import altered_table, described, split_name, text
from pgstow.restore.report import Skipped
from pgstow.restore.request import RestoreOptions
from pgstow.restore.selection import Selection, is_about_database, without_unwanted_kinds

__all__ = ["needs_of", "object_key", "select_some"]

_RELATIONS = {b"TABLE", b"FOREIGN TABLE", b"VIEW", b"MATERIALIZED VIEW", b"SEQUENCE"}
_NEVER_BROUGHT = {b"TABLE", b"FOREIGN TABLE", b"VIEW", b"MATERIALIZED VIEW"}
_TAGGED_LIKE_TABLE = {
    b"TABLE DATA", b"MATERIALIZED VIEW DATA", b"ROW SECURITY", b"SEQUENCE SET", b"SEQUENCE OWNED BY", b"STATISTICS DATA",
}  # fmt: skip
_TAGGED_AFTER_TABLE = {
    b"DEFAULT", b"CONSTRAINT", b"CHECK CONSTRAINT", b"FK CONSTRAINT", b"TRIGGER", b"RULE", b"POLICY",
}  # fmt: skip
_ON_TABLE = {b"INDEX", b"STATISTICS"}
_PUBLISHED = {b"PUBLICATION TABLE", b"PUBLICATION TABLES IN SCHEMA"}
_CLASSES = {
    b"SCHEMA": b"schema",
    b"EXTENSION": b"extension",
    b"PROCEDURAL LANGUAGE": b"language",
    b"ACCESS METHOD": b"access method",
    b"FOREIGN DATA WRAPPER": b"foreign data wrapper",
    b"SERVER": b"server",
    b"PUBLICATION": b"publication",
    b"CAST": b"cast",
    b"TYPE": b"type",
    b"SHELL TYPE": b"type",
    b"DOMAIN": b"type",
    b"FUNCTION": b"routine",
    b"PROCEDURE": b"routine",
    b"AGGREGATE": b"routine",
    **dict.fromkeys(_RELATIONS, b"relation"),
    **{
        kind: kind.lower()
        for kind in (
            b"OPERATOR",
            b"OPERATOR CLASS",
            b"OPERATOR FAMILY",
            b"COLLATION",
            b"CONVERSION",
            b"TEXT SEARCH CONFIGURATION",
            b"TEXT SEARCH DICTIONARY",
            b"TEXT SEARCH PARSER",
            b"TEXT SEARCH TEMPLATE",
        )
    },
}


def object_key(entry: TocEntry) -> ObjectKey | None:
    """Return what to look for in a target to know whether it has the entry's object; None if that cannot be told."""
    kind = _CLASSES.get(entry.desc)
    return (kind, entry.namespace or b"", entry.tag) if kind else None


def select_some(toc: Toc, options: RestoreOptions, existing: AbstractSet[ObjectKey]) -> Selection:
    """Return the chosen tables and schemas with all that is theirs, and what they need and the target lacks.

    ``existing`` is what the target holds. Raises UsageError for names the archive does not have, and for tables
    that cannot be made because they need another table which is neither chosen nor there.
    """
    choice = _Choice(toc, existing)
    choice.name_schemas(options.schemas)
    choice.name_tables(options.tables)
    choice.add_partitions()
    choice.add_belongings()
    if not options.data_only:
        choice.check_roots()
        choice.bring_needs()
    choice.add_remarks()
    entries = without_unwanted_kinds(
        toc, tuple(e for e in toc.entries if e.dump_id in choice.chosen), options
    )
    return Selection(
        entries=entries,
        foreign_keys=() if options.data_only else tuple(choice.foreign_keys),
        brought=frozenset(choice.brought),
        conflicts=() if options.data_only else tuple(e for e in entries if choice.is_conflict(e)),
        skipped=tuple(choice.skipped),
        is_whole=False,
    )


def needs_of(toc: Toc, wanted: AbstractSet[ObjectKey]) -> tuple[TocEntry, ...]:
    """Return what the ``wanted`` objects and all that hangs on them need besides each other, in archive order.

    What cannot be had, such as a view that a function reads, is passed over, and what needs it as well.
    """
    choice = _Choice(toc, wanted)
    choice.chosen = {entry.dump_id for entry in toc.entries if object_key(entry) in wanted}
    choice.add_belongings()
    for entry in toc.entries:
        if entry.dump_id in choice.chosen and entry.section is not Section.NONE:
            choice.bring_if_possible(entry)
    return tuple(entry for entry in toc.entries if entry.dump_id in choice.brought)


@dataclass(slots=True)
class _Choice:
    """The set of chosen entries while it grows."""

    toc: Toc
    existing: AbstractSet[ObjectKey]
    chosen: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    brought: set[int] = field(default_factory=set)
    foreign_keys: list[TocEntry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    by_id: dict[int, TocEntry] = field(default_factory=dict)
    encoding: str = "utf-8"
    parents: dict[int, set[int]] = field(default_factory=dict)  # of partitions

    def __post_init__(self) -> None:
        self.by_id = self.toc.by_id()
        self.encoding = self.toc.encoding
        for entry in self.toc.entries:
            if entry.desc == b"TABLE ATTACH" and len(entry.dependencies) > 1:
                child, *parents = entry.dependencies
                self.parents.setdefault(child, set()).update(parents)

    # -- what people name

    def name_schemas(self, schemas: Iterable[str]) -> None:
        found = {text(e.tag, self.encoding) for e in self.toc.entries if e.desc == b"SCHEMA"}
        found |= {text(e.namespace, self.encoding) for e in self.toc.entries if e.namespace}
        for schema in schemas:
            if schema not in found:
                raise UsageError(f"the backup holds no schema {schema}", hint=_near(schema, found))
            for entry in self.toc.entries:
                is_it = entry.desc == b"SCHEMA" and text(entry.tag, self.encoding) == schema
                if is_it or (text(entry.namespace, self.encoding) == schema and self._stands_alone(entry)):
                    self.chosen.add(entry.dump_id)

    @staticmethod
    def _stands_alone(entry: TocEntry) -> bool:
        """Whether the entry is an object of a schema in its own right, rather than a part of one."""
        parts = (
            _TAGGED_LIKE_TABLE
            | _TAGGED_AFTER_TABLE
            | _ON_TABLE
            | _PUBLISHED
            | {b"TABLE ATTACH", b"INDEX ATTACH"}
        )
        return entry.desc not in parts and entry.section is not Section.NONE

    def name_tables(self, tables: Iterable[str]) -> None:
        spellings: dict[str, set[int]] = {}
        for entry in self._nameable():
            for spelling in self._spellings(entry):
                spellings.setdefault(spelling, set()).add(entry.dump_id)
        for table in tables:
            found = spellings.get(table, set())
            if not found:
                known = {
                    f"{text(e.namespace, self.encoding)}.{text(e.tag, self.encoding)}"
                    for e in self._nameable()
                }
                raise UsageError(f"the backup holds no table {table}", hint=_near(table, known))
            if len(found) > 1:
                names = sorted(described(self.by_id[one], self.encoding) for one in found)
                raise UsageError(f"{table} could be any of {', '.join(names)}", hint="write SCHEMA.TABLE")
            self.chosen |= found
            self.named |= found

    def _nameable(self) -> list[TocEntry]:
        relations = [entry for entry in self.toc.entries if entry.desc in _RELATIONS]
        there = {(entry.namespace, entry.tag) for entry in relations}
        # tables that an extension made have rows in the archive, and nothing else
        return relations + [e for e in self.toc.table_data() if (e.namespace, e.tag) not in there]

    def _spellings(self, entry: TocEntry) -> set[str]:
        schema, name = text(entry.namespace, self.encoding), text(entry.tag, self.encoding)
        quoted_schema, quoted_name = _quoted(schema), _quoted(name)
        pairs = [(s, n) for s in (schema, quoted_schema) for n in (name, quoted_name)]
        return {name, quoted_name, *(f"{s}.{n}" for s, n in pairs)}

    # -- what belongs to it

    def add_partitions(self) -> None:
        """Add the partitions of every chosen table, at every level."""
        grew = True
        while grew:
            more = {child for child, parents in self.parents.items() if parents & self.chosen} - self.chosen
            self.chosen |= more
            grew = bool(more)

    def add_belongings(self) -> None:
        """Add what hangs on the chosen objects. In archive order an object comes before what hangs on it."""
        for entry in self.toc.entries:
            if entry.dump_id in self.chosen or entry.section is Section.NONE or is_about_database(entry):
                continue
            if entry.desc in _PUBLISHED:
                if self._on_chosen(entry):
                    self._skip(
                        entry,
                        "publications are not part of a table; add it again where it should be published",
                    )
            elif entry.desc == b"TABLE ATTACH":
                self._add_attachment(entry)
            elif self._belongs(entry):
                if entry.desc == b"FK CONSTRAINT":
                    self.foreign_keys.append(entry)
                else:
                    self.chosen.add(entry.dump_id)

    def _add_attachment(self, entry: TocEntry) -> None:
        child, *parents = entry.dependencies
        if child in self.chosen and self.chosen.issuperset(parents):
            self.chosen.add(entry.dump_id)
        elif child in self.chosen:
            names = ", ".join(
                described(self.by_id[one], self.encoding) for one in parents if one in self.by_id
            )
            self._skip(entry, f"{names} was not chosen: the partition is restored as a table of its own")

    def _belongs(self, entry: TocEntry) -> bool:
        if entry.desc in _TAGGED_LIKE_TABLE:
            return any(self._is_named(one, entry.namespace, entry.tag) for one in self._on_chosen(entry))
        if entry.desc in _TAGGED_AFTER_TABLE:
            return self._owner(entry) in self.chosen
        if entry.desc == b"INDEX ATTACH":
            tables_and_indexes = _RELATIONS | {b"INDEX", b"CONSTRAINT"}
            needed = [
                one
                for one in entry.dependencies
                if one in self.by_id and self.by_id[one].desc in tables_and_indexes
            ]
            return self.chosen.issuperset(needed)
        if entry.desc == b"SEQUENCE" or entry.desc in _ON_TABLE:  # an owned sequence depends on its table
            return any(self.by_id[one].desc in _RELATIONS for one in self._on_chosen(entry))
        return False

    def _on_chosen(self, entry: TocEntry) -> list[int]:
        return [one for one in entry.dependencies if one in self.chosen]

    def _is_named(self, dump_id: int, namespace: bytes | None, tag: bytes) -> bool:
        entry = self.by_id[dump_id]
        return (entry.namespace, entry.tag) == (namespace, tag)

    def _owner(self, entry: TocEntry) -> int | None:
        """Return the object that a constraint, default, trigger, rule or policy is a part of.

        The statement says so where it is an ALTER TABLE; a tag ``a b c`` could be of table ``a`` or ``a b``.
        """
        altered = altered_table(entry)
        if altered:
            namespace, name = altered
            mine = [
                one
                for one in entry.dependencies
                if one in self.by_id and self._is_named(one, namespace or entry.namespace, name)
            ]
        else:
            mine = [
                one
                for one in entry.dependencies
                if one in self.by_id and self._is_tagged_after(entry, self.by_id[one])
            ]
        return max(mine, key=lambda one: len(self.by_id[one].tag), default=None)

    @staticmethod
    def _is_tagged_after(entry: TocEntry, table: TocEntry) -> bool:
        same_schema = entry.namespace == table.namespace or entry.namespace is None
        return (
            same_schema and table.desc in _RELATIONS | {b"DOMAIN"} and entry.tag.startswith(table.tag + b" ")
        )

    # -- what it cannot do without

    def bring_needs(self) -> None:
        """Add what the chosen objects need and the target lacks; drop or refuse what cannot be made at all."""
        missing: dict[int, TocEntry] = {}
        for entry in self.toc.entries:
            if entry.dump_id not in self.chosen or entry.section is Section.NONE:
                continue
            if entry.desc == b"SCHEMA" and self._exists(entry):
                self.chosen.discard(entry.dump_id)
                continue
            lacks = next((missing[one] for one in entry.dependencies if one in missing), None) or self._lacks(
                entry, set()
            )
            if lacks is None:
                self._bring(entry)
            else:
                self._give_up(entry, lacks)
                missing[entry.dump_id] = lacks
        for entry in self.toc.entries:  # values of sequences that were brought
            if entry.desc == b"SEQUENCE SET" and any(one in self.brought for one in entry.dependencies):
                self.chosen.add(entry.dump_id)

    def _give_up(self, entry: TocEntry, lacks: TocEntry) -> None:
        if entry.dump_id in self.named or entry.desc == b"TABLE":
            raise UsageError(
                f"{described(entry, self.encoding)} needs {described(lacks, self.encoding)}, which is neither chosen nor in the target",
                hint=f"choose it as well: --table {text(lacks.namespace, self.encoding)}.{text(lacks.tag, self.encoding)}",
            )
        self.chosen.discard(entry.dump_id)
        self._skip(
            entry,
            f"it needs {described(lacks, self.encoding)}, which is neither chosen nor in the target",
            is_loss=True,
        )

    def check_roots(self) -> None:
        """Refuse partitions whose rows only their root can take, without the root."""
        chosen = {
            (e.namespace, e.tag) for e in self.toc.entries if e.dump_id in self.chosen and e.desc == b"TABLE"
        }
        for entry in self.toc.table_data():
            if entry.dump_id in self.chosen and is_load_via_root(entry):
                namespace, name = split_name(copy_target(entry))
                if (namespace, name) not in chosen:
                    partition = f"{text(entry.namespace, self.encoding)}.{text(entry.tag, self.encoding)}"
                    root = f"{text(namespace, self.encoding)}.{text(name, self.encoding)}"
                    raise UsageError(
                        f"the rows of {partition} are loaded through {root}, which was not chosen",
                        hint=f"restore the whole table: --table {root}",
                    )

    def _needs(self, entry: TocEntry) -> list[TocEntry]:
        """Return the objects without which the entry's statement fails, as far as they are neither chosen nor there."""
        needed = []
        for one in entry.dependencies:
            other = self.by_id.get(one)
            if (
                other is None
                or one in self.chosen
                or other.section is not Section.PRE_DATA
                or self._exists(other)
            ):
                continue
            if one in self.parents.get(entry.dump_id, ()) or self._is_sequence_owner(entry, other):
                continue  # attaching and OWNED BY are entries of their own
            needed.append(other)
        return needed

    @staticmethod
    def _is_sequence_owner(entry: TocEntry, other: TocEntry) -> bool:
        return (
            entry.desc == b"SEQUENCE"
            and other.desc in _RELATIONS
            and (entry.defn or b"").startswith(b"CREATE ")
        )

    def _lacks(self, entry: TocEntry, seen: set[int]) -> TocEntry | None:
        """Return a table or view that the entry needs, however indirectly, and that cannot be had."""
        for other in self._needs(entry):
            if other.desc in _NEVER_BROUGHT:
                return other
            if other.dump_id not in seen:
                seen.add(other.dump_id)
                lacks = self._lacks(other, seen)
                if lacks is not None:
                    return lacks
        return None

    def bring_if_possible(self, entry: TocEntry) -> None:
        """Add what one object needs, unless a part of that cannot be had."""
        if self._lacks(entry, set()) is None:
            self._bring(entry)

    def _bring(self, entry: TocEntry) -> None:
        for other in self._needs(entry):
            self.chosen.add(other.dump_id)
            self.brought.add(other.dump_id)
            self._bring(other)

    # -- what is said about it

    def add_remarks(self) -> None:
        """Add comments, labels and privileges of everything chosen; a foreign key's own go with the key."""
        for entry in self.toc.entries:
            if entry.section is Section.NONE and self._on_chosen(entry):
                self.chosen.add(entry.dump_id)
        if self.toc.large_object_data():
            self.skipped.append(Skipped(what="large objects", why="they belong to no table or schema"))

    def is_conflict(self, entry: TocEntry) -> bool:
        return entry.dump_id not in self.brought and self._exists(entry)

    def _exists(self, entry: TocEntry) -> bool:
        key = object_key(entry)
        # initdb makes public, so archives leave it out or only adjust it
        return key is not None and key in self.existing

    def _skip(self, entry: TocEntry, why: str, *, is_loss: bool = False) -> None:
        self.skipped.append(Skipped(what=described(entry, self.encoding), why=why, is_loss=is_loss))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _near(name: str, known: AbstractSet[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    near = (
        near
        or [
            one
            for one in sorted(known)
            if one.split(".")[-1].lower() == name.rsplit(".", maxsplit=1)[-1].lower()
        ][:3]
    )
    return f"it holds {', '.join(near)}" if near else "pgstow show BACKUP lists what it holds"
