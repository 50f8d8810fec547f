"""Dead man's switches: a service outside is pinged by every run and raises an alarm when pings stay away.

The protocol is that of healthchecks.io: URL for success, with ``/start``, ``/fail``, ``/log`` or an exit status behind it,
and ``?rid=`` to pair the beginning of a run with its end. A ping that fails never fails what it tells of.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from typing import Literal
from urllib.parse import SplitResult, urlencode, urlsplit

from pgstow.core.secrets import Secret
from pgstow.monitor.channels import cleaned

__all__ = ["Pings", "Signal"]

_LIMIT_S = 10.0
_TRIES = 3
_MOST_BYTES = 10_000  # of a message; services keep that much

Signal = Literal["start", "success", "fail", "log"] | int  # an int is an exit status


class Pings:
    """The dead man's switch of one plan. ``pinged`` hears of every ping: None, or why it did not arrive."""

    def __init__(
        self,
        url: Secret,
        *,
        pinged: Callable[[str | None], None] = lambda _error: None,
        limit_s: float = _LIMIT_S,
    ) -> None:
        self._url = url
        self._pinged = pinged
        self._limit_s = limit_s

    def __repr__(self) -> str:
        return "Pings(...)"

    def ping(self, signal: Signal, *, run_id: str, text: str = "") -> str | None:
        """Tell the service; return None when it heard, else why it did not: without secrets. Never raises.

        ``run_id`` is a UUID, the same for the beginning and the end of a run. Takes at most half a minute.
        """
        error: str | None = None
        for _ in range(_TRIES):
            error = self._within_limit(signal, run_id, text)
            if error is None:
                break
        self._pinged(error)
        return error

    def _within_limit(self, signal: Signal, run_id: str, text: str) -> str | None:
        said: list[str | None] = []
        thread = threading.Thread(
            target=lambda: said.append(self._once(signal, run_id, text)), name="ping", daemon=True
        )
        thread.start()
        thread.join(self._limit_s)  # a socket's limit counts anew with every byte
        return said[0] if said else f"no answer within {self._limit_s:.0f} s"

    def _once(self, signal: Signal, run_id: str, text: str) -> str | None:
        try:
            url = urlsplit(self._url.reveal())
            connection = _connection(url, self._limit_s)
            try:
                body = text.encode(errors="replace")[-_MOST_BYTES:]
                connection.request("POST", _target(url, signal, run_id), body, {"User-Agent": "pgstow"})
                answer = connection.getresponse()
                answer.read(1000)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return cleaned(f"{type(exc).__name__}: {exc}", self._url)
        return None if 200 <= answer.status < 300 else f"the service answered {answer.status} {answer.reason}"


def _connection(url: SplitResult, limit_s: float) -> http.client.HTTPConnection:
    if url.scheme == "https" and url.hostname:
        return http.client.HTTPSConnection(
            url.hostname, url.port, timeout=limit_s, context=ssl.create_default_context()
        )
    if url.scheme == "http" and url.hostname:
        return http.client.HTTPConnection(url.hostname, url.port, timeout=limit_s)
    raise ValueError("its address is no http or https URL")


def _target(url: SplitResult, signal: Signal, run_id: str) -> str:
    suffix = "" if signal == "success" else f"/{signal}"
    query = "&".join(part for part in (url.query, urlencode({"rid": run_id})) if part)
    return f"{url.path.rstrip('/')}{suffix}?{query}"
