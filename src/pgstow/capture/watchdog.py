"""Noticing, during a backup, that others suffer from it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pgstow.capture.cancellation import Cancellation
from pgstow.core.errors import GaveWay, PgstowError
from pgstow.core.progress import Progress
from pgstow.postgres import catalogs
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect, translated

__all__ = ["watching_lock_queues"]

_INTERVAL_S = 2.0


@contextlib.contextmanager
def watching_lock_queues(
    conninfo: ConnInfo,
    cancellation: Cancellation,
    *,
    max_blocking_s: float,
    progress: Progress,
) -> Iterator[None]:
    """End the backup with GaveWay once a session has waited ``max_blocking_s`` for a lock that one of ours has.

    ACCESS SHARE stops nobody but ACCESS EXCLUSIVE; yet behind a queued ACCESS EXCLUSIVE every query on that
    table waits. 0 means that the backup never gives way.
    """
    if not max_blocking_s:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        try:
            with contextlib.closing(connect(conninfo, settings=CAPTURE_SETTINGS)) as connection:
                _watch(
                    connection,
                    cancellation,
                    ended=ended,
                    max_blocking_s=max_blocking_s,
                    progress=progress,
                )
        except PgstowError as exc:
            progress.note(f"waiting sessions cannot be watched: {exc}")  # the backup itself is not affected

    thread = threading.Thread(target=watch, name="lock-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(
    connection: Connection,
    cancellation: Cancellation,
    *,
    ended: threading.Event,
    max_blocking_s: float,
    progress: Progress,
) -> None:
    first_seen: dict[int, float] = {}
    while not ended.wait(min(_INTERVAL_S, max_blocking_s / 2)):
        with translated("looking for waiting sessions"):
            waiters = dict(catalogs.lock_waiters(connection, cancellation.pids))
        now = time.monotonic()
        first_seen = {pid: first_seen.get(pid, now) for pid in waiters}
        for pid, since in first_seen.items():
            table = catalogs.text(waiters[pid])
            if since == now:
                progress.note(
                    f"session {pid} waits for an exclusive lock on {table}, which this backup reads"
                )
            if now - since >= max_blocking_s:
                cancellation.because(
                    GaveWay(
                        f"gave way to session {pid}, which had waited {now - since:.0f} s to lock {table}",
                        hint="run the backup when no migration runs, or raise --max-blocking (0: never give way)",
                        pid=pid,
                        table=table,
                    )
                )
                return
