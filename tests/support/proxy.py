"""TCP proxies that stop passing bytes, or close connections, when they are told to or at a chosen message."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import Enum
from typing import Self

__all__ = ["MessageProxy", "StallingProxy", "Then"]


class StallingProxy:
    """Passes bytes between its own port on 127.0.0.1 and a server, until ``stall()`` or ``cut()``."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()[:2]
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake up who accepts
        self._accepting.join()
        self._listener.close()
        self.cut()

    def stall(self) -> None:
        """Pass nothing from now on, and keep every connection open."""
        self._flowing.clear()

    def cut(self) -> None:
        """Close every connection."""
        self._flowing.set()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # the server is gone
                client.close()
                continue
            self._sockets += [client, server]
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump_back, args=(server, client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._is_flowing():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _pump_back(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what the server sends."""
        self._pump(server, client)

    def _is_flowing(self) -> bool:
        """Wait until bytes flow; False when they never will."""
        while not self._flowing.wait(0.2):
            if self._closed.is_set():
                return False
        return True


class Then(Enum):
    """What happens at the chosen message."""

    CUT_ONE = "the connection is closed"
    CUT_ALL = "all connections are closed"
    STALL = "nothing is passed on any more"


class MessageProxy(StallingProxy):
    """Counts the messages that a PostgreSQL server sends, over all its connections; before number ``at`` it does ``then``.

    Of rows only every ``rows_per_count``-th counts: there are too many of them. No TLS.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        at: int | None = None,
        then: Then = Then.CUT_ONE,
        rows_per_count: int = 1000,
    ) -> None:
        super().__init__(host, port)
        self._at = at
        self._then = then
        self._rows_per_count = rows_per_count
        self._guard = threading.Lock()
        self._rows = 0
        self.count = 0
        self.will_stall = at is not None and then is Then.STALL

    def _pump_back(self, server: socket.socket, client: socket.socket) -> None:
        messages = _Messages()
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                passed = self._until_chosen(messages, data)
                if not self._is_flowing():
                    return
                client.sendall(data if passed is None else data[:passed])
                if passed is not None:
                    self._act(server, client)
                    if self._then is not Then.STALL:
                        return
                    if self._is_flowing():
                        client.sendall(data[passed:])
            client.shutdown(socket.SHUT_WR)

    def _until_chosen(self, messages: _Messages, data: bytes) -> int | None:
        """Count the messages that begin in ``data``; return where the chosen one does, if it is among them."""
        with self._guard:
            for offset, kind in messages.begun(data):
                if kind in b"Dd":
                    self._rows += 1
                    if self._rows % self._rows_per_count:
                        continue
                self.count += 1
                if self.count == self._at:
                    return offset
        return None

    def _act(self, server: socket.socket, client: socket.socket) -> None:
        if self._then is Then.STALL:
            self.stall()
        elif self._then is Then.CUT_ALL:
            self.cut()
        else:
            for end in (server, client):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class _Messages:
    """Finds where messages begin in one direction of a connection: a byte of kind, four of length, the rest."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def begun(self, data: bytes) -> list[tuple[int, int]]:
        """Return (offset in ``data``, kind) of every message that begins in it."""
        found = []
        place = 0
        while place < len(data):
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                place += step
                continue
            if not self._header:
                found.append((place, data[place]))
            needed = 5 - len(self._header)
            self._header += data[place : place + needed]
            place += needed
            if len(self._header) == 5:
                self._left = int.from_bytes(self._header[1:], "big") - 4
                self._header = b""
        return found
