"""Options that several commands of retention share."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from pgstow.cli.command import Invocation
from pgstow.core.errors import UsageError

__all__ = [
    "DatabaseOption",
    "KeepOption",
    "NoPromoteOption",
    "ReasonOption",
    "TimeZoneOption",
    "WaitOption",
    "actor",
    "parse_day",
]

_RULES = "Rules"

KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="KIND=DAYS[:AT_LEAST]",
        help="Keep backups of a kind for so many days, and the newest AT_LEAST (1) however old they are. Replaces the rule "
        "that the kind has otherwise; KIND=forever is no rule: it never expires. Repeatable.",
        rich_help_panel=_RULES,
    ),
]
TimeZoneOption = Annotated[
    str | None,
    typer.Option(
        "--time-zone",
        metavar="ZONE",
        help="Whose days, weeks and months, such as Europe/Berlin; else those of the settings, or UTC.",
        rich_help_panel=_RULES,
    ),
]
NoPromoteOption = Annotated[
    bool,
    typer.Option(
        "--no-promote",
        help="Let the first backup of a week, month or year not stand for it.",
        rich_help_panel=_RULES,
    ),
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="NAME", help="Only the backups of this source.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why. It is kept, and shown with every plan.")
]
WaitOption = Annotated[
    str, typer.Option("--wait", metavar="DURATION", help="Wait so long for others who use the repository.")
]


def parse_day(text: str | None, *, option: str) -> date | None:
    """Return the day that ``2026-11-21`` stands for; UsageError names ``option``."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError as exc:
        raise UsageError(f"{option}: {text!r} is not a day", hint="write it like 2027-01-31") from exc


def actor(invocation: Invocation) -> str:
    """Return who runs this, and where."""
    return f"{invocation.username}@{invocation.hostname}"
