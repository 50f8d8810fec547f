"""Settings of throwaway servers fit the machine."""

from __future__ import annotations

import pytest

from pgstow.postgres.throwaway_settings import throwaway_settings

_MIB = 1 << 20


def mib(setting: str) -> float:
    assert setting.endswith("kB")
    return int(setting.removesuffix("kB")) / 1024


@pytest.mark.parametrize(
    ("memory_mib", "cpus", "shared_buffers", "a_build"),
    [(24_000, 2, 128, 256), (24_000, 64, 128, 64), (512, 1, 64, 64), (90, 4, 11.25, 30), (1, 0, 1, 16)],
)
def test_memory(memory_mib: int, cpus: int, shared_buffers: float, a_build: float) -> None:
    settings = throwaway_settings(memory_bytes=memory_mib * _MIB, cpus=cpus)
    assert mib(settings["shared_buffers"]) == shared_buffers
    assert mib(settings["maintenance_work_mem"]) == a_build


def test_all_builds_together_leave_memory_for_the_rest() -> None:
    settings = throwaway_settings(memory_bytes=300 * _MIB, cpus=2, jobs=4)
    assert 4 * mib(settings["maintenance_work_mem"]) == 100


def test_one_build_uses_several_processors_only_where_there_are_more_than_the_jobs_need() -> None:
    assert throwaway_settings(memory_bytes=1, cpus=2)["max_parallel_maintenance_workers"] == "0"
    assert "max_parallel_maintenance_workers" not in throwaway_settings(memory_bytes=1, cpus=8)
