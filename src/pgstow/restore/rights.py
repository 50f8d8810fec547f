"""Whether the role of a restore may make what the archive holds, looked at before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable

from pgstow.core.errors import TargetRefused
from pgstow.postgres import target as target_sql
from pgstow.postgres.archive import Section, TocEntry
from pgstow.postgres.raw import RawSession
from pgstow.restore.naming import described, text
from pgstow.restore.request import RestoreOptions

__all__ = ["refuse_without_rights"]


def refuse_without_rights(
    session: RawSession,
    wanted: Iterable[TocEntry],
    facts: target_sql.TargetFacts,
    options: RestoreOptions,
    encoding: str,
) -> None:
    """Raise TargetRefused where the server would refuse the first thing that is made, in the middle of everything."""
    if facts.is_superuser or options.data_only:
        return
    rights = target_sql.creation_rights(session)
    user, database = text(facts.user, encoding), session.decode(facts.database)
    if options.create:
        if not rights.may_create_databases:
            raise TargetRefused(
                f"{user} may not create databases",
                hint=f"nothing was touched; connect as a role with CREATEDB, or restore without --create into an empty database"
                f" that {user} owns",
            )
        return
    made: set[bytes] = set()
    for entry in wanted:
        if entry.desc == b"SCHEMA":
            made.add(entry.tag)
            if entry.tag not in rights.schemas and not rights.may_create_schemas:
                raise TargetRefused(
                    f"{user} may not create {described(entry, encoding)} in database {database}",
                    hint=f"nothing was touched; connect as the owner of the database, or GRANT CREATE ON DATABASE {database} TO {user}",
                )
        schema = entry.namespace or b""
        is_made_there = entry.section is Section.PRE_DATA and schema not in made
        if is_made_there and not rights.schemas.get(schema, True):
            raise TargetRefused(
                f"{user} may not create anything in schema {text(schema, encoding)}, and {described(entry, encoding)} belongs there",
                hint=f"nothing was touched; connect as the owner of the database or schema, or GRANT CREATE ON SCHEMA"
                f" {text(schema, encoding)} TO {user} (public is open to all only up to release 14)",
            )
