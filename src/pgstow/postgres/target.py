"""Named questions to a database that is about to be restored into, and what makes and drops one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgstow.core.errors import PostgresError
from pgstow.postgres.programs import sessions_begin_with
from pgstow.postgres.raw import RawSession, array
from pgstow.postgres.session import translated

__all__ = [
    "CreationRights",
    "DatabaseShape",
    "ExtensionFacts",
    "MemoryFacts",
    "ObjectKey",
    "RoleFacts",
    "TargetFacts",
    "available_extensions",
    "create_database",
    "creation_rights",
    "database_bytes",
    "database_oid",
    "drop_database",
    "existing_large_objects",
    "existing_objects",
    "installed_extensions",
    "make_durable",
    "memory_facts",
    "other_sessions",
    "preloaded_libraries",
    "qualified",
    "quoted",
    "reset_setting",
    "restoring_sessions",
    "roles",
    "subscriptions",
    "tablespaces",
    "target_facts",
    "user_objects",
    "write_large_object",
]

ObjectKey = tuple[bytes, bytes, bytes]  # class, schema or b"", name as an archive's tag spells it


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """The server and database at the other end of a session."""

    database: bytes
    database_oid: int
    system_identifier: str | None
    version: str
    version_num: int
    user: bytes
    is_superuser: bool
    is_standby: bool


def target_facts(session: RawSession) -> TargetFacts:
    """Return who and where the session is."""
    row = session.rows(
        b"""
        SELECT d.datname, d.oid, pg_catalog.current_setting('server_version'),
               pg_catalog.current_setting('server_version_num'), current_user, r.rolsuper, pg_catalog.pg_is_in_recovery()
        FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
        WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user
        """,
        doing="asking the target who it is",
    )[0]
    return TargetFacts(
        database=row[0] or b"",
        database_oid=int(row[1] or 0),
        system_identifier=_system_identifier(session),
        version=session.decode(row[2]),
        version_num=int(row[3] or 0),
        user=row[4] or b"",
        is_superuser=row[5] == b"t",
        is_standby=row[6] == b"t",
    )


def _system_identifier(session: RawSession) -> str | None:
    try:
        found = session.value(
            b"SELECT system_identifier FROM pg_catalog.pg_control_system()",
            doing="asking for the system identifier",
        )
    except PostgresError:  # managed services may forbid it; the report then says it is unknown
        return None
    return session.decode(found) if found else None


def database_oid(session: RawSession, name: bytes) -> int | None:
    """Return the OID of a database of this server, or None."""
    found = session.value(
        b"SELECT oid FROM pg_catalog.pg_database WHERE datname = $1::text",
        name,
        doing="looking for the database",
    )
    return int(found) if found else None


def database_bytes(session: RawSession) -> int:
    """Return what the session's database takes on disk."""
    found = session.value(
        b"SELECT pg_catalog.pg_database_size(pg_catalog.current_database())",
        doing="asking for the size of the database",
    )
    return int(found or 0)


def other_sessions(session: RawSession, name: bytes) -> int:
    """Return how many other sessions are connected to a database."""
    found = session.value(
        b"SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity"
        b" WHERE datname = $1::text AND pid <> pg_catalog.pg_backend_pid()",
        name,
        doing="counting the database's sessions",
    )
    return int(found or 0)


def restoring_sessions(session: RawSession, name: bytes) -> int:
    """Return how many sessions of a pg_restore that pgstow started are connected to a database.

    The program outlives a pgstow that was killed, until it has done all that it was told.
    """
    found = session.value(
        b"SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity"
        b" WHERE datname = $1::text AND pg_catalog.starts_with(application_name, $2::text)",
        name,
        sessions_begin_with("pg_restore").encode(),
        doing="looking for restores under way",
    )
    return int(found or 0)


# What people make has an OID from 16384 on (FirstNormalObjectId), but that of a large object can be chosen.
_USER_OBJECTS = b"""
    SELECT o.classid, o.objid FROM (
        SELECT 'pg_class'::regclass AS classid, c.oid AS objid FROM pg_class c
            WHERE c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p') AND c.relnamespace NOT IN (SELECT oid FROM hidden)
        UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
            WHERE (t.typrelid = 0 OR c.relkind = 'c') AND t.typtype IN ('b', 'c', 'd', 'e', 'r') AND t.typcategory <> 'A'
                  AND t.typnamespace NOT IN (SELECT oid FROM hidden)
        UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace
            WHERE nspname <> 'public' AND oid NOT IN (SELECT oid FROM hidden)
        UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace NOT IN (SELECT oid FROM hidden)
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator
        UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
        UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily
        UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
        UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion
        UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
        UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am
        UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language
        UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
        UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
        UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
        UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
        UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication
        UNION ALL SELECT 'pg_largeobject'::regclass, oid FROM pg_largeobject_metadata
    ) o
    WHERE (o.objid >= 16384 OR o.classid = 'pg_largeobject'::regclass) AND NOT EXISTS (
        SELECT 1 FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype IN ('e', 'i'))
"""


