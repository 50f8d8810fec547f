"""``pgstow keys add``"""

from __future__ import annotations

from rich.text import Text

from pgstow.app.keys import add_key
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.password_options import NewPasswordCommandOption, NewPasswordFileOption

__all__ = ["keys_add_command"]


def keys_add_command(
    invocation: Invocation,
    new_password_file: NewPasswordFileOption = None,
    new_password_command: NewPasswordCommandOption = None,
) -> Outcome:
    """Let another password open the repository too.

    Every password opens everything in it. The new one comes from a file, a program, PGSTOW_NEW_PASSWORD, or is asked
    for twice; its key is read back and opened before this says that it is done.
    """
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        password = invocation.new_password(new_password_file, new_password_command)
        key_id = add_key(repository, password, hostname=invocation.hostname, username=invocation.username)
    return Outcome(document={"key": {"id": key_id}}, view=[Text(f"added key {key_id[:8]}")])
