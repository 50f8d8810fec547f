"""Options that give a password: a file that holds it, or a program that prints it.

There is a pair for each purpose a password can have; variables of the environment, named in the help, do the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgstow.cli.passwords import (
    ADMINISTRATOR_PASSPHRASE,
    ALSO_PASSWORD,
    FROM_PASSWORD,
    NEW_PASSWORD,
    REPOSITORY_PASSWORD,
    TO_PASSWORD,
    PasswordPurpose,
)

__all__ = [
    "AlsoPasswordCommandOption",
    "AlsoPasswordFileOption",
    "FromPasswordCommandOption",
    "FromPasswordFileOption",
    "NewPasswordCommandOption",
    "NewPasswordFileOption",
    "PassphraseCommandOption",
    "PassphraseFileOption",
    "PasswordCommandOption",
    "PasswordFileOption",
    "ToPasswordCommandOption",
    "ToPasswordFileOption",
]

_OR_THE_SAME = "; without any, the password of --repo"


def _file(purpose: PasswordPurpose, panel: str, whose: str, otherwise: str = "") -> object:
    variable, file_variable, _ = purpose.variables
    return typer.Option(
        f"{purpose.flag}-file",
        metavar="FILE",
        help=f"File that holds {whose}{otherwise}. Or {file_variable}; {variable} is the {purpose.noun} itself.",
        rich_help_panel=panel,
    )


def _command(purpose: PasswordPurpose, panel: str, whose: str) -> object:
    *_, command_variable = purpose.variables
    return typer.Option(
        f"{purpose.flag}-command",
        metavar="COMMAND",
        help=f"Program, run without a shell, whose first line of output is {whose}. Or {command_variable}.",
        rich_help_panel=panel,
    )


PasswordFileOption = Annotated[
    Path | None, _file(REPOSITORY_PASSWORD, "Repository", "the repository's password")
]
PasswordCommandOption = Annotated[str | None, _command(REPOSITORY_PASSWORD, "Repository", "the password")]

NewPasswordFileOption = Annotated[Path | None, _file(NEW_PASSWORD, "New password", "the new password")]
NewPasswordCommandOption = Annotated[str | None, _command(NEW_PASSWORD, "New password", "the new password")]

FromPasswordFileOption = Annotated[
    Path | None, _file(FROM_PASSWORD, "Other repository", "its password", _OR_THE_SAME)
]
FromPasswordCommandOption = Annotated[str | None, _command(FROM_PASSWORD, "Other repository", "its password")]

ToPasswordFileOption = Annotated[
    Path | None, _file(TO_PASSWORD, "Other repository", "its password", _OR_THE_SAME)
]
ToPasswordCommandOption = Annotated[str | None, _command(TO_PASSWORD, "Other repository", "its password")]

AlsoPasswordFileOption = Annotated[
    Path | None, _file(ALSO_PASSWORD, "Further destinations", "the password of these", _OR_THE_SAME)
]
AlsoPasswordCommandOption = Annotated[
    str | None, _command(ALSO_PASSWORD, "Further destinations", "the password of these")
]

PassphraseFileOption = Annotated[
    Path | None, _file(ADMINISTRATOR_PASSPHRASE, "Administrator's key", "its passphrase")
]
PassphraseCommandOption = Annotated[
    str | None, _command(ADMINISTRATOR_PASSPHRASE, "Administrator's key", "its passphrase")
]
