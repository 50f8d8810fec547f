"""Roles, memberships, settings and tablespaces: what belongs to the cluster, by pg_dumpall."""

from __future__ import annotations

from dataclasses import dataclass

from pgstow.catalog.manifest import GlobalsRecord
from pgstow.core.errors import ProcessFailed
from pgstow.core.process import run
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import APPLICATION_NAME, Connection
from pgstow.postgres.tools import ClientTools

__all__ = ["CapturedGlobals", "capture_globals"]


@dataclass(frozen=True, slots=True)
class CapturedGlobals:
    sql: bytes | None  # globals.sql; None when nothing could be captured
    record: GlobalsRecord
    refused: tuple[str, ...] = ()  # what was wanted and could not be had


def capture_globals(
    tools: ClientTools, conninfo: ConnInfo, connection: Connection, *, database: str, with_passwords: bool
) -> CapturedGlobals:
    """Return the cluster's globals as far as this role may see them, and what is missing.

    Password hashes are left out unless asked for; only a role that may read pg_authid gets them. A failure
    is recorded, not raised: the data of the database does not depend on it.
    """
    roles = tuple(catalogs.text(name) for name in catalogs.role_names(connection))
    refused: list[str] = []
    text: bytes | None = None
    if with_passwords:
        try:
            text = _pg_dumpall(tools, conninfo, database, "--globals-only")
            return CapturedGlobals(text, GlobalsRecord(is_captured=True, has_passwords=True, roles=roles))
        except ProcessFailed as exc:
            refused.append(f"role passwords: {_reason(exc)}")
    try:
        text = _pg_dumpall(tools, conninfo, database, "--globals-only", "--no-role-passwords")
    except ProcessFailed as exc:
        refused.append(f"roles, memberships, settings and tablespaces: {_reason(exc)}")
    missing = refused if with_passwords else ["role passwords: not asked for (--role-passwords)", *refused]
    record = GlobalsRecord(is_captured=text is not None, roles=roles, missing=tuple(missing))
    return CapturedGlobals(text, record, tuple(refused))


def _pg_dumpall(tools: ClientTools, conninfo: ConnInfo, database: str, *options: str) -> bytes:
    extra = {"PGTZ": "UTC", "PGAPPNAME": f"{APPLICATION_NAME} pg_dumpall", "LC_ALL": "C"}
    with conninfo.tool_env(**extra) as env:
        return run([tools.pg_dumpall, "--no-password", f"--database={database}", *options], env=env)


def _reason(exc: ProcessFailed) -> str:
    lines = [line for line in str(exc.facts.get("stderr_tail", "")).splitlines() if "error:" in line]
    return lines[0].partition("error:")[2].strip() if lines else exc.message
