"""``pgstow alerts test``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.alerts import send_canaries
from pgstow.cli.alerts_view import delivery_document, delivery_lines, history_of
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome

__all__ = ["alerts_test_command"]


def alerts_test_command(
    invocation: Invocation,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="NAME", help="Only over this channel. Can be given several times."),
    ] = None,
) -> Outcome:
    """Send a test message over every channel. Whoever gets one runs pgstow alerts ack with the code in it.

    That a service took a message does not show that anybody reads it: a channel whose test message nobody has
    acknowledged for a week is an alert itself. Exits with 3 when some could not be sent, and with 1 when none could.
    """
    settings = invocation.settings()
    with history_of(invocation, settings) as history:
        deliveries = send_canaries(settings, invocation.environ, history, only=channel or ())
    failed = sum(each.error is not None for each in deliveries)
    view = [*delivery_lines(deliveries, invocation.output)]
    if failed < len(deliveries):
        view.append(Text("now acknowledge each with the code in it: pgstow alerts ack CODE", style="dim"))
    return Outcome(
        status="done" if not failed else "partial" if failed < len(deliveries) else "failed",
        document={"deliveries": [delivery_document(each, invocation.output) for each in deliveries]},
        view=view,
    )
