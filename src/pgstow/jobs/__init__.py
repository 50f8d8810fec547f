"""When plans run, and that each due run is carried out once: schedule, workflows, watchdog."""

from __future__ import annotations

__all__: list[str] = []
