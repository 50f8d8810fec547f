"""Noticing a server that has gone silent.

TCP tells when a peer is gone, not when something in between accepts everything and passes nothing on. Silence alone
proves nothing, as an index may take hours to build; so after some of it another session asks whether ours is still at
work. A process of the server that was stopped in the middle of its work looks as if it were.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.abc import PQGen

from pgstow.core.errors import ConnectionFailed, PgstowError
from pgstow.core.process import Process
from pgstow.postgres.conninfo import ConnInfo

__all__ = ["WatchedConnection", "watching_program"]

_SILENCE_S = 900.0
_ANSWER_S = 20.0
_WAKE_S = 0.1
_HINT = "look at the network between here and the server, and at what the session waits for"

_Result = TypeVar("_Result")


class WatchedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no statement waits for ever: ConnectionFailed when the server is not at work on it."""

    _same_server: ConnInfo | None = None
    _server_pid = 0

    def watch(self, conninfo: ConnInfo, server_pid: int) -> None:
        """Say how another session gets here, and which of the server's processes works for us."""
        found = {"host": self.info.host, "port": str(self.info.port)}
        if self.info.hostaddr:  # of a name with several addresses this one
            found["hostaddr"] = self.info.hostaddr
        self._same_server, self._server_pid = conninfo.with_place(**found), server_pid

    def wait(self, gen: PQGen[_Result], interval: float = _WAKE_S, timeout: float | None = None) -> _Result:
        return super().wait(self._listen(gen), interval=interval, timeout=timeout)

    def _listen(self, gen: PQGen[_Result]) -> PQGen[_Result]:
        """Pass a generator's wishes on, and raise when none of them was fulfilled for too long."""
        heard = time.monotonic()
        try:
            wish = next(gen)
            while True:
                ready = yield wish
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._patience_s:
                    self.refuse_silence(self._patience_s)
                    heard = time.monotonic()
                wish = gen.send(ready)
        except StopIteration as exc:
            result: _Result = exc.value
            return result

    @property
    def _patience_s(self) -> float:
        return _SILENCE_S if self._same_server is not None else _ANSWER_S

    def refuse_silence(self, silence_s: float) -> None:
        """Raise ConnectionFailed, after so much silence, unless the server is at work on what was sent to it.

        The connection is closed then: whoever tidies up must not wait for it again.
        """
        silence = f"the server sent nothing for {silence_s:.0f} s"
        if self._same_server is not None:
            found = _activity(self._same_server, "pid = %s", self._server_pid)
            if found is not None and found.is_at_work:
                return
            silence += " and is not at work for this session"
        self.close()
        raise ConnectionFailed(silence, hint=_HINT)


class _Activity(NamedTuple):
    """What some sessions do: whether any is at work, and when one last changed what it does (None: there is none)."""

    is_at_work: bool
    changed: datetime | None

    def is_idle_since(self, earlier: _Activity) -> bool:
        """Whether nothing has happened, or the sessions are gone."""
        return not self.is_at_work and self.changed in (None, earlier.changed)


def _activity(conninfo: ConnInfo, condition: str, value: object) -> _Activity | None:
    """Return what the sessions of a condition do, or None if there is no answer either.

    A server that waits for its client to read or to send something is not at work. One that has no room for another
    session may be.
    """
    query = (
        "SELECT coalesce(bool_or(state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'), false),"
        f" max(state_change) FROM pg_catalog.pg_stat_activity WHERE {condition}"
    )
    text = conninfo.with_defaults(connect_timeout=f"{max(2.0, _ANSWER_S):.0f}").connect_string()
    try:
        with contextlib.closing(WatchedConnection.connect(text, autocommit=True)) as fresh:
            fresh.execute(
                "SELECT pg_catalog.set_config('search_path', '', false)"
            )  # the owner's is not to be trusted
            row = fresh.execute(query.encode(), (value,)).fetchone()
    except (psycopg.errors.ConnectionTimeout, ConnectionFailed):
        return None
    except psycopg.Error:
        return _Activity(is_at_work=True, changed=None)
    assert row is not None
    return _Activity(*row)


@contextlib.contextmanager
def watching_program(process: Process, conninfo: ConnInfo, application_name: str) -> Iterator[None]:
    """End a program of PostgreSQL whose sessions do nothing any more; what the block raises then is ConnectionFailed.

    One whose sessions were never seen, perhaps because they go by another name, is left alone while the server answers.
    """
    ended, was_silent = threading.Event(), threading.Event()

    def watch() -> None:
        before: _Activity | None = None
        while not ended.wait(_SILENCE_S):
            found = _activity(conninfo, "application_name = %s", application_name)
            if found is None or (before is not None and found.is_idle_since(before)):
                was_silent.set()
                process.kill()
                return
            before = found if found.changed is not None else before

    thread = threading.Thread(target=watch, name=f"{process.name}-watch", daemon=True)
    thread.start()
    try:
        yield
    except PgstowError as exc:
        if not was_silent.is_set():
            raise
        raise ConnectionFailed(
            f"{process.name} was ended: nothing happened in its sessions for {_SILENCE_S:.0f} s", hint=_HINT
        ) from exc
    finally:
        ended.set()
        thread.join()
