"""Options that several commands of the audit trail share."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer

from pgstow.app.audit import read_administrator_key
from pgstow.audit.keys import AdministratorKey
from pgstow.cli.command import Invocation
from pgstow.cli.passwords import ADMINISTRATOR_PASSPHRASE
from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration

__all__ = [
    "AdministratorOption",
    "KeyOption",
    "administrator_key",
    "parse_moment",
]

_KEY_PANEL = "Administrator's key"

KeyOption = Annotated[
    Path,
    typer.Option(
        "--key",
        metavar="FILE",
        help="The administrator's key, made by audit admin-key.",
        rich_help_panel=_KEY_PANEL,
    ),
]
AdministratorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--admin",
        metavar="FINGERPRINT",
        help="Believe keys that this administrator enrolled. Repeatable; without it those of the settings.",
    ),
]


def administrator_key(
    invocation: Invocation, path: Path, file: Path | None, command: str | None
) -> AdministratorKey:
    """Return the administrator's key in a file, opened with its passphrase."""
    return read_administrator_key(path, invocation.further_password(ADMINISTRATOR_PASSPHRASE, file, command))


def parse_moment(text: str | None, *, option: str, is_end: bool = False) -> datetime | None:
    """Return a day, a moment (UTC where it has no zone), or how long ago. A day that ``is_end`` counts to its end."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if len(text) <= len("2026-11-21") and is_end:
            moment = datetime.combine(moment.date(), time.max)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (UsageError, OverflowError) as exc:
        raise UsageError(
            f"{option}: {text!r} is no day, moment or duration", hint="2026-11-21, 2026-11-21T14:00 or 7d"
        ) from exc
