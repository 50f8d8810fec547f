"""The picture: one panel of bars per case, pgstow in its own colour."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.results import Results, Series

__all__ = ["draw"]

_PANELS: Final = {
    "first": "First backup",
    "second": "Second backup, nothing changed",
    "appended": "Another backup, 1 % of rows added",
    "restore": "Restore",
    "drill": "Drill, every row compared, beside a restore that is not looked at",
    "tables": "Many small tables",
}
_OURS: Final = "#0f766e"
_OTHERS: Final = "#b6bec9"
_TEXT: Final = "#1f2933"


def draw(results: Results, path: Path) -> None:
    """Write a PNG with the median seconds of every case; whiskers span least to most."""
    cases = {case: series for case in _PANELS if (series := results.of_case(case))}
    if not cases:
        return
    with mpl.rc_context({"font.size": 10, "text.color": _TEXT, "ytick.color": _TEXT, "xtick.color": _TEXT}):
        heights = [len(series) + 1.2 for series in cases.values()]
        figure = Figure(figsize=(10, 0.38 * sum(heights) + 0.4), layout=ConstrainedLayoutEngine(h_pad=0.12))
        panels = figure.subplots(len(cases), 1, height_ratios=heights, squeeze=False)
        for panel, (case, series) in zip(panels[:, 0], cases.items(), strict=True):
            _draw_panel(panel, _PANELS[case], series)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the version of the drawing library the same numbers give the same bytes for longer.
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw_panel(panel: Axes, heading: str, series: list[Series]) -> None:
    ordered = sorted(series, key=lambda one: one.median("wall_s"), reverse=True)
    seconds = [one.median("wall_s") for one in ordered]
    whiskers = [
        [median - one.least("wall_s") for median, one in zip(seconds, ordered, strict=True)],
        [one.most("wall_s") - median for median, one in zip(seconds, ordered, strict=True)],
    ]
    colours = [_OURS if one.contestant == "pgstow" else _OTHERS for one in ordered]
    rows = range(len(ordered))
    panel.barh(rows, seconds, xerr=whiskers, color=colours, height=0.7, error_kw={"ecolor": _TEXT, "lw": 0.8})
    panel.set_yticks(rows, [one.title for one in ordered])
    panel.invert_yaxis()
    panel.set_title(f"{heading} (seconds, less is better)", loc="left", fontweight="bold", fontsize=11)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(0, max(one.most("wall_s") for one in ordered) * 1.1)
    for row, (value, one) in enumerate(zip(seconds, ordered, strict=True)):
        panel.annotate(
            f"{value:.1f}", (one.most("wall_s"), row), xytext=(5, 0), textcoords="offset points", va="center"
        )