def user_objects(session: RawSession, examples: int = 3) -> tuple[int, list[str]]:
    """Return how many objects people made in the database (extensions and their members aside), and some of them."""
    rows = session.rows(
        b"WITH hidden AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast|temp)'), o AS ("
        + _USER_OBJECTS
        + b""")
        SELECT pg_catalog.count(*) OVER (), pg_catalog.pg_describe_object(classid, objid, 0)
        FROM o ORDER BY classid = 'pg_class'::regclass DESC, objid LIMIT $1::int""",
        b"%d" % examples,
        doing="looking whether the target is empty",
    )
    return (int(rows[0][0] or 0) if rows else 0), [session.decode(row[1]) for row in rows]


def existing_objects(session: RawSession) -> set[ObjectKey]:
    """Return what the database holds, by class, schema and name as the archive's tags spell them."""
    rows = session.rows(
        b"""
        SELECT 'schema', '', nspname::text FROM pg_namespace
        UNION ALL SELECT 'extension', '', extname FROM pg_extension
        UNION ALL SELECT 'language', '', lanname FROM pg_language
        UNION ALL SELECT 'access method', '', amname FROM pg_am
        UNION ALL SELECT 'foreign data wrapper', '', fdwname FROM pg_foreign_data_wrapper
        UNION ALL SELECT 'server', '', srvname FROM pg_foreign_server
        UNION ALL SELECT 'publication', '', pubname FROM pg_publication
        UNION ALL SELECT 'cast', '', 'CAST (' || format_type(castsource, NULL) || ' AS ' || format_type(casttarget, NULL)
            || ')' FROM pg_cast
        UNION ALL SELECT k.kind, n.nspname, k.name FROM pg_namespace n JOIN (
            SELECT 'relation' AS kind, relnamespace AS namespace, relname::text AS name FROM pg_class
                WHERE relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
            UNION ALL SELECT 'type', typnamespace, typname FROM pg_type
            UNION ALL SELECT 'routine', pronamespace, proname || '(' || CASE
                WHEN prokind = 'a' AND pronargs = 0 THEN '*'
                ELSE array_to_string(ARRAY(SELECT format_type(a.type, NULL) FROM unnest(proargtypes::oid[])
                     WITH ORDINALITY AS a(type, place) ORDER BY a.place), ', ') END || ')' FROM pg_proc
            UNION ALL SELECT 'operator', oprnamespace, oprname FROM pg_operator
            UNION ALL SELECT 'operator class', opcnamespace, opcname FROM pg_opclass
            UNION ALL SELECT 'operator family', opfnamespace, opfname FROM pg_opfamily
            UNION ALL SELECT 'collation', collnamespace, collname FROM pg_collation
            UNION ALL SELECT 'conversion', connamespace, conname FROM pg_conversion
            UNION ALL SELECT 'text search configuration', cfgnamespace, cfgname FROM pg_ts_config
            UNION ALL SELECT 'text search dictionary', dictnamespace, dictname FROM pg_ts_dict
            UNION ALL SELECT 'text search parser', prsnamespace, prsname FROM pg_ts_parser
            UNION ALL SELECT 'text search template', tmplnamespace, tmplname FROM pg_ts_template
        ) k ON k.namespace = n.oid WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        """,
        doing="listing what the target holds",
    )
    return {(row[0] or b"", row[1] or b"", row[2] or b"") for row in rows}


def existing_large_objects(session: RawSession, oids: Iterable[int]) -> list[int]:
    """Return which of the given OIDs are large objects of the database."""
    rows = session.rows(
        b"SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY($1::oid[]) ORDER BY 1",
        array(b"%d" % oid for oid in oids),
        doing="looking for large objects",
    )
    return [int(row[0] or 0) for row in rows]


