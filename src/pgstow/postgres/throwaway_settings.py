"""Settings of a server that lives for one restore: what is lost when it falls over is made again.

Chosen by measuring drills (``python -m bench --only drill``). What made no difference is left as PostgreSQL has it.
"""

from __future__ import annotations

__all__ = ["build_memory", "shared_memory", "throwaway_settings"]

_MIB = 1 << 20

# Nothing has to outlive the machine or be sent elsewhere, and nobody but the restore works here.
_ALWAYS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",  # tables and indexes filled in the transaction that makes them write no log
    "max_wal_senders": "0",  # which wal_level minimal demands
    "archive_mode": "off",
    "max_wal_size": "4GB",  # room on the disk, at most; with so little log, checkpoints are rare
    "checkpoint_timeout": "1d",
    "autovacuum": "off",  # the restore gathers statistics itself
    # A tenth of the usual sample: enough for the plans of checks, and on middling databases a tenth of the whole drill less.
    "default_statistics_target": "10",
    "jit": "off",  # for queries that run once, compiling costs more than it saves
}
# Rows and indexes are written past them, and the system caches files anyway; larger ones took more processor time.
_SHARED_BUFFERS = 128 * _MIB
_BUILD_AT_LEAST = 64 * _MIB  # PostgreSQL's own default
_BUILD_IN_NEED = 16 * _MIB  # where there is too little memory for that
_BUILD_AT_MOST = 256 * _MIB  # more only moves sorts out of the processor's caches
_ALL_BUILDS_SHARE = 8  # of the memory
_ALL_BUILDS_AT_MOST = 3  # of the memory, before the default is undercut


def throwaway_settings(*, memory_bytes: int, cpus: int, jobs: int = 1) -> dict[str, str]:
    """Return settings for a machine with this much memory to be had, most of which others may use, and so many processors.

    Only where there are more than two processors one build of an index may use several.
    """
    settings = {
        **_ALWAYS,
        "shared_buffers": _in_kib(shared_memory(memory_bytes)),
        "maintenance_work_mem": _in_kib(build_memory(memory_bytes=memory_bytes, cpus=cpus, jobs=jobs)),
    }
    if cpus <= 2:
        settings["max_parallel_maintenance_workers"] = "0"
    return settings


def shared_memory(memory_bytes: int) -> int:
    """Return the bytes of shared_buffers."""
    return min(_SHARED_BUFFERS, max(memory_bytes // 8, _MIB))


def build_memory(*, memory_bytes: int, cpus: int, jobs: int) -> int:
    """Return the bytes that one build of an index gets, of which there are as many at a time as ``jobs``."""
    wanted = min(max(memory_bytes // _ALL_BUILDS_SHARE // max(cpus, 1), _BUILD_AT_LEAST), _BUILD_AT_MOST)
    fitting = max(memory_bytes // _ALL_BUILDS_AT_MOST // max(jobs, 1), _BUILD_IN_NEED)
    return min(wanted, fitting)


def _in_kib(size_bytes: int) -> str:
    return f"{size_bytes // 1024}kB"
