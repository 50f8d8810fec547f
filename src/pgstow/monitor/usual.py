"""What size a backup usually has, and when one is remarkable: one judgement, for alerts and checklists alike."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pgstow.monitor.policy import AlertPolicy

__all__ = ["LEAST_COMPARED", "MOST_COMPARED", "is_unusual", "usual_size"]

MOST_COMPARED = 10  # backups before the newest that say what is usual
LEAST_COMPARED = 3  # fewer say nothing


def usual_size(before: Sequence[int]) -> float | None:
    """Return the median of the last of ``before``, oldest first; None where there are too few to tell."""
    recent = before[-MOST_COMPARED:]
    return median(recent) if len(recent) >= LEAST_COMPARED else None


def is_unusual(size_bytes: int, usual: float, policy: AlertPolicy) -> bool:
    """Whether a size differs from the usual one by more than the policy lets pass."""
    change = abs(size_bytes - usual)
    return change >= policy.size_floor_bytes and change > policy.size_change * usual
