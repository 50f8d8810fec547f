"""``pgstow init``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.copy import open_other
from pgstow.app.init import InitReport, init_repository
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.init_wizard import OutputOption, WizardOption, wizard_outcome
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import FromPasswordCommandOption, FromPasswordFileOption
from pgstow.cli.passwords import FROM_PASSWORD
from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.repository import Repository

__all__ = ["init_command"]


def init_command(
    invocation: Invocation,
    from_location: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LOCATION",
            help="Take over the master key of the repository there, so that repo copy can move packs between the two "
            "as they are. Whoever has a password of one and can reach the other's files could then read both.",
            rich_help_panel="Other repository",
        ),
    ] = None,
    from_password_file: FromPasswordFileOption = None,
    from_password_command: FromPasswordCommandOption = None,
    wizard: WizardOption = None,
    output: OutputOption = None,
) -> Outcome:
    """Make a repository: an encrypted one in restic's format, which restic can read too.

    Without its password nobody can read it, so keep the password in two places. With --wizard no repository is made: a
    first settings file is written for a database.
    """
    if wizard is not None:
        if from_location is not None:
            raise UsageError("--wizard and --from cannot both be given")
        return wizard_outcome(invocation, wizard, output)
    if output is not None:
        raise UsageError("--output means nothing without --wizard")
    location = invocation.require_location()
    password = invocation.password()
    relative = (
        _relative(invocation, from_location, from_password_file, from_password_command, password)
        if from_location
        else None
    )
    report = init_repository(
        location,
        password,
        invocation.environ,
        relative=relative,
        hostname=invocation.hostname,
        username=invocation.username,
        on_retry=invocation.output.note,
    )
    return Outcome(
        document={
            "repository": {
                "id": report.repository_id,
                "location": report.location,
                "shares_key_with": report.shares_key_with,
            }
        },
        view=list(_view(report)),
    )


def _relative(
    invocation: Invocation, location: str, file: FromPasswordFileOption, command: str | None, password: Secret
) -> Repository:
    """Return the repository whose master key is taken over."""
    return open_other(
        location,
        invocation.other_password(FROM_PASSWORD, file, command, default=password),
        invocation.environ,
        role="--from",
        hint="give the location of the repository whose packs are to be moved into the new one",
        password_flag=FROM_PASSWORD.flag,
        on_retry=invocation.output.note,
    )


def _view(report: InitReport) -> Iterator[RenderableType]:
    yield Text(f"made repository {report.repository_id[:10]} at {safe(report.location)}")
    yield Text("keep its password safe: without it the backups cannot be read by anyone", style="dim")
    if report.shares_key_with:
        yield Text.assemble(
            ("warning: ", "bold yellow"),
            f"it has the master key of {safe(report.shares_key_with)}: one leaked password, with that repository's key"
            " file, opens both",
        )
