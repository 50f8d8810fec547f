"""What is wrong and who is told: rules, alerts, channels, metrics."""

from __future__ import annotations

__all__: list[str] = []
