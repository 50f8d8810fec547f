"""Gauges, and moments in them."""

from __future__ import annotations

from datetime import datetime

from prometheus_client.core import GaugeMetricFamily

__all__ = ["add_moment", "gauge"]


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return an empty family; its name is to be without our prefix."""
    return GaugeMetricFamily(f"pgstow_{name}", text, labels=labels)


def add_moment(family: GaugeMetricFamily, labels: list[str], moment: datetime | None) -> None:
    """Add a moment as seconds since 1970; nothing for None."""
    if moment is not None:
        family.add_metric(labels, moment.timestamp())
