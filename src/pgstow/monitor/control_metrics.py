"""What Prometheus is told of the controls of the newest evidence report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pgstow.state.controls import ControlStatus

__all__ = ["control_families"]

# A control that holds is above zero; unknown is below everything, so that "< 1" finds all that need a look.
_VALUES: Mapping[str, float] = MappingProxyType({"pass": 1.0, "waived": 0.5, "fail": 0.0, "unknown": -1.0})


def control_families(controls: Iterable[ControlStatus]) -> Iterator[Metric]:
    """Yield the families; without samples where there is no report."""
    status = GaugeMetricFamily(
        "pgstow_control_status",
        "What a control came to in the newest evidence report: 1 pass, 0.5 waived, 0 fail, -1 unknown.",
        labels=["control"],
    )
    made = GaugeMetricFamily(
        "pgstow_control_report_timestamp_seconds", "When the newest evidence report was made."
    )
    newest = None
    for each in controls:
        status.add_metric([each.control], _VALUES.get(each.result, _VALUES["unknown"]))
        newest = each.made if newest is None else max(newest, each.made)
    if newest is not None:
        made.add_metric([], newest.timestamp())
    yield from (status, made)
