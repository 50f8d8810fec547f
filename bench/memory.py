"""The memory case: what pgstow's processes take together, and how that grows with the data.

Two measurements stand for the terabyte that no bench has room for. Databases of two sizes show whether the peak
moves; the slope of memory over data read, within the larger backup, says by how much, and its standard
error how surely. A repository that already knows as many blobs as a terabyte leaves shows what the
index costs, with nothing extrapolated.
"""

from __future__ import annotations

import math
import random
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.cases import Bench, make_repository
from bench.contestants import Contestant, Place
from bench.marketplace import load_wide
from bench.measuring import Measurement, MemorySample, measure
from bench.results import MemoryEntry
from bench.servers import create_database, database_bytes, drop_database, settle
from pgstow.core.errors import PgstowError
from pgstow.core.secrets import Secret
from pgstow.postgres.server import Cluster
from pgstow.repository import BlobKind, Repository
from pgstow.store.opening import open_store

__all__ = ["TERABYTE", "memory_case"]

TERABYTE: Final = 1_000_000_000_000
_DATABASE: Final = "wide"
_SMALL_SHARE: Final = 0.1
_FILLER_BYTES: Final = 1024  # of a blob that only has to be in the index
_FEWEST_SAMPLES: Final = 50
_WORKERS: Final = 2


def memory_case(bench: Bench, side: Cluster, *, size_bytes: int, index_of_bytes: int) -> None:
    """Measure the peak on a small and a large database, and with the index that ``index_of_bytes`` of data leave."""
    contestant = next((one for one in bench.contestants() if one.key == "pgstow"), None)
    if contestant is None:
        return
    small, large = int(size_bytes * _SMALL_SHARE), size_bytes
    try:
        source = _database(side, small)
        counts = [_measure_one(bench, contestant, side, source) for _ in range(bench.runs)]
        known = _Known(bytes=index_of_bytes, blobs=math.ceil(index_of_bytes * counts[-1] / small))
        _measure_one(bench, contestant, side, source, known)
        source = _database(side, large)
        for _ in range(bench.runs):
            _measure_one(bench, contestant, side, source)
    except PgstowError as error:
        bench.failed("memory", contestant, error)
    finally:
        drop_database(side, _DATABASE)


def _database(side: Cluster, size_bytes: int) -> str:
    source = create_database(side, _DATABASE)
    load_wide(source, size_bytes)
    return source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a repository holds before a backup: so many blobs, as so much data would have left."""

    bytes: int = 0
    blobs: int = 0


_NOTHING: Final = _Known()


def _measure_one(
    bench: Bench, contestant: Contestant, side: Cluster, source: str, known: _Known = _NOTHING
) -> int:
    """Measure one backup into a repository of its own; return how many blobs that has afterwards."""
    place = bench.place(contestant, side, source)
    make_repository(contestant, place)
    if known.blobs:
        _fill_index(contestant, place, known.blobs)
    settle(side)
    size = database_bytes(source)
    measured = measure(
        contestant.backup(place), env=contestant.env(place), folder=place.folder, server_pid=side.pid
    )
    slope = _growth(measured, size)
    entry = MemoryEntry(
        database_bytes=size,
        known_blobs=known.blobs,
        known_data_bytes=known.bytes,
        wall_s=round(measured.wall_s, 3),
        peak_bytes=measured.peak_bytes,
        growth_bytes_per_tb=round(slope.per_byte * TERABYTE) if slope else None,
        growth_error=round(slope.error * TERABYTE) if slope else None,
    )
    bench.results.memory.append(entry)
    bench.progress.print(
        f"  memory   {size / 1e9:.2f} GB, {known.blobs} blobs before: {entry.wall_s:.2f} s,"
        f" {entry.peak_bytes / 1e6:.0f} MB memory",
        highlight=False,
    )
    repository = _open(contestant, place)
    repository.load_index()
    blobs = sum(len(pack.entries) for pack in repository.indexed_packs())
    shutil.rmtree(place.folder)
    return blobs


@dataclass(frozen=True, slots=True)
class _Slope:
    per_byte: float
    error: float


def _growth(measured: Measurement, size_bytes: int) -> _Slope | None:
    """Return memory over data read in the second half, once buffers and caches have filled.

    Reading is taken to be steady. The last twentieth is left out: there the backup winds down.
    """
    begin, end = measured.wall_s * 0.5, measured.wall_s * 0.95
    samples = [sample for sample in measured.samples if begin <= sample.after_s <= end]
    if len(samples) < _FEWEST_SAMPLES:
        return None
    return _regression(samples, size_bytes / measured.wall_s)


def _regression(samples: Sequence[MemorySample], bytes_per_s: float) -> _Slope:
    """Return the least-squares slope with the standard error of its residuals."""
    read = [sample.after_s * bytes_per_s for sample in samples]
    memory = [float(sample.bytes) for sample in samples]
    slope, intercept = statistics.linear_regression(read, memory)
    residuals = sum((m - intercept - slope * r) ** 2 for r, m in zip(read, memory, strict=True))
    spread = sum((r - statistics.fmean(read)) ** 2 for r in read)
    return _Slope(slope, (residuals / (len(samples) - 2) / spread) ** 0.5)


def _fill_index(contestant: Contestant, place: Place, blobs: int) -> None:
    """Put blobs that no backup refers to into the repository: reproducible, all different, each indexed."""
    repository = _open(contestant, place)
    share = -(-blobs // _WORKERS)
    with repository.lock(), repository.writer() as writer, ThreadPoolExecutor(_WORKERS) as workers:

        def fill(seed: int) -> None:
            source = random.Random(seed)
            for _ in range(share):
                writer.save(BlobKind.DATA, source.randbytes(_FILLER_BYTES))

        for done in [workers.submit(fill, seed) for seed in range(_WORKERS)]:
            done.result()
        writer.flush()


def _open(contestant: Contestant, place: Place) -> Repository:
    return Repository.open(
        open_store(str(place.repository), {}), Secret(contestant.env(place)["PGSTOW_PASSWORD"])
    )
