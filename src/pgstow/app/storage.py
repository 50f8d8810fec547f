"""Measuring how much room is left where repositories are, and what it was before."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pgstow.core.errors import StateError, StoreError
from pgstow.monitor.storage import Sample, StorageFacts, forecast_full, growth_of
from pgstow.state.samples import StorageSample, StorageSamples
from pgstow.store.api import Store

__all__ = ["observe_storage"]

T = TypeVar("T")

_EVERY = timedelta(hours=1)  # listing a bucket is not free, and no forecast needs more
_RECENT = timedelta(days=30)


def observe_storage(
    name: str,
    store: Store,
    folder: Path | None,
    *,
    quota_bytes: int | None,
    now: datetime,
    samples: StorageSamples | None,
) -> tuple[StorageFacts, ...]:
    """Return what is known of the disk of a repository, and of its quota; a bucket has no disk.

    A bucket without a quota is listed only where its growth can be kept in ``samples``. What was measured less than an hour ago is not measured again, as far as ``samples`` tell. Raises StoreError.
    """
    found = []
    if folder is not None:
        found.append(_disk(folder, now, samples))
    if quota_bytes is not None or (folder is None and samples is not None):
        found.append(_objects(name, store, quota_bytes, now, samples))
    return tuple(found)


def _disk(folder: Path, now: datetime, samples: StorageSamples | None) -> StorageFacts:
    place = f"disk {socket.gethostname()} {folder}"
    try:
        usage = shutil.disk_usage(folder)
    except OSError as exc:
        raise StoreError(f"how much room is left at {folder} cannot be told: {exc.strerror}") from exc
    current = StorageSample(
        place=place, time=now, used_bytes=usage.used, free_bytes=usage.free, total_bytes=usage.total
    )
    history = _kept(current, _history(place, now, samples), samples)
    return _facts(f"disk of {folder}", current, current.free_bytes, current.total_bytes, history, now)


def _objects(
    name: str, store: Store, quota_bytes: int | None, now: datetime, samples: StorageSamples | None
) -> StorageFacts:
    place = f"repository {name}"
    history = _history(place, now, samples)
    if history and timedelta(0) <= now - history[-1].time < _EVERY:
        current = history[-1]
    else:
        used_bytes = sum(info.size_bytes for info in store.list(""))
        current = StorageSample(place=place, time=now, used_bytes=used_bytes)
        history = _kept(current, history, samples)
    free_bytes = None if quota_bytes is None else max(quota_bytes - current.used_bytes, 0)
    return _facts(f"repository {name}", current, free_bytes, quota_bytes, history, now)


def _history(place: str, now: datetime, samples: StorageSamples | None) -> list[StorageSample]:
    """Return the samples until now: one from times to come, of a clock that was wrong, would be the newest until then."""
    nothing: list[StorageSample] = []
    found = _unless_away(lambda: samples.of(place, since=now - _RECENT) if samples else nothing, nothing)
    return [each for each in found if each.time <= now]


def _kept(
    current: StorageSample, history: list[StorageSample], samples: StorageSamples | None
) -> list[StorageSample]:
    if history and current.time - history[-1].time < _EVERY:
        return history
    if samples is not None:
        _unless_away(lambda: samples.add(current), None)
    return [*history, current]


def _unless_away(ask: Callable[[], T], otherwise: T) -> T:
    """Return the answer; ``otherwise`` while the state database is away: what is free now matters more than the forecast."""
    try:
        return ask()
    except StateError:
        return otherwise


def _facts(
    where: str,
    current: StorageSample,
    free_bytes: int | None,
    total_bytes: int | None,
    history: list[StorageSample],
    now: datetime,
) -> StorageFacts:
    growth = growth_of([Sample(time=each.time, used_bytes=each.used_bytes) for each in history])
    return StorageFacts(
        where=where,
        used_bytes=current.used_bytes,
        free_bytes=free_bytes,
        total_bytes=total_bytes,
        growth=growth,
        forecast_full=None if free_bytes is None else forecast_full(now, free_bytes, growth),
    )
