"""Throwaway PostgreSQL servers: for the demo, for drills, for tests.

A ``Cluster`` owns a data directory and a socket directory that nobody else can enter, and leaves nothing
behind. PostgreSQL refuses to run as root, so root runs it as an unprivileged account that already exists;
no account is made. These servers do not sync to disk: they survive their own crash, not the machine's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from psycopg.conninfo import make_conninfo

from pgstow.core.confinement import Confinement, call_confined, can_confine, program_files
from pgstow.core.errors import PgstowError, ProcessFailed, UsageError
from pgstow.core.process import Process, run
from pgstow.core.secrets import Secret
from pgstow.postgres.server_binaries import ServerBinaries, embedded_server, find_servers
from pgstow.postgres.tools import Version

__all__ = ["Cluster", "ServerBinaries", "TcpAccess", "TlsFiles", "embedded_server", "find_servers"]

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.02
_PORT_ATTEMPTS = 3
_SOCKET_PATH_BYTES = 103  # sun_path holds 104 bytes on macOS and the BSDs, 108 on Linux
_STATUS_LINE = 7  # of postmaster.pid; source: LOCK_FILE_LINE_PM_STATUS in src/include/utils/pidfile.h
_OWN_CONF = "throwaway.conf"
_FOR_SERVERS = (
    "PATH",
    "LANG",
    "LC_",
    "LD_",
    "DYLD_",
    "LOCALE_ARCHIVE",
    "TZ",
    "ICU_DATA",
    "PROJ_",
    "GDAL_DATA",
    "PERL5LIB",
)
_SHARED_MEMORY = (Path("/dev/shm"),)  # noqa: S108  where shm_open() and sem_open() make their files
_BUILD_ONLY = shutil.ignore_patterns("include", "*.a", "pkgconfig", "pgxs", "doc", "man")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A server certificate with its key, and the authority that client certificates must come from."""

    certificate: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAccess:
    """Listening on the loopback address too, for connections that prove the superuser's password."""

    password: Secret
    tls: TlsFiles | None = None
    host: str = "127.0.0.1"


