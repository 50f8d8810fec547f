"""``pgstow alerts silence``"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.alerts import silence
from pgstow.cli.alerts_view import history_of, silence_document
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe, time_text
from pgstow.cli.output import Outcome
from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration

__all__ = ["alerts_silence_command"]

_LONGEST = timedelta(days=90)  # what is to be silent for longer is a matter of the settings


def alerts_silence_command(
    invocation: Invocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID|RULE",
            help="An alert's id or fingerprint, the beginning of fingerprints up to a slash, a rule, or '*' for everything.",
        ),
    ],
    until: Annotated[
        str,
        typer.Option(
            "--until",
            metavar="WHEN",
            help="For how long (2h, 3d), until when (2026-11-22T08:00, UTC), or 'now' to end a silence.",
        ),
    ],
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with it.")] = None,
) -> Outcome:
    """Tell nobody of an alert, or of a whole rule, for some time. It stays open, and is told again afterwards.

    What ends meanwhile is told to whoever had heard of it.
    """
    settings = invocation.settings()
    with history_of(invocation, settings) as history:
        made = silence(history, what, until=_moment(until), by=invocation.username, reason=reason)
    ended = until.strip() == "now"
    text = "not silenced any more" if ended else f"silenced until {time_text(made.until)} UTC"
    return Outcome(document={"silence": silence_document(made)}, view=[Text(f"{safe(made.pattern)}: {text}")])


def _moment(text: str) -> datetime:
    """Return the time that ``--until`` means; UsageError if it is none, has passed, or is too far."""
    now = datetime.now(UTC)
    if text.strip() == "now":
        return now
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            moment = now + timedelta(seconds=parse_duration(text))
        except UsageError as exc:
            raise UsageError(
                f"--until: {text!r} is neither a duration nor a time",
                hint="write it like 2h, 3d or 2026-11-22T08:00 (UTC)",
            ) from exc
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise UsageError(f"--until: {text} has passed", hint="'now' ends a silence")
    if moment - now > _LONGEST:
        raise UsageError(
            "--until: a silence lasts 90 days at most", hint="change the rule's threshold instead"
        )
    return moment
