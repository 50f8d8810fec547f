"""The archive's table of contents, by pg_dump itself.

``pg_dump -Fc`` writes header and table of contents before the first byte of data. We read exactly that
and end the program: the catalog is its business, the rows are ours.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ArchiveError, PgstowError, ProcessFailed, SourceMoved
from pgstow.core.process import Process
from pgstow.postgres.archive import Toc, read_custom_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.programs import connected, refuses_settings
from pgstow.postgres.tools import ClientTools

__all__ = ["Contents", "read_contents"]

_END_TIMEOUT_S = 10.0
# What pg_dump says, in the C locale, when a lock, a standby's recovery or somebody's DDL came in its way.
_MOVED = ("lock timeout", "conflict with recovery", "cache lookup failed", "could not open relation")


@dataclass(frozen=True, slots=True)
class Contents:
    toc: Toc  # as a directory-format archive
    warnings: tuple[str, ...]


def read_contents(
    tools: ClientTools,
    conninfo: ConnInfo,
    *,
    snapshot: str,
    selection: Selection,
    relations: Sequence[bytes] = (),
    lock_timeout_s: float,
    settings: Mapping[str, str],
    covering: Callable[[Process], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Contents:
    """Return what pg_dump would put into a directory-format archive under the exported snapshot.

    With ``relations`` these tables and sequences alone, with what hangs on them. They are qualified and quoted as the
    server does it: to pg_dump that is a pattern which only this one name matches.

    Its session runs with ``settings``, unless a pooler refuses them; it runs inside ``covering()``, which may end it.
    Raises SourceMoved when something came in pg_dump's way that may be gone next time, ProcessFailed with its message
    otherwise.
    """
    command: list[str | Path] = [
        tools.pg_dump,
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={max(1, round(lock_timeout_s * 1000))}",
        *(f"--table={os.fsdecode(name)}" for name in relations),
        *(f"--schema={pattern}" for pattern in selection.schemas),
        *(f"--exclude-schema={pattern}" for pattern in selection.exclude_schemas),
        *(f"--exclude-table={pattern}" for pattern in selection.exclude_tables),
        *(f"--exclude-table-data={pattern}" for pattern in selection.exclude_table_data),
    ]
    try:
        return _run(command, conninfo, settings, covering)
    except ProcessFailed as exc:
        if not refuses_settings(exc):
            raise
        return _run(command, conninfo, {}, covering)


def _run(
    command: Sequence[str | Path],
    conninfo: ConnInfo,
    settings: Mapping[str, str],
    covering: Callable[[Process], AbstractContextManager[object]],
) -> Contents:
    with connected(command, conninfo, settings=settings, env={"PGTZ": "UTC"}) as process, covering(process):
        try:
            toc = read_custom_toc(process.stdout)
        except ArchiveError as exc:
            failure = _why_it_ended(process)
            if failure is None:
                raise
            raise failure from exc
        warnings = tuple(line for line in process.stderr_tail().splitlines() if "warning:" in line)
    return Contents(toc.as_directory(), warnings)


def _why_it_ended(process: Process) -> PgstowError | None:
    """Return why the archive ended early; None if pg_dump is content with it, or goes on writing it."""
    try:
        status = process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    if status == 0:
        return None
    failure = process.failure(status)
    if any(sign in process.stderr_tail() for sign in _MOVED):
        return SourceMoved(f"pg_dump could not read the catalog: {failure}")
    return failure
