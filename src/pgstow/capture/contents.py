"""The archive's table of contents, by pg_dump itself.

``pg_dump -Fc`` writes header and table of contents before the first byte of data. We read exactly that
and end the program: the catalog is its business, the rows are ours.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pgstow.catalog.manifest import Selection
from pgstow.core.errors import ArchiveError, SourceMoved
from pgstow.core.process import running
from pgstow.postgres.archive import Toc, read_custom_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import APPLICATION_NAME
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
    tools: ClientTools, conninfo: ConnInfo, *, snapshot: str, selection: Selection, lock_timeout_s: float
) -> Contents:
    """Return what pg_dump would put into a directory-format archive under the exported snapshot.

    Raises SourceMoved when something came in pg_dump's way that may be gone next time, ProcessFailed with its
    message otherwise.
    """
    command: list[str | Path] = [
        tools.pg_dump,
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={max(1, round(lock_timeout_s * 1000))}",
        *(f"--schema={pattern}" for pattern in selection.schemas),
        *(f"--exclude-schema={pattern}" for pattern in selection.exclude_schemas),
        *(f"--exclude-table={pattern}" for pattern in selection.exclude_tables),
        *(f"--exclude-table-data={pattern}" for pattern in selection.exclude_table_data),
    ]
    extra = {"PGTZ": "UTC", "PGAPPNAME": f"{APPLICATION_NAME} pg_dump", "LC_ALL": "C"}
    with conninfo.tool_env(**extra) as env, running(command, env=env) as process:
        try:
            toc = read_custom_toc(process.stdout)
        except ArchiveError as exc:
            try:
                status = process.wait(_END_TIMEOUT_S)  # as a rule its stdout ended early
            except subprocess.TimeoutExpired:  # it goes on writing what we cannot read
                raise exc from None
            if status == 0:
                raise
            failure = process.failure(status)
            if any(sign in process.stderr_tail() for sign in _MOVED):
                raise SourceMoved(f"pg_dump could not read the catalog: {failure}") from exc
            raise failure from exc
        warnings = tuple(line for line in process.stderr_tail().splitlines() if "warning:" in line)
    return Contents(toc.as_directory(), warnings)
