"""Carrying out orders: each in a process of its own, the command that a person would call.

So one that is killed, or runs out of memory, takes nothing else with it, and can be interrupted like any other. It is
a host by itself: when the service dies it goes on to its end, and nobody begins its run again meanwhile.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from pgstow.core.process import Process
from pgstow.jobs.dispatch import Order

__all__ = ["Workers"]

_POLL_S = 0.2
_LONGEST_END_S = 120.0  # from being interrupted to having cleaned up


class Workers:
    """The runs under way on this host. ``command`` says how an order is called, ``note`` hears of beginning and end."""

    def __init__(self, command: Callable[[Order], Sequence[str]], note: Callable[[str], None]) -> None:
        self._command = command
        self._note = note
        self._processes: dict[str, Process] = {}
        self._lock = threading.RLock()  # kill() may be called by a signal within stop()
        self._is_stopping = False
        self.ended: dict[int, int] = {}  # how many runs ended with which exit status

    def carry_out(self, order: Order) -> int | None:
        """Run an order to its end and return the exit status; None if none is begun any more.

        Raises ProcessFailed or ToolMissing when it cannot be started.
        """
        with self._lock:
            if self._is_stopping:
                return None
            process = Process(self._command(order), stdout=subprocess.DEVNULL, shares_stderr=True)
            self._processes[order.id] = process
        self._note(f"{order.key}: begun, attempt {order.attempt} (process {process.pid})")
        try:
            status = process.wait()
        finally:
            with self._lock:
                del self._processes[order.id]
        self._note(f"{order.key}: {_ending(status)}")
        self.ended[status] = self.ended.get(status, 0) + 1
        return status

    def stop(self, grace_s: float) -> None:
        """Begin nothing more; wait so long for what is under way, then interrupt it, and in the end kill it."""
        with self._lock:
            self._is_stopping = True
        if self._processes and grace_s:
            self._note(f"waiting up to {grace_s:.0f} s for the runs under way: {len(self._processes)}")
        self._wait(grace_s)
        for process in self._under_way():
            process.terminate()
        self._wait(_LONGEST_END_S)
        self.kill()

    def kill(self) -> None:
        """End everything at once."""
        for process in self._under_way():
            process.kill()

    def _under_way(self) -> list[Process]:
        with self._lock:
            return list(self._processes.values())

    def _wait(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while self._under_way() and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)


def _ending(status: int) -> str:
    if status < 0:
        return f"ended by signal {-status}"
    words = {0: "done", 3: "partly done", 11: "gave way", 130: "interrupted"}
    return words.get(status, f"failed with exit status {status}")
