"""A tiny object server that answers, fails and lies as a test tells it to.

It speaks what S3, Google's XML interface and Azure have in common: PUT with a condition, GET with a range,
HEAD, DELETE. Listings are moto's business. It also serves as an HTTP proxy: the target is then written down.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONDITIONS = {"if-none-match": "*", "x-goog-if-generation-match": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to say instead of the truth; ``work_first`` does what was asked before that."""

    status: int = 0  # 0 cuts the connection
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    work_first: bool = False


def s3_error(status: int, code: str, extra: str = "", *, work_first: bool = False) -> Answer:
    """Return an answer as S3 words its errors."""
    message = f"<Message>about {code}</Message>"
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code>{message}{extra}</Error>"
    return Answer(status=status, body=body, work_first=work_first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    target: str  # absolute when we are the proxy
    headers: Mapping[str, str]  # names in lower case


class BucketServer:
    """Objects by path, the requests that came, and a queue of answers to give instead."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.answers: list[Answer | None] = []
        self.always: Answer | None = None
        self.lock = threading.Lock()

    def next_answer(self) -> Answer | None:
        with self.lock:
            return self.answers.pop(0) if self.answers else self.always


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket_server: BucketServer

    def log_message(self, *_args: object) -> None:
        pass

    def _handle(self) -> None:
        server = self.bucket_server
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = re.sub(r"^http://[^/]+", "", self.path)
        with server.lock:
            server.requests.append(Request(method=self.command, target=self.path, headers=headers))
        answer = server.next_answer()
        if answer is None:
            self._reply(self._work(path, data, headers))
            return
        if answer.work_first:
            self._work(path, data, headers)
        if answer.status == 0:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self._reply(answer)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle  # noqa: N815

    def _work(self, path: str, data: bytes, headers: Mapping[str, str]) -> Answer:
        objects = self.bucket_server.objects
        path, _, query = path.partition("?")
        if self.command == "POST" and "comp=batch" in query:
            return self._delete_batch(data)
        if self.command == "PUT":
            with self.bucket_server.lock:
                is_conditional = any(headers.get(name) == value for name, value in CONDITIONS.items())
                if is_conditional and path in objects:
                    return s3_error(412, "PreconditionFailed")
                objects[path] = data
            return Answer(status=200, headers=_about(data))
        if path not in objects:
            return s3_error(404, "NoSuchKey")
        if self.command == "DELETE":
            del objects[path]
            return Answer(status=204)
        data = objects[path]
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", headers.get("x-ms-range", ""))):
            first, last = int(match[1]), min(int(match[2]), len(data) - 1)
            part = data[first : last + 1].decode("latin-1")
            span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return Answer(status=206, body=part, headers={**_about(data), **span})
        return Answer(status=200, body=data.decode("latin-1"), headers=_about(data))

    def _delete_batch(self, data: bytes) -> Answer:
        """Azure's way of deleting: a multipart body of DELETE requests, answered part by part."""
        parts = []
        for number, path in enumerate(re.findall(rb"^DELETE (\S+) HTTP/1.1", data, re.MULTILINE)):
            was_there = self.bucket_server.objects.pop(path.decode(), None) is not None
            status = "202 Accepted" if was_there else "404 BlobNotFound"
            parts.append(
                f"--part\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status}\r\nx-ms-version: 2023-11-03\r\n\r\n"
            )
        headers = {"Content-Type": "multipart/mixed; boundary=part", "Connection": "close"}
        return Answer(status=202, body="".join(parts) + "--part--\r\n", headers=headers)

    def _reply(self, answer: Answer) -> None:
        body = answer.body.encode("latin-1")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.wfile.write(body)


def _about(data: bytes) -> dict[str, str]:
    etag = hashlib.sha256(data).hexdigest()
    return {"ETag": f'"{etag}"', "Last-Modified": "Fri, 20 Nov 2026 02:00:00 GMT", "Connection": "close"}


@contextlib.contextmanager
def bucket_server() -> Iterator[BucketServer]:
    """Run a BucketServer for the length of a block."""
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server = BucketServer(http.server_port)
    handler.bucket_server = server  # type: ignore[attr-defined]  # set before the first request
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
