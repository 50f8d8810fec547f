"""A throwaway server as the place of a drill: started for it, reached by nobody else, gone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pgstow.assurance.drill.globals import create_globals, create_missing_roles
from pgstow.assurance.drill.memory import Memory, memory_of, refuse_too_little_memory, usable_cpus
from pgstow.assurance.drill.place import Place
from pgstow.assurance.drill.room import refuse_too_little_room, restored_bytes
from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import ConnectionFailed, PgstowError, ProcessFailed, TargetRefused, ToolMissing
from pgstow.postgres.archive import TocEntry
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import open_raw
from pgstow.postgres.server import Cluster, ServerBinaries
from pgstow.postgres.throwaway_settings import build_memory, shared_memory, throwaway_settings
from pgstow.postgres.workspace import Workspace, remove_leftovers
from pgstow.restore.guard import GUARD_SETTINGS
from pgstow.restore.request import ArchiveFiles, RestoreOptions

__all__ = ["ThrowawayServer", "pick_server"]

_DATABASE = "drill"
_LARGER_DISK = (
    "set TMPDIR to a folder on a larger disk, or let the drill make its database on a server with --on URL"
)
_SHOWN = 10
_LITTLE_MEMORY_BYTES = 512 << 20
# What an archive needs many of at once: pg_restore locks every table of a transaction.
_OUR_SETTINGS = {
    "max_locks_per_transaction": "1024",
    "log_min_messages": "log",  # how one of its processes ended stands there, and nowhere else
    "log_checkpoints": "off",
    "max_prepared_transactions": "0",
}


class ThrowawayServer(Place):
    """A server of the backup's major release, below ``parent``. Its own superuser alone comes in, by a socket that only we reach."""

    kind = "throwaway"
    _when_full = _LARGER_DISK

    def __init__(
        self,
        files: ArchiveFiles,
        servers: Sequence[ServerBinaries],
        *,
        parent: Path,
        note: Callable[[str], object],
        beneath: Sequence[TocEntry] = (),
        jobs: int = 1,
    ) -> None:
        super().__init__()
        self._files = files
        self._jobs = jobs
        self._build_bytes: int | None = None
        self._servers = servers
        self._parent = parent
        self._note = note
        self._beneath = beneath  # of another archive, restored before
        self._workspace: Workspace | None = None
        self._cluster: Cluster | None = None

    def options(self, options: RestoreOptions) -> RestoreOptions:
        return replace(options, create=True, build_bytes=self._build_bytes)

    def make(self) -> None:
        remove_leftovers(self._parent, self._note)
        manifest = self._files.manifest
        binaries = pick_server(self._servers, manifest)
        if binaries.version[0] != manifest.server.version_num // 10000:
            self.warnings.append(
                f"the drill ran on PostgreSQL {binaries.version[0]}, as there is no"
                f" {manifest.server.version_num // 10000} on this machine: install it to drill what a real restore would do"
            )
        try:
            cluster = self._start(binaries)
        except OSError as exc:
            raise TargetRefused(
                f"no server can be made in {self._parent}: {exc.strerror}", hint=_LARGER_DISK
            ) from exc
        self._target = ConnInfo.parse(cluster.conninfo(_DATABASE))
        self.server = f"PostgreSQL {binaries.version[0]}.{binaries.version[1]} ({binaries.bin_dir})"
        self.is_isolated = True
        self._make_roles()

    def _start(self, binaries: ServerBinaries) -> Cluster:
        """Start the server in a folder that is recognised as ours whatever happens to us. Raises OSError, PgstowError."""
        refuse_too_little_room(self._parent, restored_bytes(self._files.manifest, self._files.toc))
        settings = self._settings(memory_of(), usable_cpus())
        is_foreign = self._files.manifest.imported is not None  # what it runs nobody may have vouched for
        self._workspace = Workspace(self._parent)
        self._cluster = Cluster(
            binaries,
            settings={**settings, **_OUR_SETTINGS},
            parent=self._workspace.folder,
            is_confined=True,
            has_network=False,  # foreign tables, dblink and whatever else a restore evaluates must not reach the servers of others
        )
        try:
            self._cluster.__enter__()
        except ProcessFailed as exc:
            if "Permission denied" in exc.message:
                exc.hint = (
                    f"the account that runs the server must reach {self._parent}: as root that is nobody;"
                    " TMPDIR names another folder"
                )
            raise
        if is_foreign and not self._cluster.is_confined:
            self.warnings.append(
                "what a dump from elsewhere runs could not be kept from this machine's programs, files and network, for which"
                " Linux 5.13 or newer is needed"
            )
        return self._cluster

    def _settings(self, memory: Memory, cpus: int) -> dict[str, str]:
        """Return settings that fit the memory that is to be had now. Raises TargetRefused where none would."""
        usable = memory.available_bytes
        self._build_bytes = build_memory(memory_bytes=usable, cpus=cpus, jobs=self._jobs)
        refuse_too_little_memory(
            memory, shared_buffers=shared_memory(usable), build_bytes=self._build_bytes, jobs=self._jobs
        )
        if usable < _LITTLE_MEMORY_BYTES:
            self.warnings.append(f"only {usable >> 20} MiB of memory could be used: a real server has more")
        return throwaway_settings(memory_bytes=usable, cpus=cpus, jobs=self._jobs)

    def _make_roles(self) -> None:
        """Create roles and memberships, so that owners and privileges are restored as they were."""
        toc = self._files.toc
        server = self.target.with_database("postgres")
        with contextlib.closing(open_raw(server, encoding=toc.encoding, settings=GUARD_SETTINGS)) as session:
            self.server_version_num = session.connection.info.server_version
            if self._files.manifest.globals.is_captured:
                remarks = create_globals(session, self._files.read("globals.sql"))
                self.warnings += remarks[:_SHOWN]
                if len(remarks) > _SHOWN:
                    self.warnings.append(f"and {len(remarks) - _SHOWN} more statements of globals.sql failed")
            else:
                self.warnings.append(
                    "the backup has no globals: roles were made up, without their memberships and settings"
                )
            made = create_missing_roles(session, toc, beneath=self._beneath)
        if made and self._files.manifest.globals.is_captured:
            self.warnings.append(f"roles that globals.sql does not have were made up: {', '.join(made)}")

    @property
    def remains(self) -> str:
        return str(self._workspace.folder if self._workspace is not None else self._parent)

    def _log_tail(self) -> str:
        return self._cluster.log_tail() if self._cluster is not None else ""

    def explained(self, exc: PgstowError) -> PgstowError:
        if isinstance(exc, ConnectionFailed) and self._cluster is not None and not self._cluster.is_running:
            exc.hint = (
                "the throwaway server is not running any more: look in this machine's system log whether somebody, or the"
                " system for want of memory, has ended it"
            )
        return super().explained(exc)

    def _remove(self) -> None:
        cluster, workspace = self._cluster, self._workspace
        if cluster is not None:
            # What this leaves undone the folder's removal does, or tells.
            with contextlib.suppress(OSError):
                cluster.remove()
        if workspace is not None:
            workspace.remove()


def pick_server(servers: Sequence[ServerBinaries], manifest: Manifest) -> ServerBinaries:
    """Return the server programs for a backup: of its own major release, else of the next newer one; ToolMissing if none.

    One that was installed comes before one that is embedded, which knows fewer locales and extensions.
    """
    major = manifest.server.version_num // 10000
    usable = [server for server in servers if server.version[0] >= major]
    if usable:
        return min(usable, key=lambda one: (one.version[0], bool(one.bundle), -one.version[1]))
    found = ", ".join(sorted({f"{server.version[0]}" for server in servers})) or "none"
    raise ToolMissing(
        f"no PostgreSQL server of release {major} or newer was found on this machine (found: {found})",
        hint=f"install the package postgresql-{major} (Debian, Ubuntu) or postgresql{major}-server (RPM), or let the drill make"
        " its database on a server with --on URL",
        server_major=major,
    )
