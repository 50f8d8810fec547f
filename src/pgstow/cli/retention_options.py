"""Options that several commands of retention share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated

import typer

from pgstow.catalog.backups import check_backup_name
from pgstow.cli.command import Invocation
from pgstow.core.errors import UsageError
from pgstow.retention import DEFAULT_RULES, RetentionPolicies, RetentionPolicy, RetentionRule

__all__ = [
    "DatabaseOption",
    "KeepOption",
    "NoPromoteOption",
    "ReasonOption",
    "TimeZoneOption",
    "WaitOption",
    "actor",
    "parse_day",
    "policies_from",
]

_RULES = "Rules"
_KEEP = re.compile(r"([^=:]+)=(?:([0-9]{1,6})d?(?::([0-9]{1,6}))?|(forever))", re.ASCII)

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
    str,
    typer.Option(
        "--time-zone",
        metavar="ZONE",
        help="Whose days, weeks and months, such as Europe/Berlin.",
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


def policies_from(keep: Sequence[str] | None, time_zone: str, *, no_promote: bool) -> RetentionPolicies:
    """Return the policy that the options give: the default rules, but for the kinds that ``keep`` names."""
    rules = dict(DEFAULT_RULES)
    given: set[str] = set()
    for text in keep or ():
        match = _KEEP.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"--keep: {text!r} is no rule", hint="write it like daily=30, weekly=90:4 or dr=forever"
            )
        kind = check_backup_name(match[1])
        if kind in given:
            raise UsageError(f"--keep: there are two rules for {kind}")
        given.add(kind)
        if match[4]:
            rules.pop(kind, None)
        else:
            rules[kind] = RetentionRule(days=int(match[2]), at_least=int(match[3] or 1))
    policy = RetentionPolicy(rules=rules, promotes=not no_promote, time_zone=time_zone)
    return RetentionPolicies(default=policy)


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
