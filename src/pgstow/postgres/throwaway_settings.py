"""Settings of a server that lives for one restore."""

from __future__ import annotations

__all__ = ["throwaway_settings"]

_MIB = 1 << 20


def throwaway_settings(*, memory_bytes: int, cpus: int) -> dict[str, str]:
    """Return settings for a server that nobody needs after a crash, on a machine of that size."""
    shared = max(min(memory_bytes // 4, 2048 * _MIB), 32 * _MIB)
    return {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "shared_buffers": f"{shared // 1024}kB",
        "maintenance_work_mem": f"{max(memory_bytes // 16, 64 * _MIB) // 1024}kB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "1h",
        "max_parallel_maintenance_workers": str(max(cpus - 1, 0)),
        "jit": "off",
    }
