"""A whole drill against the quickest way to get a database back without looking at it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from bench.cases import Bench, has_backup
from bench.contestants import Contestant, Pgstow, Place, Target, command_text
from bench.measuring import measure
from bench.results import DrillEntry, Entry, PhaseEntry
from bench.servers import drop_database, server, settle
from pgstow.core.errors import PgstowError
from pgstow.postgres.server import Cluster

__all__ = ["drill_case"]

_CASE: Final = "drill"
_RESTORED: Final = "restored"
_CONTESTANTS: Final = ("plain", "pgstow")
# A server as PostgreSQL comes; what the bench changes for the other cases would be to its advantage.
_DEFAULTS: Final = {"fsync": "on"}


def drill_case(bench: Bench, main: Cluster, source: str) -> None:
    """Drill the newest backup, and restore an uncompressed folder of pg_dump into a server with default settings.

    The drill makes a server, restores, compares every row, checks, and removes everything; the other's server is up
    already, and what it restored is not looked at.
    """
    among = [one for one in bench.contestants() if one.key in _CONTESTANTS]
    ready = [one for one in among if has_backup(bench, one, bench.place(one, main, source))]
    with server(bench.work / "side-by-side", settings=_DEFAULTS) as other:
        for _run, contestant in bench.rounds(ready):
            place = bench.place(contestant, main, source)
            try:
                if isinstance(contestant, Pgstow):
                    _drill_once(bench, contestant, place)
                else:
                    _restore_once(bench, contestant, place, other)
            except PgstowError as error:
                bench.failed(_CASE, contestant, error)
            finally:
                drop_database(other, _RESTORED)


def _drill_once(bench: Bench, contestant: Pgstow, place: Place) -> None:
    """Measure one drill; the processor time of its server is its own."""
    folder = bench.work / "drill"  # beside the other server's data, on the same disk
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    report = place.folder / "drill.json"
    steps = contestant.drill(report)
    os.sync()
    measured = measure(steps, env={**contestant.env(place), "TMPDIR": str(folder)}, folder=place.folder)
    bench.record(_CASE, contestant, command_text(steps, place), Entry.of(measured))
    bench.results.drills.append(DrillEntry(wall_s=round(measured.wall_s, 3), phases=_phases(report)))
    folder.rmdir()  # which fails unless the drill left nothing behind


def _restore_once(bench: Bench, contestant: Contestant, place: Place, other: Cluster) -> None:
    target = Target(
        conninfo=other.conninfo(_RESTORED),
        dbname=_RESTORED,
        maintenance=other.conninfo(),
        folder=bench.work / "physical-restore",
    )
    drop_database(other, _RESTORED)
    steps = contestant.restore(place, target)
    assert steps is not None
    settle(other)
    measured = measure(steps, env=contestant.env(place), folder=place.folder, server_pid=other.pid)
    bench.record(_CASE, contestant, command_text(steps, place, target), Entry.of(measured))


def _phases(report: Path) -> list[PhaseEntry]:
    """Return the phases in the record of a drill; what sessions spent on one, where the record says so."""
    record: dict[str, Any] = json.loads(report.read_text())
    return [
        PhaseEntry(
            name=phase["name"],
            begun_s=phase["begun_s"],
            seconds=phase["seconds"],
            busy_s=phase.get("busy_s") or phase["seconds"],
        )
        for phase in record["phases"]
    ]
