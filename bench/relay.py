"""Counting what a server sends: a Unix socket in front of a server's own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from psycopg.conninfo import make_conninfo

from pgstow.postgres.server import Cluster

__all__ = ["Relay"]

_CHUNK_BYTES: Final = 1 << 18


class Relay:
    """Passes connections on to a server and counts the bytes that come back; a context manager.

    Everything of the protocol is counted, as it would be on a network, without TLS and the headers of packets.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._name = f".s.PGSQL.{cluster.port}"
        self._server = str(cluster.socket_dir / self._name)
        self._folder = Path(tempfile.mkdtemp(prefix="pgstow-relay-"))  # short: a socket's path has a limit
        self._listener = socket.socket(socket.AF_UNIX)
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._from_server = 0

    def __enter__(self) -> Self:
        self._listener.bind(str(self._folder / self._name))
        self._listener.listen(128)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        while self._threads:  # the accepting one first: after it there are no others
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._threads.pop(0).join()
        for one in (self._listener, *self._sockets):
            one.close()
        shutil.rmtree(self._folder)

    def source(self, source: str) -> str:
        """Return the connection string that goes through here."""
        return make_conninfo(source, host=str(self._folder))

    def taken(self) -> int:
        """Return how many bytes the server has sent since this was asked last."""
        with self._guard:
            taken, self._from_server = self._from_server, 0
        return taken

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the block is over
                return
            server = socket.socket(socket.AF_UNIX)
            self._sockets += [client, server]
            server.connect(self._server)
            self._start(self._pass, client, server, False)
            self._start(self._pass, server, client, True)

    def _pass(self, origin: socket.socket, goal: socket.socket, is_counted: bool) -> None:
        """Pass bytes one way until one side hangs up, and tell the other."""
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        with contextlib.suppress(OSError):
            while length := origin.recv_into(buffer):
                if is_counted:
                    with self._guard:
                        self._from_server += length
                goal.sendall(buffer[:length])
        with contextlib.suppress(OSError):
            goal.shutdown(socket.SHUT_WR)
