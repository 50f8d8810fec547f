"""``pgstow release``"""

from __future__ import annotations

from rich.text import Text

from pgstow.app.marking import release_backup
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural
from pgstow.cli.output import Outcome
from pgstow.cli.records import backup_of, hold_documents, record_document
from pgstow.cli.retention_options import ReasonOption, WaitOption, actor
from pgstow.cli.show import BackupArgument
from pgstow.core.quantities import parse_duration

__all__ = ["release_command"]


def release_command(
    invocation: Invocation, backup: BackupArgument, reason: ReasonOption, wait: WaitOption = "0"
) -> Outcome:
    """End every hold of a backup: from now on it is kept for as long as the rules say.

    Who held it, who released it and why stays written in the repository. The id of a backup that is gone, which
    pgstow retention plan tells, ends its holds too.
    """
    wait_s = parse_duration(wait)
    with invocation.output.progress() as progress:
        released = release_backup(
            invocation.repository(progress),
            backup,
            progress,
            by=actor(invocation),
            reason=reason,
            wait_s=wait_s,
        )
    record, ended = released.backup, released.holds
    what = backup_of(record) if record is not None else f"{released.backup_id}, which is gone"
    return Outcome(
        document={
            "id": released.backup_id,
            "backup": record_document(record) if record is not None else None,
            "ended": hold_documents(ended),
        },
        view=[Text.assemble(("released: ", "bold"), f"backup {what}, from {plural(len(ended), 'hold')}")],
    )
