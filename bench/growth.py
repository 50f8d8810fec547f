"""The cases about size and distance: how the cost of a backup grows with the database, and what a far store adds."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Final

from bench.bucket import Bucket, bucket
from bench.cases import Bench, make_repository, measure_backup, read_once
from bench.contestants import Contestant, Pgstow, PgstowInBucket, Place
from bench.marketplace import count_ledger_rows, grow_ledgers
from bench.measuring import Measurement, folder_bytes, measure
from bench.results import GrowthEntry
from bench.servers import create_database, database_bytes, drop_database, settle
from pgstow.core.errors import PgstowError
from pgstow.postgres.server import Cluster

__all__ = ["DELAY_MS", "distance_case", "growth_case"]

DELAY_MS: Final = 50
_DATABASE: Final = "ledgers"


def growth_case(bench: Bench, side: Cluster, sizes_bytes: Sequence[int]) -> None:
    """Grow one database from size to size, and measure a first and an unchanged backup at each."""
    if not _takes_part(bench):
        return
    ours = Pgstow(bench.programs)
    source = create_database(side, _DATABASE)
    try:
        for size_bytes in sizes_bytes:
            grow_ledgers(source, size_bytes)
            _measure_size(bench, ours, side, source)
    except PgstowError as error:
        bench.failed("growth", ours, error)
    finally:
        drop_database(side, _DATABASE)


def _takes_part(bench: Bench) -> bool:
    return any(isinstance(one, Pgstow) for one in bench.contestants())


def _measure_size(bench: Bench, ours: Pgstow, side: Cluster, source: str) -> None:
    place = bench.place(ours, side, source)
    make_repository(ours, place)
    settle(side)
    first = _measure(ours, place, side, again=False)
    again = [_measure(ours, place, side, again=True) for _ in range(bench.runs)]
    repository_bytes, index_bytes = folder_bytes(place.repository), folder_bytes(place.repository / "index")
    shutil.rmtree(place.folder)
    first_requests, again_requests = _count_requests(bench, side, source)
    entry = GrowthEntry(
        database_bytes=database_bytes(source),
        rows=count_ledger_rows(source),
        first_s=round(first.wall_s, 3),
        first_peak_bytes=first.peak_bytes,
        again_s=round(statistics.median(one.wall_s for one in again), 3),
        again_cpu_s=round(statistics.median(one.cpu_s for one in again), 2),
        again_server_cpu_s=round(statistics.median(one.server_cpu_s for one in again), 2),
        again_peak_bytes=max(one.peak_bytes for one in again),
        repository_bytes=repository_bytes,
        index_bytes=index_bytes,
        first_requests=dict(first_requests),
        again_requests=dict(again_requests),
    )
    bench.results.growth.append(entry)
    bench.progress.print(
        f"  growth   {entry.database_bytes / 1e9:.2f} GB: first {entry.first_s:.2f} s, unchanged {entry.again_s:.2f} s,"
        f" {again_requests.total()} requests, index {index_bytes / 1e6:.2f} MB",
        highlight=False,
    )


def _measure(ours: Contestant, place: Place, side: Cluster, *, again: bool) -> Measurement:
    steps = ours.backup_again(place) if again else ours.backup(place)
    assert steps is not None
    return measure(steps, env=ours.env(place), folder=place.folder, server_pid=side.pid)


def _count_requests(bench: Bench, side: Cluster, source: str) -> tuple[Counter[str], Counter[str]]:
    """Return what a first and an unchanged backup ask of a bucket; not timed."""
    with bucket(bench.work / "contestants") as near:
        ours = _near(bench, near)
        place = bench.place(ours, side, source)
        make_repository(ours, place)
        counted = [near.counts()]
        for again in (False, True):
            _measure(ours, place, side, again=again)
            counted.append(near.counts())
        shutil.rmtree(place.folder)
    return counted[1] - counted[0], counted[2] - counted[1]


def _near(bench: Bench, near: Bucket) -> PgstowInBucket:
    return PgstowInBucket(bench.programs, near, key="bucket", title="pgstow, bucket without latency")


def distance_case(bench: Bench, cluster: Cluster, source: str) -> None:
    """Back up to a folder, to a bucket on this machine, and to one whose every answer comes late."""
    if not _takes_part(bench):
        return
    folder = Pgstow(bench.programs)
    folder.key, folder.title = "folder", "pgstow, local folder"
    kept = bench.work / "contestants"
    with bucket(kept) as near, bucket(kept, delay_ms=DELAY_MS) as far:
        late = PgstowInBucket(bench.programs, far, key="late", title=f"pgstow, bucket {DELAY_MS} ms away")
        among = (folder, _near(bench, near), late)
        read_once(bench, among, cluster, source)
        for _run, contestant in bench.rounds(among):
            place = bench.place(contestant, cluster, source)
            try:
                make_repository(contestant, place)
                steps = contestant.backup(place)
                measure_backup(bench, "first-distance", contestant, place, cluster=cluster, steps=steps)
                again = contestant.backup_again(place)
                assert again is not None
                measure_backup(bench, "second-distance", contestant, place, cluster=cluster, steps=again)
            except PgstowError as error:
                bench.failed("distance", contestant, error)
            finally:
                shutil.rmtree(place.folder, ignore_errors=True)
