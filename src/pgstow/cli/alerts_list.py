"""``pgstow alerts list``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.alerts import listed_alerts
from pgstow.cli.alerts_view import alert_documents, alerts_table, history_of, silence_document
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe, time_text
from pgstow.cli.output import Outcome

__all__ = ["alerts_list_command"]


def alerts_list_command(
    invocation: Invocation,
    show_all: Annotated[
        bool, typer.Option("--all", help="Also what is not an alert yet, and what ended in the last week.")
    ] = False,
) -> Outcome:
    """List the open alerts and the silences, as they were when the rules were last evaluated.

    Nothing is looked at anew: pgstow alerts check does that, or the service.
    """
    settings = invocation.settings()
    with history_of(invocation, settings) as history:
        listed = listed_alerts(history, show_all=show_all)
    output = invocation.output
    evaluated = listed.evaluated
    last = "never evaluated" if evaluated is None else f"evaluated {time_text(evaluated)} UTC"
    view = [alerts_table(listed.alerts, listed.refused, output)] if listed.alerts else []
    silences = [
        Text(f"silenced until {time_text(each.until)} by {safe(each.by)}: {safe(each.pattern)}")
        for each in listed.silences
    ]
    open_count = sum(alert.is_open for alert in listed.alerts)
    return Outcome(
        document={
            "evaluated": None if evaluated is None else evaluated.isoformat(),
            "alerts": alert_documents(listed.alerts, listed.refused, output),
            "silences": [silence_document(each) for each in listed.silences],
        },
        view=[*view, *silences, Text(f"{plural(open_count, 'open alert')} ({last})", style="dim")],
    )
