"""``pgstow keys passwd``"""

from __future__ import annotations

from rich.text import Text

from pgstow.app.keys import change_password
from pgstow.app.opening import open_repository
from pgstow.cli.command import Invocation
from pgstow.cli.keys_remove import NO_PROTECTION
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import NewPasswordCommandOption, NewPasswordFileOption

__all__ = ["keys_passwd_command"]


def keys_passwd_command(
    invocation: Invocation,
    new_password_file: NewPasswordFileOption = None,
    new_password_command: NewPasswordCommandOption = None,
) -> Outcome:
    """Replace the password that opens this session by another one.

    The new key is written, read back and opened before the old one is removed; a failure between leaves both valid.
    Someone who knows the old password and kept a copy of the old key file can still read everything: only
    `pgstow repo rekey` changes that.
    """
    with invocation.output.progress() as progress:
        location, old = invocation.require_location(), invocation.password()
        repository = open_repository(location, old, invocation.environ, on_retry=progress.note)
        new = invocation.new_password(new_password_file, new_password_command)
        change = change_password(
            repository, old, new, hostname=invocation.hostname, username=invocation.username
        )
    also = ", ".join(key_id[:8] for key_id in change.also_opened)
    if also:
        invocation.output.warn(f"the old password still opens key {also}: pgstow keys remove takes it away")
    return Outcome(
        document={"added": change.added, "removed": change.removed, "also_opened": list(change.also_opened)},
        view=[
            Text(f"the password was changed: key {change.removed[:8]} became {change.added[:8]}"),
            Text(NO_PROTECTION, style="dim"),
        ],
    )
