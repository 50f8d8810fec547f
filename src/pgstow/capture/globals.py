"""Roles, memberships, settings and tablespaces: what belongs to the cluster, by pg_dumpall."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pgstow.catalog.manifest import GlobalsRecord
from pgstow.core.errors import ProcessFailed
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.programs import connected, no_timeouts, refuses_settings
from pgstow.postgres.session import Connection
from pgstow.postgres.tools import ClientTools

__all__ = ["CapturedGlobals", "capture_globals"]

# What libpq says, in the C locale, of a connection that was cut or could not be made.
_LOST = ("server closed the connection", "terminating connection", "connection to server")


@dataclass(frozen=True, slots=True)
class CapturedGlobals:
    sql: bytes | None  # globals.sql; None when nothing could be captured
    record: GlobalsRecord
    refused: tuple[str, ...] = ()  # what was wanted and could not be had


def capture_globals(
    tools: ClientTools,
    conninfo: ConnInfo,
    connection: Connection,
    *,
    database: str,
    with_passwords: bool,
    owners: Collection[bytes] = (),
) -> CapturedGlobals:
    """Return the cluster's globals as far as this role may see them, and what is missing.

    Password hashes are left out unless asked for; only a role that may read pg_authid gets them. A failure
    is recorded, not raised: the data of the database does not depend on it. ``owners`` are the roles that the archive, which
    is older, names as such: one that is gone is missing.
    """
    roles = tuple(catalogs.text(name) for name in catalogs.role_names(connection))
    pg_dumpall = _Dumpall(tools, conninfo, database, no_timeouts(connection.info.server_version))
    captured = _captured(pg_dumpall, roles, with_passwords=with_passwords)
    named = {catalogs.text(name) for name in owners if not name.startswith(b"pg_")}
    gone = [
        f"role {name}: dropped or renamed while the backup was made"
        for name in sorted(named.difference(roles))
    ]
    record = captured.record.model_copy(update={"missing": (*captured.record.missing, *gone)})
    return replace(captured, record=record, refused=(*captured.refused, *gone))


def _captured(pg_dumpall: _Dumpall, roles: tuple[str, ...], *, with_passwords: bool) -> CapturedGlobals:
    refused: list[str] = []
    text: bytes | None = None
    if with_passwords:
        try:
            text = pg_dumpall("--globals-only")
            return CapturedGlobals(text, GlobalsRecord(is_captured=True, has_passwords=True, roles=roles))
        except ProcessFailed as exc:
            refused.append(f"role passwords: {_reason(exc)}")
    try:
        text = pg_dumpall("--globals-only", "--no-role-passwords")
    except ProcessFailed as exc:
        refused.append(f"roles, memberships, settings and tablespaces: {_reason(exc)}")
    missing = refused if with_passwords else ["role passwords: not asked for (--role-passwords)", *refused]
    record = GlobalsRecord(is_captured=text is not None, roles=roles, missing=tuple(missing))
    return CapturedGlobals(text, record, tuple(refused))


@dataclass(frozen=True, slots=True)
class _Dumpall:
    """pg_dumpall, as it is to be run against one server."""

    tools: ClientTools
    conninfo: ConnInfo
    database: str
    settings: Mapping[str, str]

    def __call__(self, *options: str) -> bytes:
        """Return what it prints, asking a second time when a pooler refused its settings or the connection was lost."""
        try:
            return self._run(options, self.settings)
        except ProcessFailed as exc:
            if refuses_settings(exc):
                return self._run(options, {})
            if not any(sign in str(exc.facts.get("stderr_tail", "")) for sign in _LOST):
                raise
            return self._run(options, self.settings)

    def _run(self, options: tuple[str, ...], settings: Mapping[str, str]) -> bytes:
        command: list[str | Path] = [
            self.tools.pg_dumpall,
            "--no-password",
            f"--database={self.database}",
            *options,
        ]
        with connected(command, self.conninfo, settings=settings, env={"PGTZ": "UTC"}) as process:
            output = process.stdout.read()
            process.check()
            return output


def _reason(exc: ProcessFailed) -> str:
    lines = [line for line in str(exc.facts.get("stderr_tail", "")).splitlines() if "error:" in line]
    return lines[0].partition("error:")[2].strip() if lines else exc.message
