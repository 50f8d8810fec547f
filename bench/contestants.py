"""Who takes part, and with which command lines.

All of them run as the same user on the same machine, read the same server through its Unix socket and write to
local folders. Repositories are made beforehand, unmeasured. What a command line means is the tool's own
documentation's matter; what is measured is all of it, from its start to its exit.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.bucket import Bucket
from bench.measuring import Pipeline, Steps

__all__ = [
    "Contestant",
    "Pgstow",
    "PgstowFullRead",
    "PgstowInBucket",
    "PgstowIntoEmpty",
    "Place",
    "Programs",
    "Target",
    "command_text",
    "contestants",
]

_PASSWORD: Final = "bench: nothing secret"
_JOBS: Final = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where programs are that are not simply taken from PATH."""

    postgres: Path  # bin folder of the server's own release
    restics: tuple[tuple[str, Path], ...]  # version and program, Debian's own first


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one contestant works on: its own folder, the database, and the server's side of it."""

    folder: Path
    source: str  # connection string
    data_dir: Path
    socket_dir: Path
    port: int

    @property
    def repository(self) -> Path:
        """Everything the contestant keeps is in here; an empty folder before ``prepare``."""
        return self.folder / "repository"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a restore goes: a database that is not there yet, and a folder for a physical restore."""

    conninfo: str
    dbname: str
    maintenance: str  # connection string to another database of the same server
    folder: Path


class Contestant(ABC):
    """One tool used in one way. Steps that are None are not what this tool is asked here."""

    key: str
    title: str
    restore_title = ""
    is_physical = False

    def __init__(self, programs: Programs) -> None:
        self.programs = programs

    def program(self, name: str) -> str:
        return str(self.programs.postgres / name)

    def is_installed(self) -> bool:
        return True

    def env(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - for those who need it
        """Return what is added to the environment."""
        return {"LC_ALL": "C", "PATH": f"{self.programs.postgres}{os.pathsep}{os.environ.get('PATH', '')}"}

    def prepare(self, place: Place) -> Steps:  # noqa: ARG002
        """Make an empty repository. Not measured."""
        return ()

    @abstractmethod
    def backup(self, place: Place) -> Steps:
        """Back up into an empty repository."""

    def backup_again(self, place: Place) -> Steps | None:  # noqa: ARG002
        """Back up into a repository that holds a backup of this database."""
        return None

    def restore(self, place: Place, target: Target) -> Steps | None:  # noqa: ARG002
        """Restore the newest backup, the making of an empty database included."""
        return None

    def _dump(self, place: Place, *options: str) -> tuple[str, ...]:
        return (self.program("pg_dump"), *options, "-d", place.source)

    def _pg_restore(self, target: Target, *arguments: str) -> tuple[str, ...]:
        return (self.program("pg_restore"), *arguments, "-d", target.conninfo)

    def _createdb(self, target: Target) -> Pipeline:
        return ((self.program("createdb"), f"--maintenance-db={target.maintenance}", target.dbname),)


class Script(Contestant):
    key = "script"
    title = "script (pg_dump, gzip)"
    restore_title = "gzip -dc | pg_restore"

    def backup(self, place: Place) -> Steps:
        dump = str(place.repository / "bench.dump")
        return (self._dump(place, "-Fc", "-f", dump),), (("gzip", dump),)

    def restore(self, place: Place, target: Target) -> Steps:
        unzip = ("gzip", "-dc", str(place.repository / "bench.dump.gz"))
        return self._createdb(target), (unzip, self._pg_restore(target))


class DirectoryDump(Contestant):
    key = "directory"
    title = "pg_dump -Fd -j2"

    def backup(self, place: Place) -> Steps:
        return ((self._dump(place, "-Fd", "-j", _JOBS, "-f", str(place.repository / "dump")),),)


class PlainDirectoryDump(Contestant):
    key = "plain"
    title = "pg_dump -Fd -j2 -Z0"
    restore_title = "pg_restore -Fd -j2"

    def backup(self, place: Place) -> Steps:
        return ((self._dump(place, "-Fd", "-j", _JOBS, "-Z0", "-f", str(place.repository / "dump")),),)

    def restore(self, place: Place, target: Target) -> Steps:
        folder = str(place.repository / "dump")
        return self._createdb(target), (self._pg_restore(target, "-Fd", "-j", _JOBS, folder),)


class Zstd(Contestant):
    key = "zstd"
    title = "pg_dump -Fc -Z0 | zstd"

    def is_installed(self) -> bool:
        return shutil.which("zstd") is not None

    def backup(self, place: Place) -> Steps:
        file = str(place.repository / "bench.dump.zst")
        return ((self._dump(place, "-Fc", "-Z0"), ("zstd", "-3", "-T2", "-q", "-o", file)),)


class Restic(Contestant):
    def __init__(self, programs: Programs, version: str, program: Path) -> None:
        super().__init__(programs)
        self.key = f"restic-{version}"
        self.title = f"restic {version}"
        self.restore_title = f"restic {version} | pg_restore"
        self._restic = str(program)

    def env(self, place: Place) -> Mapping[str, str]:
        own = {
            "RESTIC_REPOSITORY": str(place.repository),
            "RESTIC_PASSWORD": _PASSWORD,
            "RESTIC_CACHE_DIR": str(place.folder / "cache"),
        }
        return {**super().env(place), **own}

    def prepare(self, place: Place) -> Steps:  # noqa: ARG002
        return (((self._restic, "init", "--quiet"),),)

    def backup(self, place: Place) -> Steps:
        backup = (self._restic, "backup", "--quiet", "--stdin", "--stdin-filename", "bench.dump")
        return ((self._dump(place, "-Fc", "-Z0"), backup),)

    def backup_again(self, place: Place) -> Steps:
        return self.backup(place)

    def restore(self, place: Place, target: Target) -> Steps:  # noqa: ARG002
        dump = (self._restic, "dump", "--quiet", "latest", "/bench.dump")
        return self._createdb(target), (dump, self._pg_restore(target))


class Borg(Contestant):
    key = "borg"
    title = "borg"

    def is_installed(self) -> bool:
        return shutil.which("borg") is not None

    def env(self, place: Place) -> Mapping[str, str]:
        own = {
            "BORG_REPO": str(place.repository),
            "BORG_PASSPHRASE": _PASSWORD,
            "BORG_BASE_DIR": str(place.folder / "base"),
        }
        return {**super().env(place), **own}

    def prepare(self, place: Place) -> Steps:  # noqa: ARG002
        return ((("borg", "init", "--encryption=repokey"),),)

    def backup(self, place: Place) -> Steps:
        create = ("borg", "create", "--compression=zstd,3", "--stdin-name=bench.dump", "::{utcnow}", "-")
        return ((self._dump(place, "-Fc", "-Z0"), create),)

    def backup_again(self, place: Place) -> Steps:
        return self.backup(place)


class PgBackRest(Contestant):
    """Physical: it reads the data directory itself. Its wait for archived WAL is off, which favours it."""

    key = "pgbackrest"
    title = "pgBackRest (physical)"
    is_physical = True

    def is_installed(self) -> bool:
        return shutil.which("pgbackrest") is not None

    def env(self, place: Place) -> Mapping[str, str]:
        return {**super().env(place), "PGBACKREST_REPO1_CIPHER_PASS": _PASSWORD}

    def prepare(self, place: Place) -> Steps:
        settings = {
            "repo1-path": place.repository,
            "repo1-cipher-type": "aes-256-cbc",
            "compress-type": "zst",
            "process-max": _JOBS,
            "start-fast": "y",
            "archive-check": "n",
            "log-level-file": "off",
            "lock-path": place.folder / "lock",
        }
        stanza = {
            "pg1-path": place.data_dir,
            "pg1-socket-path": place.socket_dir,
            "pg1-port": place.port,
            "pg1-user": "postgres",
        }
        lines = ["[global]", *(f"{name}={value}" for name, value in settings.items())]
        lines += ["[bench]", *(f"{name}={value}" for name, value in stanza.items())]
        (place.folder / "pgbackrest.conf").write_text("\n".join(lines) + "\n")
        return ((self._command(place, "--no-online", "stanza-create"),),)

    def backup(self, place: Place) -> Steps:
        return ((self._command(place, "--type=full", "backup"),),)

    def backup_again(self, place: Place) -> Steps:
        return ((self._command(place, "--type=incr", "backup"),),)

    def restore(self, place: Place, target: Target) -> Steps:
        return ((self._command(place, f"--pg1-path={target.folder}", "restore"),),)

    @staticmethod
    def _command(place: Place, *arguments: str) -> tuple[str, ...]:
        return ("pgbackrest", f"--config={place.folder / 'pgbackrest.conf'}", "--stanza=bench", *arguments)


class Pgstow(Contestant):
    """Ourselves. Every pgstow command line of the bench is in this class."""

    key = "pgstow"
    title = "pgstow"
    _PGSTOW = Path(sys.executable).with_name("pgstow")

    def is_installed(self) -> bool:
        return self._PGSTOW.exists()

    def env(self, place: Place) -> Mapping[str, str]:
        own = {"PGSTOW_REPOSITORY": str(place.repository), "PGSTOW_PASSWORD": _PASSWORD}
        return {**super().env(place), **own}

    def prepare(self, place: Place) -> Steps:  # noqa: ARG002
        return (((str(self._PGSTOW), "init"),),)

    def backup(self, place: Place) -> Steps:
        return self._backup(place)

    def backup_again(self, place: Place) -> Steps:
        """Back up what changed; the full read that comes with every Nth backup is measured by itself."""
        return self._backup(place, "--full-read-every", "1000")

    def show(self) -> tuple[str, ...]:
        """Return the command that prints everything about the newest backup."""
        return (str(self._PGSTOW), "show", "latest", "--json")

    def drill(self, report: Path) -> Steps:
        """Return a whole drill of the newest backup, with its record in the file ``report``."""
        return (((str(self._PGSTOW), "drill", "latest", "--report", str(report)),),)

    def _backup(self, place: Place, *options: str) -> Steps:
        return (((str(self._PGSTOW), "backup", place.source, "--name", "bench", "--jobs", _JOBS, *options),),)

    def restore(self, place: Place, target: Target) -> Steps:  # noqa: ARG002
        command = (
            str(self._PGSTOW),
            "restore",
            "latest",
            "--to",
            target.conninfo,
            "--create",
            "--jobs",
            _JOBS,
        )
        return ((command,),)


class PgstowFullRead(Pgstow):
    """Ourselves, reading everything again and comparing it with what would have been taken over."""

    key = "full-read"
    title = "pgstow --full-read"

    def backup_again(self, place: Place) -> Steps:
        return self._backup(place, "--full-read")


class PgstowIntoEmpty(Pgstow):
    """Ourselves, with nothing to take over: everything is read, fingerprinted and stored."""

    key = "into-empty"
    title = "pgstow, into an empty repository"

    def backup_again(self, place: Place) -> Steps:
        return self.backup(place)


class PgstowInBucket(Pgstow):
    """Ourselves, with the repository in a bucket whose files are the place's folder."""

    def __init__(self, programs: Programs, bucket: Bucket, *, key: str, title: str) -> None:
        super().__init__(programs)
        self.key, self.title, self._bucket = key, title, bucket

    def env(self, place: Place) -> Mapping[str, str]:
        return {**super().env(place), **self._bucket.env(f"{place.folder.name}/{place.repository.name}")}


