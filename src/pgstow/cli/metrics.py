"""``pgstow metrics``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client.metrics_core import Metric
from rich.text import Text

from pgstow.app.metrics import collect_metrics
from pgstow.app.observation import opened_history
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome
from pgstow.core.errors import UsageError
from pgstow.monitor.exporter import write_textfile
from pgstow.monitor.metrics import metrics_text

__all__ = ["metrics_command"]


def metrics_command(
    invocation: Invocation,
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            metavar="FILE",
            help="Replace this file instead of printing, for the textfile collector of the node exporter.",
        ),
    ] = None,
) -> Outcome:
    """Print metrics of every database and repository in the settings, as Prometheus reads them.

    Exits with 3 when something could not be looked at; the metrics say what.
    """
    if textfile is not None and textfile.suffix != ".prom":
        raise UsageError(
            f"{textfile} does not end in .prom", hint="the node exporter reads only files that do"
        )
    settings, output = invocation.settings(), invocation.output
    with output.progress() as progress, opened_history(settings, invocation.environ) as history:
        facts, families = collect_metrics(
            settings, invocation.environ, history, note=progress.note, conceal=output.conceal
        )
    text = metrics_text(families)
    if textfile is not None:
        write_textfile(textfile, text)
    elif not output.as_json:
        output.stdout.write(text.decode())
    is_known = all(each.is_known for each in facts.repositories.values()) and facts.runs_error is None
    count = sum(len(family.samples) for family in families)
    return Outcome(
        status="done" if is_known else "partial",
        document={
            "textfile": None if textfile is None else str(textfile),
            "metrics": [_document(family) for family in families],
        },
        view=[Text(f"{plural(count, 'value')} written to {safe(str(textfile))}")],
        is_silent=textfile is None,
    )


def _document(family: Metric) -> dict[str, Any]:
    return {
        "name": family.name,
        "help": family.documentation,
        "samples": [{"labels": sample.labels, "value": sample.value} for sample in family.samples],
    }
