"""The cases about reading only what changed: what a backup costs after nothing, a little or everything has changed.

Every round changes the main database a little further and lets everybody who has a backup make another one, so a
change can be measured as often as anything else. pgstow's full read with every Nth backup is put off here and measured
by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.cases import Bench, has_backup, make_repository, measure_backup
from bench.contestants import Contestant, Pgstow, PgstowFullRead, PgstowIntoEmpty, Place
from bench.marketplace import append_one_percent, read_everything, update_everywhere, update_one_percent
from bench.measuring import measure
from bench.relay import Relay
from bench.results import TrafficEntry
from pgstow.core.errors import PgstowError
from pgstow.core.process import run
from pgstow.postgres.server import Cluster

__all__ = ["changes_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """Something done to the database before everybody makes another backup."""

    case: str
    apply: Callable[[str, int], object]  # connection string, number of the round
    peers: bool = True  # whether others than pgstow are asked too
    beside: type[Pgstow] | None = None  # what pgstow is held against


def _changes(rows: int) -> Sequence[_Change]:
    return (
        _Change(case="unchanged", apply=lambda _source, _round: None, beside=PgstowFullRead),
        _Change(case="everywhere", apply=update_everywhere, peers=False, beside=PgstowIntoEmpty),
        _Change(case="appended", apply=lambda source, round_: append_one_percent(source, rows, round_)),
        _Change(case="updated", apply=update_one_percent),
    )


def changes_case(bench: Bench, cluster: Cluster, source: str, rows: int) -> None:
    """Measure every change, then once more what the server sends; the database is not what it was afterwards."""
    peers = [one for one in bench.contestants() if one.backup_again(bench.place(one, cluster, source))]
    ready = [one for one in peers if has_backup(bench, one, bench.place(one, cluster, source))]
    for change in _changes(rows):
        among = [one for one in ready if change.peers or isinstance(one, Pgstow)]
        if change.beside and any(isinstance(one, Pgstow) for one in among):
            beside = change.beside(bench.programs)
            is_ready = isinstance(beside, PgstowIntoEmpty) or has_backup(
                bench, beside, bench.place(beside, cluster, source)
            )
            if is_ready:
                among.append(beside)
        _measure_change(bench, change, among, cluster, source)
        if not change.peers:
            _catch_up(bench, [one for one in ready if not isinstance(one, Pgstow)], cluster, source)
    _count_traffic(bench, cluster, source, ready, rows)


def _catch_up(bench: Bench, peers: Sequence[Contestant], cluster: Cluster, source: str) -> None:
    """Let the others store a change that they were not measured with: it must not count as part of the next one."""
    for one in peers:
        place = bench.place(one, cluster, source)
        steps = one.backup_again(place)
        assert steps is not None
        try:
            measure(steps, env=one.env(place), folder=place.folder)
        except PgstowError as error:
            bench.failed("changes", one, error)


def _measure_change(
    bench: Bench, change: _Change, among: Sequence[Contestant], cluster: Cluster, source: str
) -> None:
    failed: set[str] = set()
    last = -1
    for round_, contestant in bench.rounds(among):
        if contestant.key in failed:
            continue
        if round_ != last:
            change.apply(source, round_)
            read_everything(source)
            last = round_
        place = bench.place(contestant, cluster, source)
        try:
            _measure_once(bench, change, contestant, place, cluster)
        except PgstowError as error:
            bench.failed(change.case, contestant, error)
            failed.add(contestant.key)


def _measure_once(
    bench: Bench, change: _Change, contestant: Contestant, place: Place, cluster: Cluster
) -> None:
    if isinstance(contestant, PgstowIntoEmpty):
        make_repository(contestant, place)
    steps = contestant.backup_again(place)
    assert steps is not None
    measure_backup(
        bench,
        change.case,
        contestant,
        place,
        cluster=cluster,
        steps=steps,
        read_bytes=(lambda: _read_bytes(contestant, place)) if isinstance(contestant, Pgstow) else None,
    )


def _read_bytes(contestant: Pgstow, place: Place) -> int:
    """Return what the newest backup read of the tables' rows, from its own account of itself."""
    shown = run(contestant.show(), env=contestant.env(place), cwd=place.folder)
    tables = json.loads(shown)["manifest"]["tables"]
    return sum(table["size_bytes"] - table["reused_bytes"] for table in tables)


def _count_traffic(
    bench: Bench, cluster: Cluster, source: str, ready: Sequence[Contestant], rows: int
) -> None:
    """Count what the server sends to a plain reader, to a full read, and after each change; nothing here is timed."""
    ours = [one for one in ready if isinstance(one, Pgstow)]
    readers = [one for one in ready if one.key.startswith("restic")][-1:]
    with Relay(cluster) as relay:
        through = relay.source(source)

        def count(what: str, contestant: Contestant) -> None:
            place = bench.place(contestant, cluster, through)
            steps = contestant.backup_again(place)
            assert steps is not None
            try:
                measure(steps, env=contestant.env(place), folder=place.folder)
            except PgstowError as error:
                bench.failed("traffic", contestant, error)
            else:
                _note_traffic(bench, what, contestant, relay.taken())

        for reader in (*readers, *(PgstowFullRead(bench.programs) for _ in ours)):
            count("everything", reader)
        for change in _changes(rows):
            if change.peers:
                change.apply(source, bench.runs)
                for one in ours:
                    count(change.case, one)


def _note_traffic(bench: Bench, what: str, contestant: Contestant, server_bytes: int) -> None:
    bench.results.traffic.append(TrafficEntry(what=what, title=contestant.title, server_bytes=server_bytes))
    bench.progress.print(
        f"  traffic  {contestant.key:14} {what}: {server_bytes / 1e6:.1f} MB from the server", highlight=False
    )
