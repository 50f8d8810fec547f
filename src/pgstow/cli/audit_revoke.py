"""``pgstow audit revoke``"""

from __future__ import annotations

from typing import Annotated

import typer

from pgstow.app.audit import enroll
from pgstow.app.auditing import journal_of
from pgstow.cli.audit_enroll import enrolment_outcome
from pgstow.cli.audit_options import KeyOption, administrator_key
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import PassphraseCommandOption, PassphraseFileOption
from pgstow.core.errors import UsageError

__all__ = ["audit_revoke_command"]


def audit_revoke_command(
    invocation: Invocation,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="CHAIN|NAME", help="The beginning of a chain's name, or its host's name."
        ),
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why. It is part of the statement.")
    ],
    key: KeyOption,
    passphrase_file: PassphraseFileOption = None,
    passphrase_command: PassphraseCommandOption = None,
) -> Outcome:
    """State with the administrator's key that a host's key is not to be believed from here on.

    What the chain holds by now stays as good as it was; entries after that are problems. There is no way back: the host
    needs a new key.
    """
    if not reason.strip():
        raise UsageError("--reason is empty", hint="say why: whoever checks the trail wants to know")
    administrator = administrator_key(invocation, key, passphrase_file, passphrase_command)
    with invocation.output.progress() as progress:
        enrolment = enroll(
            invocation.repository(progress),
            journal_of(invocation.environ),
            administrator,
            host,
            is_revoked=True,
            reason=reason,
        )
    return enrolment_outcome(enrolment, administrator, "revoked")