def contestants(programs: Programs) -> Iterator[Contestant]:
    """Yield everybody, in the order of the tables; whether each is installed is theirs to say."""
    yield Script(programs)
    yield DirectoryDump(programs)
    yield Zstd(programs)
    yield PlainDirectoryDump(programs)
    for version, program in programs.restics:
        yield Restic(programs, version, program)
    yield Borg(programs)
    yield PgBackRest(programs)
    yield Pgstow(programs)


def command_text(steps: Steps, place: Place, target: Target | None = None) -> str:
    """Return the steps as one would type them, with this machine's addresses replaced by names."""
    names = {place.source: "$SOURCE", str(place.folder): "."}
    if target:
        names |= {target.conninfo: "$TARGET", target.maintenance: "$SERVER", str(target.folder): "$FOLDER"}
    return " && ".join(
        " | ".join(" ".join(_word(word, names) for word in _bare(command)) for command in pipeline)
        for pipeline in steps
    )


def _bare(command: tuple[str, ...]) -> tuple[str, ...]:
    return (Path(command[0]).name, *command[1:])


def _word(word: str, names: Mapping[str, str]) -> str:
    quoted = word
    for text, name in names.items():
        quoted = quoted.replace(text, name)
    return quoted if "$" in quoted else shlex.quote(quoted)
