"""The cases that compare contestants at the whole job: backup, restore, tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.checking import check_equal
from bench.contestants import Contestant, Place, Programs, Target, command_text, contestants
from bench.measuring import Measurement, Steps, folder_bytes, measure
from bench.results import Entry, Results, Series
from bench.servers import drop_database, settle
from pgstow.core.errors import PgstowError
from pgstow.postgres.server import Cluster

__all__ = [
    "Bench",
    "backup_case",
    "has_backup",
    "make_repository",
    "measure_backup",
    "read_once",
    "restore_case",
    "tables_case",
]

_RESTORED: Final = "restored"
_RESTORES: Final = frozenset({"restore", "drill"})
_TABLES_CONTESTANTS: Final = ("directory", "pgstow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every case needs: who takes part, how often, where, and where the results go."""

    programs: Programs
    chosen: frozenset[str]  # keys of contestants; empty for all
    runs: int
    work: Path
    results: Results
    progress: Console

    def contestants(self) -> list[Contestant]:
        """Return who takes part; who is not installed is noted once and left out."""
        installed = []
        for contestant in contestants(self.programs):
            if self.chosen and not contestant.key.startswith(tuple(self.chosen)):
                continue
            if contestant.is_installed():
                installed.append(contestant)
            else:
                self.note(f"{contestant.key} is not installed and was left out")
        return installed

    def rounds(self, among: Sequence[Contestant]) -> Iterator[tuple[int, Contestant]]:
        """Yield every contestant of every run, each run starting with another one."""
        for run in range(self.runs):
            shift = run % len(among) if among else 0
            for contestant in (*among[shift:], *among[:shift]):
                yield run, contestant

    def place(self, contestant: Contestant, cluster: Cluster, source: str) -> Place:
        return Place(
            folder=self.work / "contestants" / contestant.key,
            source=source,
            data_dir=cluster.data_dir,
            socket_dir=cluster.socket_dir,
            port=cluster.port,
        )

    def record(self, case: str, contestant: Contestant, command: str, entry: Entry) -> None:
        series = self.results.one(case, contestant.key)
        if series is None:
            series = Series(
                case=case,
                contestant=contestant.key,
                title=(case in _RESTORES and contestant.restore_title) or contestant.title,
                command=command,
            )
            self.results.series.append(series)
        series.entries.append(entry)
        stored = "" if entry.stored_bytes is None else f"{entry.stored_bytes / 1e6:9.1f} MB stored"
        self.progress.print(
            f"  {case:8} {contestant.key:14} {entry.wall_s:8.2f} s {entry.peak_bytes / 1e6:7.0f} MB memory{stored}",
            highlight=False,
        )

    def note(self, text: str) -> None:
        """Keep a remark for the results, once."""
        if text not in self.results.notes:
            self.results.notes.append(text)
            self.progress.print(f"note: {text}", style="yellow", highlight=False, markup=False)

    def failed(self, case: str, contestant: Contestant, error: PgstowError) -> None:
        """Keep that a contestant failed, and go on with the others; the terminal alone gets the whole message."""
        self.progress.print(error.message, style="red", highlight=False, markup=False)
        self.results.failures.append(f"{case}: {contestant.key} failed ({error.code})")


def make_repository(contestant: Contestant, place: Place) -> None:
    """Give the contestant an empty folder and an empty repository in it."""
    shutil.rmtree(place.folder, ignore_errors=True)
    place.repository.mkdir(parents=True)
    measure(contestant.prepare(place), env=contestant.env(place), folder=place.folder)


def measure_backup(
    bench: Bench,
    case: str,
    contestant: Contestant,
    place: Place,
    *,
    cluster: Cluster,
    steps: Steps,
    read_bytes: Callable[[], int] | None = None,
) -> Measurement:
    """Measure one backup and record it with what the repository grew by; ``read_bytes`` is asked afterwards."""
    before = folder_bytes(place.repository)
    settle(cluster)
    measured = measure(steps, env=contestant.env(place), folder=place.folder, server_pid=cluster.pid)
    grown = folder_bytes(place.repository) - before
    entry = Entry.of(measured, grown, read_bytes() if read_bytes else None)
    bench.record(case, contestant, command_text(steps, place), entry)
    return measured


