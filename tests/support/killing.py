"""The installed command, killed with -9 at a chosen call of one of its stores.

It is the real command in a process of its own. What is done there before pgstow is loaded (``install``) puts a
FaultyStore around every store that it opens, below the retries, and nothing else is replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pgstow.store import opening
from pgstow.store.api import Store
from support.command import Finished, Pgstow
from support.fault_world import TRY_ALL, tell
from support.faults import Fault, FaultyStore, Kind, Point

__all__ = ["AT_READS", "AT_WRITES", "Kill", "Killing", "install", "noting"]

AT_WRITES = (Kind.KILL_BEFORE, Kind.KILL_DURING, Kind.KILL_AFTER)
AT_READS = (Kind.KILL_AT_READ,)

_PLAN = "KILLING_PLAN"
_SUBSTITUTES = 4  # calls before one that was not made again, of which any will do


@dataclass(frozen=True, slots=True)
class Kill:
    """The command dies when the ``store``-th store that it opens, counted from 0, is called at ``point``."""

    store: int
    kind: Kind
    point: Point

    def __str__(self) -> str:
        return f"{self.kind.title} {self.point} of store {self.store}"


class Killing:
    """A command, and the folder of repositories on which it works, copied from a template for every try."""

    def __init__(
        self,
        pgstow: Pgstow,
        arguments: Sequence[str],
        *,
        template: Path,
        folder: Path,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """``before`` prepares what else is to be as before, each time."""
        self._before = before
        self._pgstow = pgstow
        self._killable = replace(pgstow, first="support.killing:install")
        self._arguments = arguments
        self._template = template
        self._folder = folder
        self.state = folder.with_name(
            f"{folder.name}-state"
        )  # else the host remembers repositories copied anew

    def kills(self, title: str, kinds: Sequence[Kind], tries: int) -> Iterator[Kill]:
        """Run the command to its end; then kill it at each of its calls, or at ``tries`` of them far from each other.

        The folder holds what the killed command left when each is yielded.
        """
        calls = self._calls()
        found = [
            Kill(store, kind, point)
            for store, point in calls
            for kind in kinds
            if point.method in kind.methods
        ]
        number = len(found) if TRY_ALL else min(tries, len(found))
        killed = 0
        for each in range(number):
            place = (2 * each + 1) * len(found) // (2 * number)
            # Threads that share a request or not make the number of some calls differ.
            earlier = 0 if TRY_ALL else min(place, _SUBSTITUTES)
            for kill in (found[place - back] for back in range(earlier + 1)):
                if self._is_killed(kill):
                    killed += 1
                    yield kill
                    break
        points = len({(kill.store, kill.point) for kill in found})
        tell(operation=f"{title}, killed", points=points, pairs=len(found), tried=number, hit=killed)
        missed = number - killed
        assert killed and missed <= number // 10, (
            "too many calls were not made again for this to mean anything"
        )

    def again(self, *arguments: str) -> Finished:
        """Run the command undisturbed on what there is."""
        return self._pgstow(*self._arguments, *arguments, PGSTOW_STATE_DIR=str(self.state))

    def _calls(self) -> list[tuple[int, Point]]:
        """Return all calls that the command makes of its stores, in their order."""
        trace = self._folder.with_name(f"{self._folder.name}-trace")
        trace.touch()
        assert self._run({"trace": str(trace)}) == 0
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        return [(store, Point(*point)) for store, point in lines]

    def _is_killed(self, kill: Kill) -> bool:
        point = [kill.point.method, kill.point.folder, kill.point.number]
        status = self._run({"store": kill.store, "kind": kill.kind.name, "point": point})
        assert status in (0, -signal.SIGKILL)
        return status != 0

    def _run(self, plan: Mapping[str, object]) -> int:
        """Run the command on a fresh copy of the template and return how it ended."""
        for each in (self._folder, self.state):
            shutil.rmtree(each, ignore_errors=True)
        shutil.copytree(self._template, self._folder)
        self._before()
        environ = {_PLAN: json.dumps(plan), "PGSTOW_STATE_DIR": str(self.state)}
        return self._killable(*self._arguments, **environ).code


def install() -> None:
    """In the command's process: let every store that it opens do what the plan in its environment says."""
    plain, numbers = opening.open_store, itertools.count()

    def open_store(location: str, environ: Mapping[str, str]) -> Store:
        number = next(numbers)
        plan = json.loads(os.environ[_PLAN])
        trace = os.open(plan["trace"], os.O_WRONLY | os.O_APPEND) if "trace" in plan else None

        def passing(point: Point) -> None:
            if trace is not None:
                line = [number, [point.method, point.folder, point.number]]
                os.write(trace, json.dumps(line).encode() + b"\n")

        faulty = FaultyStore(plain(location, environ), passing=passing)
        if plan.get("store") == number:
            faulty.fault, faulty.at = Fault(Kind[plan["kind"]]), Point(*plan["point"])
        return faulty

    opening.open_store = open_store


@contextlib.contextmanager
def noting(kill: Kill) -> Iterator[None]:
    """Say of a failure in the block where the command had been killed."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(str(kill))
        raise