class Cluster:
    """A running throwaway server. Use as a context manager: made and started on entry, gone on exit.

    Local connections come in through a socket directory of mode 0700 without a password. ``settings`` go into
    its configuration; ``hba`` lines are asked before the built-in ones; ``tcp`` opens a port as well.
    ``standby_of`` makes it a hot standby of another cluster. ``parent`` is where its data directory is made
    (default: the system's temporary folder), ``account`` whom root runs it as. One that ``is_confined`` can neither run
    programs nor write anywhere else than in its own folders, and reaches others only if it ``has_network``, as far as the system
    has means for that: it has not where ``is_confined`` is False after the start.
    """

    def __init__(
        self,
        binaries: ServerBinaries,
        *,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
        tcp: TcpAccess | None = None,
        standby_of: Cluster | None = None,
        parent: Path | None = None,
        account: str = "nobody",
        encoding: str = "UTF8",
        locale: str = "C.UTF-8",
        is_confined: bool = False,
        has_network: bool = True,
    ) -> None:
        self.binaries = binaries
        self.is_confined = is_confined
        self._has_network = has_network
        # A standby must not allow fewer connections, locks or workers than its primary.
        self.settings: dict[str, str] = {**(standby_of.settings if standby_of else {}), **(settings or {})}
        self.tcp = tcp
        self.port = 5432  # only names the socket unless there is tcp
        self._hba = tuple(hba)
        self._standby_of = standby_of
        self._parent = parent
        self._initdb_options = (f"--encoding={encoding}", f"--locale={locale}")
        self._owner = _owner(account)
        self._folder: Path | None = None
        self._sockets: Path | None = None
        self._process: Process | None = None
        self._bin_dir = binaries.bin_dir

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # -- what it is

    @property
    def version(self) -> Version:
        return self.binaries.version

    @property
    def data_dir(self) -> Path:
        assert self._folder is not None, "the cluster is not made yet"
        return self._folder / "data"

    @property
    def socket_dir(self) -> Path:
        assert self._sockets is not None, "the cluster is not made yet"
        return self._sockets

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None, "the cluster is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def conninfo(self, dbname: str = "postgres", *, user: str = "postgres", **params: str) -> str:
        """Return the connection string through the private socket."""
        return make_conninfo(
            "", host=str(self.socket_dir), port=str(self.port), user=user, dbname=dbname, **params
        )

    def tcp_conninfo(self, dbname: str = "postgres", *, user: str = "postgres", **params: str) -> str:
        """Return the connection string through the port; give password or certificate in ``params``."""
        if self.tcp is None:
            raise UsageError("this throwaway server has no port")
        given = {"host": self.tcp.host, "port": str(self.port), "user": user, "dbname": dbname, **params}
        return make_conninfo("", **given)

    def log_tail(self) -> str:
        """Return the last lines of the server's log since its last start."""
        return self._process.stderr_tail() if self._process else ""

    # -- what it does

    def start(self) -> None:
        """Start it and return once it accepts connections. Raises ProcessFailed with the log's tail."""
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            if self.tcp:
                self.port = _free_port(self.tcp.host)
            try:
                self._start()
            except ProcessFailed as exc:  # somebody else took the port since it was found free
                if not (self.tcp and attempts_left and "could not bind" in exc.message):
                    raise
            else:
                return

    def _start(self) -> None:
        self._write_settings()
        confinement = self._confinement() if self.is_confined else None
        self.is_confined = confinement is not None
        if confinement is not None:
            call_confined(confinement, self._run_server)
        else:
            self._run_server()
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            status = self._process.poll()
            if status is not None:
                self._process.wait()
                raise self._process.failure(status)
            if time.monotonic() > deadline:
                tail = self.log_tail()
                self.stop("immediate")
                raise ProcessFailed(
                    f"postgres did not come up in {_START_TIMEOUT_S:.0f} s: {tail}", stderr_tail=tail
                )
            time.sleep(_POLL_S)

    def _run_server(self) -> None:
        self._process = Process(
            [self._bin_dir / "postgres", "-D", self.data_dir],
            env={**_environment(), "LC_ALL": "C"},
            inherits_environment=False,
            stdout=subprocess.DEVNULL,
            cwd=self.data_dir.parent,
            user=self._owner[0] if self._owner else None,
            group=self._owner[1] if self._owner else None,
        )

    def _confinement(self) -> Confinement | None:
        """Return what the server may do; None where the system cannot see to that."""
        programs = program_files(self._bin_dir / "postgres")
        if programs is None or not can_confine():
            return None
        own = (self.data_dir.parent, self.socket_dir)
        return Confinement(
            writable=(*own, *(folder for folder in _SHARED_MEMORY if folder.is_dir())),
            runnable=programs,
            has_network=self._has_network,
        )

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it as ``pg_ctl stop -m`` does; every process of it has ended on return."""
        self._end(_SIGNALS[mode])

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL: the next start recovers from the write-ahead log.

        Returns when its children have noticed and ended as well.
        """
        self._end(signal.SIGKILL)

    def restart(self, mode: StopMode = "fast", *, settings: Mapping[str, str] | None = None) -> None:
        """Stop and start it, with further ``settings`` from now on."""
        self.stop(mode)
        self.settings.update(settings or {})
        self.start()

    def remove(self) -> None:
        """End it and delete its folders. Does nothing the second time."""
        try:
            self.stop("immediate")
        finally:
            for folder in (self._folder, self._sockets):
                if folder is not None:
                    shutil.rmtree(folder)
            self._folder = self._sockets = None

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                os.kill(process.pid, number)
            # wait() also waits for the end of the log, which every child holds open: none of them is left.
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.stop()

    def _is_ready(self) -> bool:
        """Whether postmaster.pid is this server's and says that it is up."""
        assert self._process is not None
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        if len(lines) <= _STATUS_LINE or lines[0] != str(self._process.pid):
            return False
        return lines[_STATUS_LINE].strip() == "ready"

    # -- how it is made

    def _make(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgstow-", dir=self._parent))  # mode 0700
        self._sockets = _short_folder(self._parent)
        for folder in (self._folder, self._sockets):
            self._give(folder)
        self._bin_dir = self._runnable()
        if self._standby_of is None:
            self._initdb()
        else:
            self._base_backup(self._standby_of)
        with (self.data_dir / "postgresql.conf").open("a") as conf:
            conf.write(f"include '{_OWN_CONF}'\n")
        self._write("pg_hba.conf", "".join(f"{line}\n" for line in self._hba_lines()))
        if self.tcp and self.tcp.tls:
            self._install_tls(self.tcp.tls)

    def _initdb(self) -> None:
        options = [
            *self._initdb_options,
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--no-instructions",
        ]
        if self.tcp:
            password = self.data_dir.parent / "password"
            self._write(password, self.tcp.password.reveal() + "\n")
            options.append(f"--pwfile={password}")
        self._run("initdb", "-D", self.data_dir, *options)

    def _base_backup(self, primary: Cluster) -> None:
        source = primary.conninfo("replication")
        self._run(
            "pg_basebackup", "-D", self.data_dir, "-d", source, "--checkpoint=fast", "--wal-method=stream",
            "--no-sync", "--write-recovery-conf",
        )  # fmt: skip

    def _hba_lines(self) -> list[str]:
        lines = [*self._hba, "local all all trust", "local replication all trust"]
        if self.tcp:
            kind = "hostssl" if self.tcp.tls else "host"
            lines += [
                f"{kind} {what} all {self.tcp.host}/32 scram-sha-256" for what in ("all", "replication")
            ]
        return lines

    def _write_settings(self) -> None:
        """Write the configuration anew, so that a restart can change it."""
        own = {
            "listen_addresses": self.tcp.host if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "fsync": "off",
        }
        if self.tcp and self.tcp.tls:
            own |= {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
            if self.tcp.tls.client_authority:
                own["ssl_ca_file"] = "clients.crt"
        merged = {**own, **self.settings}
        self._write(_OWN_CONF, "".join(f"{name} = {_quoted(value)}\n" for name, value in merged.items()))

    def _install_tls(self, tls: TlsFiles) -> None:
        for source, name in (
            (tls.certificate, "server.crt"),
            (tls.key, "server.key"),
            (tls.client_authority, "clients.crt"),
        ):
            if source is not None:
                self._write(name, source.read_text())

    def _run(self, program: str, *arguments: str | Path) -> None:
        run(
            [self._bin_dir / program, *arguments],
            env={"LC_ALL": "C"},
            cwd=self.data_dir.parent,
            user=self._owner[0] if self._owner else None,
            group=self._owner[1] if self._owner else None,
        )

    def _runnable(self) -> Path:
        """Return a program folder that the account can reach: the installation's, or that of a private copy.

        A virtual environment below root's home is out of reach for everybody else. The copy lives in this
        cluster's own folder: 30 MB, a fraction of a second, no cache that could be stale, shared or planted.
        """
        bundle = self.binaries.bundle
        try:
            self._run("postgres", "--version")
        except PgstowError:
            if self._owner is None or not bundle:
                raise
        else:
            return self._bin_dir
        assert self._folder is not None
        top = Path(os.path.commonpath([part.parent for part in bundle]))
        for part in bundle:
            shutil.copytree(
                part, self._folder / "programs" / part.relative_to(top), symlinks=True, ignore=_BUILD_ONLY
            )
        for path in (self._folder / "programs", *(self._folder / "programs").rglob("*")):
            self._give(path)
        return self._folder / "programs" / self.binaries.bin_dir.relative_to(top)

    def _write(self, name: str | Path, text: str) -> None:
        """Write a file of the data directory that only the server's account can read."""
        path = self.data_dir / name
        path.touch(mode=0o600)
        path.write_text(text)
        self._give(path)

    def _give(self, path: Path) -> None:
        if self._owner:
            os.chown(path, *self._owner, follow_symlinks=False)


def _environment() -> dict[str, str]:
    """Return what a server needs of our environment: no passwords and no keys, which its superuser could read."""
    return {name: value for name, value in os.environ.items() if name.startswith(_FOR_SERVERS)}


def _owner(account: str) -> tuple[int, int] | None:
    """Return user and group to run as, or None to stay who we are."""
    if os.geteuid() != 0:
        _check_is_known()
        return None
    try:
        entry = pwd.getpwnam(account)
    except KeyError as exc:
        raise UsageError(f"there is no account {account!r} to run PostgreSQL as") from exc
    if entry.pw_uid == 0:
        raise UsageError("PostgreSQL does not run as root", hint="name an unprivileged account")
    return entry.pw_uid, entry.pw_gid


def _check_is_known() -> None:
    """Raise UsageError for a user that the system has no name for, as containers may be given: initdb asks for it."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as exc:
        raise UsageError(
            f"PostgreSQL does not run as user {os.geteuid()}, whom this system has no name for",
            hint="add the user to /etc/passwd, or use another server: drills take --on",
        ) from exc


def _short_folder(wanted: Path | None) -> Path:
    """Return a new private folder whose path leaves room for a socket's name, in ``wanted`` if that does."""
    for parent in (*([str(wanted)] if wanted else []), tempfile.gettempdir(), "/tmp"):  # noqa: S108  mkdtemp makes the name and the mode
        if len(os.fsencode(f"{parent}/pgstow-12345678/.s.PGSQL.65535")) <= _SOCKET_PATH_BYTES:
            return Path(tempfile.mkdtemp(prefix="pgstow-", dir=parent))
    raise UsageError(
        "the path of the temporary folder is too long for a socket", hint="set TMPDIR to a short path"
    )


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


def _quoted(value: str) -> str:
    """Return ``value`` as a string literal of postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