def backup_case(bench: Bench, cluster: Cluster, source: str) -> None:
    """First backup into an empty repository, then a second one of the unchanged database.

    Leaves the repositories of the last run for the cases after it.
    """
    among = bench.contestants()
    read_once(bench, among, cluster, source)
    for _run, contestant in bench.rounds(among):
        place = bench.place(contestant, cluster, source)
        try:
            make_repository(contestant, place)
            measure_backup(bench, "first", contestant, place, cluster=cluster, steps=contestant.backup(place))
            again = contestant.backup_again(place)
            if again is not None:
                measure_backup(bench, "second", contestant, place, cluster=cluster, steps=again)
        except PgstowError as error:
            bench.failed("backup", contestant, error)
            shutil.rmtree(place.folder, ignore_errors=True)


def read_once(bench: Bench, among: Sequence[Contestant], cluster: Cluster, source: str) -> None:
    """Let one unmeasured backup fill the file cache, so that the first contestant does not pay for all."""
    if not among:
        return
    contestant = among[0]
    place = bench.place(contestant, cluster, source)
    make_repository(contestant, place)
    measure(contestant.backup(place), env=contestant.env(place), folder=place.folder)


def has_backup(bench: Bench, contestant: Contestant, place: Place) -> bool:
    """Whether the contestant has a backup, made now if the backup case did not leave one; False if it fails."""
    if place.folder.exists():
        return True
    try:
        make_repository(contestant, place)
        measure(contestant.backup(place), env=contestant.env(place), folder=place.folder)
    except PgstowError as error:
        bench.failed("backup", contestant, error)
        shutil.rmtree(place.folder, ignore_errors=True)
        return False
    return True


def restore_case(bench: Bench, main: Cluster, source: str, side: Cluster) -> None:
    """Restore into a fresh database of a second server; what pgstow restored is compared with the source."""
    asked = [
        one
        for one in bench.contestants()
        if one.restore(bench.place(one, main, source), _target(bench, side))
    ]
    ready = [one for one in asked if has_backup(bench, one, bench.place(one, main, source))]
    for run, contestant in bench.rounds(ready):
        place, target = bench.place(contestant, main, source), _target(bench, side)
        steps = contestant.restore(place, target)
        assert steps is not None
        try:
            _restore_once(bench, contestant, place, target, side=side, steps=steps)
            if contestant.key == "pgstow" and run == bench.runs - 1:
                check_equal(source, target.conninfo)
                bench.results.database["restored_equals_source"] = True
        except PgstowError as error:
            bench.failed("restore", contestant, error)
        finally:
            drop_database(side, _RESTORED)
            shutil.rmtree(target.folder, ignore_errors=True)


def _restore_once(
    bench: Bench, contestant: Contestant, place: Place, target: Target, *, side: Cluster, steps: Steps
) -> None:
    if contestant.is_physical:
        target.folder.mkdir(parents=True)
    drop_database(side, _RESTORED)
    settle(side)
    server_pid = None if contestant.is_physical else side.pid
    measured = measure(steps, env=contestant.env(place), folder=place.folder, server_pid=server_pid)
    bench.record("restore", contestant, command_text(steps, place, target), Entry.of(measured))


def _target(bench: Bench, side: Cluster) -> Target:
    return Target(
        conninfo=side.conninfo(_RESTORED),
        dbname=_RESTORED,
        maintenance=side.conninfo(),
        folder=bench.work / "physical-restore",
    )


def tables_case(bench: Bench, side: Cluster, source: str) -> None:
    """Back up a database of very many small tables into an empty repository."""
    among = [contestant for contestant in bench.contestants() if contestant.key in _TABLES_CONTESTANTS]
    read_once(bench, among, side, source)
    for _run, contestant in bench.rounds(among):
        place = bench.place(contestant, side, source)
        try:
            make_repository(contestant, place)
            measure_backup(bench, "tables", contestant, place, cluster=side, steps=contestant.backup(place))
        except PgstowError as error:
            bench.failed("tables", contestant, error)
        finally:
            shutil.rmtree(place.folder, ignore_errors=True)