def write_large_object(session: RawSession, oid: int, offset: int, piece: bytes) -> None:
    """Write ``piece`` at ``offset`` of an existing large object."""
    with translated(f"writing large object {oid}"):
        session.connection.execute("SELECT pg_catalog.lo_put(%s::oid, %s::int8, %b)", (oid, offset, piece))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """A role of the target server. ``may_own``: the session's role may make it the owner of its objects."""

    name: bytes
    may_own: bool


def roles(session: RawSession) -> dict[bytes, RoleFacts]:
    """Return the server's roles by name."""
    # 16 and newer ask for the SET option of the membership, older ones for membership alone
    right = b"SET" if session.connection.info.server_version >= 160000 else b"MEMBER"
    rows = session.rows(
        b"SELECT rolname, pg_catalog.pg_has_role(oid, $1::text) OR rolname = 'pg_database_owner' FROM pg_catalog.pg_roles",
        right,
        doing="listing roles",
    )
    return {row[0] or b"": RoleFacts(name=row[0] or b"", may_own=row[1] == b"t") for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationRights:
    """What the session's role may make. ``schemas``: those of its database, and whether it may make something there."""

    may_create_databases: bool
    may_create_schemas: bool
    schemas: dict[bytes, bool]


def creation_rights(session: RawSession) -> CreationRights:
    """Return what the session's role may make on the server, and in its database."""
    rows = session.rows(
        b"""
        SELECT r.rolsuper OR r.rolcreatedb, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
               n.nspname, pg_catalog.has_schema_privilege(n.oid, 'CREATE')
        FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n WHERE r.rolname = current_user
        """,
        doing="asking what the role may create",
    )
    return CreationRights(
        may_create_databases=any(row[0] == b"t" for row in rows),
        may_create_schemas=any(row[1] == b"t" for row in rows),
        schemas={row[2] or b"": row[3] == b"t" for row in rows},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionFacts:
    """An extension of the target; ``may_comment``: the session's role may change it."""

    name: bytes
    version: str
    may_comment: bool


def installed_extensions(session: RawSession) -> dict[bytes, ExtensionFacts]:
    """Return the extensions of the database by name."""
    rows = session.rows(
        b"SELECT extname, extversion, pg_catalog.pg_has_role(extowner, 'MEMBER') FROM pg_catalog.pg_extension",
        doing="listing extensions",
    )
    return {
        row[0] or b"": ExtensionFacts(
            name=row[0] or b"", version=session.decode(row[1]), may_comment=row[2] == b"t"
        )
        for row in rows
    }


def available_extensions(session: RawSession) -> dict[bytes, str]:
    """Return the extensions that the server could install, with the version it would choose."""
    rows = session.rows(
        b"SELECT name, default_version FROM pg_catalog.pg_available_extensions",
        doing="listing available extensions",
    )
    return {row[0] or b"": session.decode(row[1]) for row in rows}


def tablespaces(session: RawSession) -> set[bytes]:
    """Return the server's tablespaces."""
    rows = session.rows(b"SELECT spcname FROM pg_catalog.pg_tablespace", doing="listing tablespaces")
    return {row[0] or b"" for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Memory settings of the target, in bytes."""

    shared_buffers: int
    maintenance_work_mem: int


def memory_facts(session: RawSession) -> MemoryFacts:
    """Return the memory settings that hint at the machine's size."""
    rows = session.rows(
        b"SELECT name, pg_catalog.pg_size_bytes(pg_catalog.current_setting(name)) FROM pg_catalog.pg_settings"
        b" WHERE name IN ('shared_buffers', 'maintenance_work_mem')",
        doing="reading memory settings",
    )
    found = {row[0]: int(row[1] or 0) for row in rows}
    return MemoryFacts(
        shared_buffers=found[b"shared_buffers"], maintenance_work_mem=found[b"maintenance_work_mem"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseShape:
    """What a database is created with; None leaves the choice to the server."""

    encoding: str
    collate: str | None = None
    ctype: str | None = None
    provider: str | None = None  # libc | icu | builtin
    locale: str | None = None  # of icu and builtin
    owner: bytes | None = None
    tablespace: bytes | None = None
    connection_limit: int | None = None


def create_database(session: RawSession, name: bytes, shape: DatabaseShape) -> None:
    """Create an empty database from template0. Raises PostgresError."""
    parts = [("ENCODING", b"%L", shape.encoding.encode())]
    if shape.provider is not None and session.connection.info.server_version >= 150000:
        parts.append(("LOCALE_PROVIDER", b"%I", shape.provider.encode()))
    for word, value in (("LC_COLLATE", shape.collate), ("LC_CTYPE", shape.ctype)):
        if value is not None:
            parts.append((word, b"%L", value.encode()))
    if shape.locale is not None:
        word = "ICU_LOCALE" if shape.provider == "icu" else "BUILTIN_LOCALE"
        parts.append((word, b"%L", shape.locale.encode()))
    for word, given in (("OWNER", shape.owner), ("TABLESPACE", shape.tablespace)):
        if given is not None:
            parts.append((word, b"%I", given))
    pattern = b"CREATE DATABASE %I TEMPLATE template0"
    pattern += b"".join(b" %s = %s" % (word.encode(), place) for word, place, _ in parts)
    if shape.connection_limit is not None:
        pattern += b" CONNECTION LIMIT = %d" % shape.connection_limit
    _execute_formatted(
        session,
        pattern,
        name,
        *(value for *_, value in parts),
        doing=f"creating database {session.decode(name)}",
    )


def drop_database(session: RawSession, name: bytes, *, force: bool) -> None:
    """Drop a database; ``force`` ends its sessions first. Raises PostgresError."""
    pattern = b"DROP DATABASE %I WITH (FORCE)" if force else b"DROP DATABASE %I"
    _execute_formatted(session, pattern, name, doing=f"dropping database {session.decode(name)}")


def subscriptions(
    session: RawSession, database: bytes | None, *, with_slot_alone: bool = False
) -> list[bytes]:
    """Return the subscriptions of a database, by default of the session's own: with one it cannot be dropped.

    ``with_slot_alone``: those that know a slot of their publisher, which cannot be dropped among others in a transaction.
    """
    rows = session.rows(
        b"""
        SELECT s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
        WHERE d.datname = coalesce($1::text, pg_catalog.current_database()) AND (s.subslotname IS NOT NULL OR NOT $2::bool)
        ORDER BY s.subname
        """,
        database,
        b"t" if with_slot_alone else b"f",
        doing="looking for subscriptions",
    )
    return [name or b"" for (name,) in rows]


def preloaded_libraries(session: RawSession, name: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return role (empty: everybody), setting and value of libraries that sessions of a database load as they begin."""
    rows = session.rows(
        b"""
        SELECT coalesce(r.rolname, ''), split_part(one, '=', 1), pg_catalog.substr(one, pg_catalog.strpos(one, '=') + 1)
        FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS one
        WHERE d.datname = $1::text AND (s.setrole = 0 OR r.rolname = current_user)
              AND split_part(one, '=', 1) IN ('session_preload_libraries', 'local_preload_libraries')
        """,
        name,
        doing="looking which libraries the database's sessions load",
    )
    return [(role or b"", setting or b"", value or b"") for role, setting, value in rows]


def reset_setting(session: RawSession, name: bytes, role: bytes, setting: bytes) -> None:
    """Take back a setting of a database, or of a role in it. Raises PostgresError."""
    if role:
        _execute_formatted(
            session,
            b"ALTER ROLE %I IN DATABASE %I RESET %I",
            role,
            name,
            setting,
            doing="taking back a setting",
        )
    else:
        _execute_formatted(
            session, b"ALTER DATABASE %I RESET %I", name, setting, doing="taking back a setting"
        )


def _execute_formatted(session: RawSession, pattern: bytes, *values: bytes, doing: str) -> None:
    """Run a statement whose names and literals the server itself has quoted."""
    statement = session.value(
        b"SELECT pg_catalog.format($1::text, VARIADIC $2::text[])", pattern, array(values), doing=doing
    )
    session.execute(statement or b"", doing=doing)


def quoted(session: RawSession, name: bytes) -> bytes:
    """Return a name quoted as an identifier where it needs to be."""
    return session.value(b"SELECT pg_catalog.quote_ident($1::text)", name, doing="quoting a name") or b""


def qualified(session: RawSession, schema: bytes, name: bytes) -> bytes:
    """Return the quoted name of something in a schema."""
    return quoted(session, schema) + b"." + quoted(session, name)


def make_durable(session: RawSession) -> None:
    """Return once everything committed before, by any session, is on the server's disk."""
    session.execute(
        b"BEGIN; SET LOCAL synchronous_commit = on;"
        b" SELECT pg_catalog.pg_logical_emit_message(true, 'pgstow', 'restored'); COMMIT",
        doing="making the restored data durable",
    )
