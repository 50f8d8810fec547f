"""Giving metrics away: over HTTP, or as a file for the node exporter."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pgstow.core.errors import PgstowError, UsageError

__all__ = ["serve_metrics", "write_textfile"]

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})")
_PATIENCE_S = 10.0  # for a client that says nothing


@contextlib.contextmanager
def serve_metrics(address: str, collect: Callable[[], bytes]) -> Iterator[int]:
    """Answer GET /metrics at ``HOST:PORT`` with what ``collect`` returns, until the block ends; give the port.

    ``collect`` is called from several threads and should be quick: it returns what was made before. Port 0 takes any
    that is free. Raises UsageError for what is no address, PgstowError where it cannot be listened on.
    """
    host, port = _parse(address)
    server = _listen(host, port, address, collect)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address.strip())
    if match is None or int(match["port"]) > 0xFFFF:
        raise UsageError(
            f"{address!r} is no address to listen on", hint="write it like 127.0.0.1:9187 or [::1]:9187"
        )
    return match["six"] or match["host"] or "", int(match["port"])


def _listen(host: str, port: int, address: str, collect: Callable[[], bytes]) -> ThreadingHTTPServer:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        family, _, _, _, place = found[0]
        server_class = type("_Server", (_Server,), {"address_family": family})
        server: ThreadingHTTPServer = server_class(place[:2], _handler(collect))
    except OSError as exc:
        raise PgstowError(
            f"metrics cannot be served at {address}: {exc.strerror or exc}",
            hint="monitoring.listen in the settings names the address; is another process using it?",
        ) from exc
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that holds its connection must not hold our end

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that went away is no event."""


def _handler(collect: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version = "pgstow"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._send(404, "text/plain; charset=utf-8", b"metrics are at /metrics\n", with_body)
                return
            try:
                body = collect()
            except Exception:  # noqa: BLE001  a scraper gets a failure, and no details: whoever asks may be anybody
                self._send(500, "text/plain; charset=utf-8", b"the metrics cannot be collected\n", with_body)
                return
            self._send(200, _CONTENT_TYPE, body, with_body)

        def _send(self, code: int, content_type: str, body: bytes, with_body: bool) -> None:  # noqa: FBT001
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
            """Say nothing: a scrape every few seconds is no event."""

    return Handler


def write_textfile(path: Path, text: bytes) -> None:
    """Replace a file by ``text``: readers see the old one or the new one, whole. The world may read it.

    Raises PgstowError.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)  # the node exporter is another user
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as exc:
        raise PgstowError(f"{path} cannot be written: {exc.strerror}") from exc
