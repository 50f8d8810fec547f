"""What decides how the rows of a table print: columns and types, all the way down to enum labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgstow.postgres.catalogs import text
from pgstow.postgres.session import Connection

__all__ = ["Shapes", "read_shapes"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Digests of what rows of each table look like, down to enum labels.

    ``by_table`` depends on definitions alone and can be compared between backups. ``present`` covers the
    same tables and also their names and which versions of the catalog rows were seen: it differs after any
    change, also one that was undone. ``unproven`` names, by table, a type whose printed form may depend on more
    than the stored value; tables without one are not in it.
    """

    by_table: dict[int, str]
    present: str
    unproven: dict[int, str]


def read_shapes(connection: Connection, oids: Sequence[int]) -> Shapes:
    """Return the shapes of the given tables as this session's snapshot shows them.

    An enum rename or a composite's ADD ATTRIBUTE takes no lock on the tables that use the type, so the only
    defence is to look twice.
    """
    columns = _columns(connection, oids)
    types = _types(connection, {type_oid for used, _ in columns.values() for type_oid in used})
    present = hashlib.sha256(_places(connection, oids))
    by_table = {}
    unproven = {}
    for oid, (used, definition) in sorted(columns.items()):
        digest = hashlib.sha256(definition)
        for type_oid in sorted(_reachable(used, types)):
            digest.update(types[type_oid].definition)
            if not types[type_oid].is_proven:
                unproven[oid] = types[type_oid].name
        by_table[oid] = digest.hexdigest()
        present.update(digest.digest())
    for _, found in sorted(types.items()):
        present.update(found.versions)
    return Shapes(by_table, present.hexdigest(), unproven)


def _places(connection: Connection, oids: Sequence[int]) -> bytes:
    """Return under which names the tables are found; renaming a schema takes no lock on what is in it."""
    row = connection.execute(
        """
        SELECT string_agg(concat_ws(E'\\x01', c.oid, c.relname, n.nspname, n.xmin), E'\\x02' ORDER BY c.oid)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[])
        """,
        (list(oids),),
    ).fetchone()
    return bytes(row[0] or b"") if row else b""


def _columns(connection: Connection, oids: Sequence[int]) -> dict[int, tuple[list[int], bytes]]:
    rows = connection.execute(
        """
        SELECT a.attrelid, array_agg(DISTINCT a.atttypid) FILTER (WHERE NOT a.attisdropped),
               string_agg(concat_ws(E'\\x01', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.attgenerated,
                          a.attcollation, coalesce(a.attmissingval::text, '')), E'\\x02' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attnum > 0 AND a.attrelid = ANY(%s::oid[]) GROUP BY a.attrelid
        """,
        (list(oids),),
    )
    return {oid: (used or [], definition) for oid, used, definition in rows}


@dataclass(frozen=True, slots=True)
class _Type:
    definition: bytes
    versions: bytes
    parts: tuple[int, ...]
    name: str
    is_proven: bool


# Types whose output is a function of the stored bytes alone, under the settings of a capture. Not among them: reg*
# and aclitem, which print names that can change, and whatever nobody has looked at.
_PROVEN_BUILT_IN = frozenset(
    {
        "bit", "bool", "box", "bpchar", "bytea", "char", "cid", "cidr", "circle", "date", "float4", "float8", "inet", "int2",
        "int2vector", "int4", "int8", "interval", "json", "jsonb", "jsonpath", "line", "lseg", "macaddr", "macaddr8", "money",
        "name", "numeric", "oid", "oidvector", "path", "pg_lsn", "point", "polygon", "text", "tid", "time", "timestamp",
        "timestamptz", "timetz", "tsquery", "tsvector", "uuid", "varbit", "varchar", "xid", "xid8", "xml",
    }
)  # fmt: skip
# (extension, type); a change of the extension's version ends reuse in any case.
_PROVEN_IN_EXTENSIONS = frozenset(
    {
        ("hstore", "hstore"), ("citext", "citext"), ("ltree", "ltree"), ("ltree", "lquery"), ("ltree", "ltxtquery"),
        ("cube", "cube"), ("seg", "seg"), ("vector", "vector"), ("vector", "halfvec"), ("vector", "sparsevec"),
    }
)  # fmt: skip
_FIRST_USER_OID = 16384  # FirstNormalObjectId


def _is_proven(oid: int, kind: str, name: str, extension: str | None, *, is_array: bool) -> bool:
    """Is a type's output known to depend on nothing but the value? Types made of others answer for themselves only."""
    if kind in "edcrm":  # enum, domain, composite, range, multirange: labels and parts are in the shape
        return True
    if kind != "b":
        return False
    if is_array:  # its elements are looked at by themselves
        return True
    if oid < _FIRST_USER_OID:
        return name in _PROVEN_BUILT_IN
    return (extension, name) in _PROVEN_IN_EXTENSIONS


def _types(connection: Connection, oids: Iterable[int]) -> dict[int, _Type]:
    multirange = "OR r.rngmultitypid = t.oid" if connection.info.server_version >= 140000 else ""
    rows = connection.execute(
        f"""
        WITH RECURSIVE used(oid) AS (
            SELECT unnest(%s::oid[])
            UNION
            SELECT part.oid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
                SELECT t.typelem AS oid WHERE t.typelem <> 0
                UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
                UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                    WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid {multirange}
            ) part
        )
        SELECT t.oid,
               concat_ws(E'\\x01', t.oid, t.typname, t.typnamespace, t.typtype, t.typlen, t.typelem, t.typbasetype, t.typtypmod,
                         t.typinput::oid, t.typoutput::oid, e.labels, a.attributes, r.rngsubtype),
               concat_ws(E'\\x01', t.oid, e.versions, a.versions),
               array_remove(ARRAY[t.typelem, t.typbasetype, r.rngsubtype] || a.types, 0::oid),
               t.typtype::text, t.typoutput = 'pg_catalog.array_out'::regproc, t.typname::text, x.extname::text
        FROM used JOIN pg_catalog.pg_type t USING (oid)
        LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid {multirange}
        LEFT JOIN LATERAL (
            SELECT string_agg(e.oid || ':' || e.enumlabel, E'\\x02' ORDER BY e.enumsortorder) AS labels,
                   string_agg(e.xmin::text, ',' ORDER BY e.oid) AS versions
            FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid AND t.typtype = 'e'
        ) e ON true
        LEFT JOIN LATERAL (
            SELECT string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped), E'\\x02' ORDER BY a.attnum)
                       AS attributes,
                   string_agg(a.xmin::text, ',' ORDER BY a.attnum) AS versions,
                   array_agg(a.atttypid) FILTER (WHERE NOT a.attisdropped) AS types
            FROM pg_catalog.pg_attribute a WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0
        ) a ON true
        LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
        LEFT JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
        """,
        (list(oids),),
    )
    return {
        oid: _Type(
            definition,
            versions,
            tuple(part for part in parts if part),
            text(name),
            _is_proven(
                oid,
                text(kind),
                text(name),
                text(extension) if extension is not None else None,
                is_array=is_array,
            ),
        )
        for oid, definition, versions, parts, kind, is_array, name, extension in rows
    }


def _reachable(start: Iterable[int], types: dict[int, _Type]) -> set[int]:
    found: set[int] = set()
    todo = list(start)
    while todo:
        oid = todo.pop()
        if oid not in found and oid in types:
            found.add(oid)
            todo.extend(types[oid].parts)
    return found
