"""``pgstow alerts ack``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.alerts import acknowledge
from pgstow.cli.alerts_view import alert_document, history_of
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome

__all__ = ["alerts_ack_command"]


def alerts_ack_command(
    invocation: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID|CODE", help="An alert's id or fingerprint, or the code in a test message."
        ),
    ],
) -> Outcome:
    """Say that you take care of an alert, or that a test message reached you.

    Nobody else is told of the alert then, unless it becomes worse; its end is told.
    """
    settings = invocation.settings()
    with history_of(invocation, settings) as history:
        done = acknowledge(history, what, by=invocation.username)
    text = (
        f"{safe(done.channel)} reaches people"
        if done.channel is not None
        else f"acknowledged: {safe(', '.join(alert.fingerprint for alert in done.alerts))}"
    )
    return Outcome(
        document={
            "alerts": [alert_document(alert, invocation.output) for alert in done.alerts],
            "channel": done.channel,
        },
        view=[Text(text)],
    )
