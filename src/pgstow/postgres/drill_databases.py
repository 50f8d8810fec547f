"""Named questions and statements about databases that drills make on a server that somebody else runs."""

from __future__ import annotations

from collections.abc import Callable

from pgstow.postgres.raw import RawSession
from pgstow.postgres.target import database_oid, drop_database, quoted, subscriptions

__all__ = [
    "UNMARKED_LIMIT",
    "close_to_others",
    "drill_databases",
    "drop_if_abandoned",
    "drop_if_there",
    "drop_subscriptions",
    "hold",
    "is_closed_to_others",
    "lift_limit",
    "mark",
]

# The lock that says that a drill is using a database; both halves of an advisory lock's key are ours to choose.
_LOCK_CLASS = b"1885824116"  # "pgdt" as a number
# What a database is created with before its comment can say whose it is: nobody else has this many.
UNMARKED_LIMIT = 1885824116
_COMMENT = "made by a pgstow drill, and dropped after it: "


def hold(session: RawSession, name: bytes) -> None:
    """Say, for as long as the session lives, that a drill uses the database of that name."""
    session.value(
        b"SELECT pg_catalog.pg_advisory_lock(%b, pg_catalog.hashtext($1::text))" % _LOCK_CLASS,
        name,
        doing="marking the drill's database as used",
    )


def close_to_others(session: RawSession, name: bytes) -> None:
    """Let nobody connect but its owner and superusers."""
    session.execute(
        b"REVOKE ALL ON DATABASE %b FROM PUBLIC" % quoted(session, name),
        doing="closing the drill's database to others",
    )


def is_closed_to_others(session: RawSession, name: bytes) -> bool:
    """Whether no role but its owner was given a right to connect."""
    found = session.value(
        b"""
        SELECT NOT EXISTS (
            SELECT 1 FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
            WHERE a.privilege_type = 'CONNECT' AND a.grantee <> d.datdba)
        FROM pg_catalog.pg_database d WHERE d.datname = $1::text
        """,
        name,
        doing="asking who may connect to the drill's database",
    )
    return found == b"t"


def mark(session: RawSession, name: bytes, drill_id: str) -> None:
    """Write into its comment that a drill made it."""
    session.execute(
        b"COMMENT ON DATABASE %b IS '%b'" % (quoted(session, name), f"{_COMMENT}{drill_id}".encode()),
        doing="marking the drill's database",
    )


def lift_limit(session: RawSession, name: bytes) -> None:
    """Take away what told it apart before it was marked: the source's own limit comes in its place."""
    session.execute(
        b"ALTER DATABASE %b CONNECTION LIMIT -1" % quoted(session, name),
        doing="letting the drill's database be used",
    )


def drill_databases(session: RawSession) -> list[bytes]:
    """Return the databases that drills of this role made, and those whose drill was killed before it could mark one."""
    rows = session.rows(
        b"""
        SELECT d.datname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
        WHERE r.rolname = current_user
              AND (d.datconnlimit = $2::int
                   OR pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1::text))
        ORDER BY d.datname
        """,
        _COMMENT.encode(),
        b"%d" % UNMARKED_LIMIT,
        doing="looking for databases of earlier drills",
    )
    return [row[0] or b"" for row in rows]


def drop_subscriptions(session: RawSession) -> None:
    """Drop the subscriptions of the session's own database, and reach nobody by that: their publishers are not asked to forget them."""
    for name in subscriptions(session, None):
        subscription = quoted(session, name)
        session.execute(
            b"ALTER SUBSCRIPTION %b DISABLE; ALTER SUBSCRIPTION %b SET (slot_name = NONE); DROP SUBSCRIPTION %b"
            % (subscription, subscription, subscription),
            doing=f"dropping subscription {session.decode(name)}",
        )


def drop_if_abandoned(session: RawSession, name: bytes, *, prepare: Callable[[], object]) -> bool:
    """Drop a drill's database unless a drill holds it or anybody is connected to it; return whether that was done.

    ``prepare`` is called when it is sure to be dropped.
    """
    got = session.value(
        b"SELECT pg_catalog.pg_try_advisory_lock(%b, pg_catalog.hashtext($1::text))" % _LOCK_CLASS,
        name,
        doing="looking whether a drill uses the database",
    )
    if got != b"t":
        return False
    try:
        used = session.value(
            b"SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE datname = $1::text",
            name,
            doing="looking whether anybody uses the database",
        )
        if used != b"0":
            return False
        prepare()
        drop_database(session, name, force=False)
        return True
    finally:
        session.value(
            b"SELECT pg_catalog.pg_advisory_unlock(%b, pg_catalog.hashtext($1::text))" % _LOCK_CLASS,
            name,
            doing="releasing the database",
        )


def drop_if_there(session: RawSession, name: bytes) -> None:
    """Drop a database, ending its sessions; one that is not there is fine."""
    if database_oid(session, name) is not None:
        drop_database(session, name, force=True)
