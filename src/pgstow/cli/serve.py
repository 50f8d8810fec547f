"""``pgstow serve``"""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from pgstow.app.serve import ServeReport, ServeRequest, Serving
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.signals import requests
from pgstow.config.finding import require_settings_file
from pgstow.config.keeping import keep_settings
from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration
from pgstow.jobs.presence import DEAD_AFTER_S
from pgstow.state.database import open_state, state_folder

__all__ = ["serve_command"]

_SHORTEST_DEAD_AFTER_S = 2.0

GraceOption = Annotated[
    str,
    typer.Option(
        "--grace",
        metavar="DURATION",
        help="When asked to stop: how long the runs under way may take before they are interrupted.",
    ),
]
DeadAfterOption = Annotated[
    str,
    typer.Option(
        "--dead-after",
        metavar="DURATION",
        help="Silent for so long, this host is taken for dead and its runs begin again on others.",
    ),
]


def serve_command(
    invocation: Invocation,
    grace: GraceOption = "10m",
    dead_after: DeadAfterOption = f"{DEAD_AFTER_S:.0f}s",
) -> Outcome:
    """Run the plans of the settings when they are due, until told to stop.

    With `state: postgresql://...` in the settings, the same command on many hosts makes a fleet. SIGHUP reads the
    settings again; a second SIGTERM or Ctrl-C ends everything at once.
    """
    dead_after_s = parse_duration(dead_after)
    if dead_after_s < _SHORTEST_DEAD_AFTER_S:
        raise UsageError(f"--dead-after must be at least {_SHORTEST_DEAD_AFTER_S:.0f}s")
    path = require_settings_file(invocation.config_file, invocation.environ).absolute()
    folder = state_folder(invocation.environ)
    serving = Serving(
        ServeRequest(
            load=lambda: keep_settings(path, folder),
            program=(sys.executable, "-m", "pgstow.cli"),
            folder=folder,
            environ=invocation.environ,
            note=invocation.output.note,
            grace_s=parse_duration(grace),
            dead_after_s=dead_after_s,
        )
    )
    reference = serving.settings.state
    url = reference.resolve(invocation.environ) if reference is not None else None
    if url is not None:
        invocation.output.conceal(url.reveal())
    with (
        requests(at_second=serving.workers.kill) as wait,
        contextlib.closing(open_state(url, invocation.environ)) as state,
    ):
        report = serving.run(state, wait)
    return _outcome(report)


def _outcome(report: ServeReport) -> Outcome:
    words = {0: "done", 3: "partial", 11: "gave_way", 130: "interrupted"}
    runs = {"done": 0, "partial": 0, "gave_way": 0, "interrupted": 0, "failed": 0}
    for status, count in report.ended.items():
        runs[words.get(status, "failed")] += count
    document: dict[str, Any] = {
        "host": report.host_id,
        "started": report.started.isoformat(),
        "finished": report.stopped.isoformat(),
        "runs": runs,
    }
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in runs.items() if count)
    return Outcome(document=document, view=[Text(f"stopped; runs: {told or 'none'}")])
