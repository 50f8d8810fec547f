"""Options of commands that deal with a second repository or a second password."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgstow.cli.command import Invocation
from pgstow.cli.passwords import NEW_PASSWORD, PasswordPurpose
from pgstow.core.secrets import Secret

__all__ = [
    "FromPasswordCommandOption",
    "FromPasswordFileOption",
    "NewPasswordCommandOption",
    "NewPasswordFileOption",
    "ToPasswordCommandOption",
    "ToPasswordFileOption",
    "new_password",
    "other_password",
]

_NEW = "New password"
_OTHER = "Other repository"

NewPasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--new-password-file",
        metavar="FILE",
        help="File that holds the new password. Or PGSTOW_NEW_PASSWORD_FILE; PGSTOW_NEW_PASSWORD is the password itself.",
        rich_help_panel=_NEW,
    ),
]
NewPasswordCommandOption = Annotated[
    str | None,
    typer.Option(
        "--new-password-command",
        metavar="COMMAND",
        help="Program whose first line of output is the new password. Or PGSTOW_NEW_PASSWORD_COMMAND.",
        rich_help_panel=_NEW,
    ),
]
FromPasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--from-password-file",
        metavar="FILE",
        help="File that holds its password. Or PGSTOW_FROM_PASSWORD_FILE; PGSTOW_FROM_PASSWORD is the password itself.",
        rich_help_panel=_OTHER,
    ),
]
FromPasswordCommandOption = Annotated[
    str | None,
    typer.Option(
        "--from-password-command",
        metavar="COMMAND",
        help="Program whose first line of output is its password. Or PGSTOW_FROM_PASSWORD_COMMAND.",
        rich_help_panel=_OTHER,
    ),
]
ToPasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--to-password-file",
        metavar="FILE",
        help="File that holds its password; without any, the password of --repo. Or PGSTOW_TO_PASSWORD_FILE; "
        "PGSTOW_TO_PASSWORD is the password itself.",
        rich_help_panel=_OTHER,
    ),
]
ToPasswordCommandOption = Annotated[
    str | None,
    typer.Option(
        "--to-password-command",
        metavar="COMMAND",
        help="Program whose first line of output is its password. Or PGSTOW_TO_PASSWORD_COMMAND.",
        rich_help_panel=_OTHER,
    ),
]


def new_password(invocation: Invocation, file: Path | None, command: str | None) -> Secret:
    """Return the password that is to open the repository from now on."""
    return invocation.further_password(NEW_PASSWORD, file, command, is_new=True)


def other_password(
    invocation: Invocation,
    purpose: PasswordPurpose,
    file: Path | None,
    command: str | None,
    *,
    default: Secret,
) -> Secret:
    """Return the password of the second repository; that of the first where none was given."""
    if invocation.is_password_given(purpose, file, command):
        return invocation.further_password(purpose, file, command)
    return default
