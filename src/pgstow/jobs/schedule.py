"""When a plan runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron expression in a time zone.

    ``cron`` has five fields as cron(8) of Debian reads them, daylight saving included. Every host adds the same delay
    of up to ``jitter_s`` to one due time. A run that was missed is caught up, once, until ``catch_up_s`` after it was due.
    """

    cron: str
    time_zone: str = "UTC"
    jitter_s: float = 0.0
    catch_up_s: float = 6 * 3600.0
