"""``pgstow audit enroll``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pgstow.app.audit import enroll
from pgstow.app.auditing import journal_of
from pgstow.audit.documents import Enrolment
from pgstow.audit.keys import AdministratorKey
from pgstow.cli.audit_options import KeyOption, administrator_key
from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import PassphraseCommandOption, PassphraseFileOption

__all__ = ["audit_enroll_command", "enrolment_outcome"]


def audit_enroll_command(
    invocation: Invocation,
    key: KeyOption,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="CHAIN|NAME",
            help="The beginning of a chain's name, or its host's name; else this host. Compare the chain with what the host "
            "itself shows before you sign it.",
        ),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_command: PassphraseCommandOption = None,
) -> Outcome:
    """State with the administrator's key that a chain's key is genuine: that of the host it says.

    For one repository; run it for each.
    """
    administrator = administrator_key(invocation, key, passphrase_file, passphrase_command)
    with invocation.output.progress() as progress:
        enrolment = enroll(
            invocation.repository(progress), journal_of(invocation.environ), administrator, host
        )
    return enrolment_outcome(enrolment, administrator, "enrolled")


def enrolment_outcome(enrolment: Enrolment, key: AdministratorKey, verb: str) -> Outcome:
    """Return what is said of a statement that was written."""
    upto = (
        f", up to entry {enrolment.head.number}"
        if enrolment.head is not None
        else ", which has no entries here"
    )
    return Outcome(
        document={
            "chain": enrolment.chain,
            "host": enrolment.host,
            "administrator": key.fingerprint,
            "revoked": enrolment.is_revoked,
            "number": enrolment.head.number if enrolment.head is not None else None,
        },
        view=[
            Text.assemble((f"{verb} ", "green"), f"chain {enrolment.chain} of {safe(enrolment.host)}{upto}"),
            Text(f"by administrator {key.fingerprint}"),
        ],
    )
