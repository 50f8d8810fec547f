"""A bucket on the loopback address that can be far away: ``python -m bench.bucket FOLDER DELAY_MS``.

It speaks the part of S3 that a repository needs, keeps objects as synced files, answers every request a fixed time
late and counts them. A process of its own, so that it takes no interpreter time from whoever measures. It checks no
signature and limits no bandwidth.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from pgstow.core.process import running

__all__ = ["Bucket", "bucket"]

_PROJECT: Final = Path(__file__).resolve().parents[1]
_NAME: Final = "bench"
_COUNTS: Final = "/-/counts"  # asked by whoever measures: neither late nor counted
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d+)?")
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A running bucket and how to reach it."""

    url: str

    def env(self, folder: str) -> Mapping[str, str]:
        """Return what leads pgstow to a repository in ``folder`` of the bucket."""
        return {
            "PGSTOW_REPOSITORY": f"s3://{_NAME}/{folder}",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "nothing-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def counts(self) -> Counter[str]:
        """Return how many requests of each method came so far; a listing counts as LIST."""
        with urllib.request.urlopen(self.url + _COUNTS) as reply:
            return Counter(json.load(reply))


@contextlib.contextmanager
def bucket(folder: Path, *, delay_ms: int = 0) -> Iterator[Bucket]:
    """Run a bucket that keeps its objects below ``folder`` for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "bench.bucket", str(folder), str(delay_ms))
    with running(command, cwd=_PROJECT) as process:
        line = process.stdout.readline()
        if not line:
            process.check()
        yield Bucket(url=line.decode().strip())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.delay_s = delay_s
        self.counts: Counter[str] = Counter()
        self.guard = threading.Lock()
        self.parent = os.getppid()

    def service_actions(self) -> None:
        """End with whoever started this, also when that one was killed; asked twice a second."""
        if os.getppid() != self.parent:
            raise SystemExit

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is the client's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body of a short reply leave together
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._is_new = True

    def log_message(self, *_args: object) -> None:
        pass

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        key = unquote(parts.path).removeprefix(f"/{_NAME}").strip("/")
        if parts.path == _COUNTS:
            with self.server.guard:
                counted = json.dumps(self.server.counts)
            self._reply(200, counted.encode())
            return
        is_list = self.command == "GET" and not key
        with self.server.guard:
            self.server.counts["LIST" if is_list else self.command] += 1
        self._be_late()
        if ".." in key.split("/"):
            self._error(400, "InvalidURI")
        elif is_list:
            self._list(query)
        else:
            getattr(self, f"_{self.command.lower()}")(self.server.folder / key)

    do_GET = do_PUT = do_HEAD = do_DELETE = _handle  # noqa: N815 - the base class looks for these names

    def _be_late(self) -> None:
        """Wait one round trip, and another for the handshake of a connection that is new."""
        trips, self._is_new = (2 if self._is_new else 1), False
        time.sleep(self.server.delay_s * trips)

    def _put(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".put-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                left = int(self.headers.get("content-length") or 0)
                while left and (data := self.rfile.read(min(left, 1 << 20))):
                    file.write(data)
                    left -= len(data)
                file.flush()
                os.fsync(file.fileno())
            if left:  # the client is gone
                self.close_connection = True
                return
            if self.headers.get("if-none-match") == "*":
                os.link(name, path)
            else:
                Path(name).replace(path)
        except FileExistsError:
            self._error(412, "PreconditionFailed")
            return
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
        self._reply(200, about=path)

    def _get(self, path: Path) -> None:
        if not path.is_file():
            self._error(404, "NoSuchKey")
            return
        data = path.read_bytes()
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None:
            self._reply(200, data, about=path)
            return
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        if first > last:
            self._error(416, "InvalidRange")
            return
        self._reply(206, data[first : last + 1], about=path, span=f"bytes {first}-{last}/{len(data)}")

    def _head(self, path: Path) -> None:
        if path.is_file():
            self._reply(200, about=path)
        else:
            self._error(404, "NoSuchKey")

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._reply(204)

    def _list(self, query: Mapping[str, str]) -> None:
        after = query.get("continuation-token") or query.get("start-after", "")
        prefix = query.get("prefix", "")
        within = self.server.folder / prefix.rpartition("/")[0]
        keys = sorted(
            key
            for path in within.rglob("*")
            if not path.name.startswith(".put-") and path.is_file()
            if (key := path.relative_to(self.server.folder).as_posix()).startswith(prefix) and key > after
        )
        page = keys[:_PAGE]
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if keys[_PAGE:] else ""
        items = "".join(_item(self.server.folder, key) for key in page)
        truncated = "true" if token else "false"
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
            f"<Name>{_NAME}</Name><KeyCount>{len(page)}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
            f"<IsTruncated>{truncated}</IsTruncated>{token}{items}</ListBucketResult>"
        )
        self._reply(200, body.encode())

    def _error(self, status: int, code: str) -> None:
        self._drain()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._reply(status, body.encode())

    def _drain(self) -> None:
        """Give up a connection whose body was not read, else the next request would begin in it."""
        if self.command == "PUT":
            self.close_connection = True

    def _reply(self, status: int, body: bytes = b"", *, about: Path | None = None, span: str = "") -> None:
        self.send_response(status)
        if about is not None:
            facts = about.stat()
            self.send_header("ETag", f'"{facts.st_ino:x}-{facts.st_mtime_ns:x}"')
            self.send_header("Last-Modified", formatdate(facts.st_mtime, usegmt=True))
        if span:
            self.send_header("Content-Range", span)
        if status != 204:
            is_head = self.command == "HEAD" and about is not None
            self.send_header("Content-Length", str(about.stat().st_size if is_head and about else len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _item(folder: Path, key: str) -> str:
    try:
        facts = (folder / key).stat()
    except FileNotFoundError:  # deleted since it was listed
        return ""
    changed = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(facts.st_mtime))
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified><Size>{facts.st_size}</Size>"
        f"<ETag>&quot;{facts.st_ino:x}&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
    )


def main(arguments: list[str]) -> None:
    folder, delay_ms = arguments
    with _Server(Path(folder), int(delay_ms) / 1000) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
