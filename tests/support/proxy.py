"""A TCP proxy that can stop passing bytes without closing anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["StallingProxy"]


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
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self.cut()
        self._listener.close()

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
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while not self._flowing.wait(0.2):
                    if self._closed.is_set():
                        return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
