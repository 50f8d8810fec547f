"""``pgstow keys list``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe, time_text
from pgstow.cli.output import Outcome
from pgstow.cli.tables import plain_table
from pgstow.repository import KeyInfo

__all__ = ["key_document", "keys_list_command"]


def keys_list_command(invocation: Invocation) -> Outcome:
    """List the keys of a repository: each is a password that opens it.

    The one marked with * opened this session.
    """
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        keys = repository.key_files()
    return Outcome(
        document={"keys": [key_document(key, in_use=key.id == repository.key_id) for key in keys]},
        view=list(_view(keys, repository.key_id)),
    )


def key_document(key: KeyInfo, *, in_use: bool) -> dict[str, Any]:
    """Return a key as it appears in every JSON document."""
    return {
        "id": key.id,
        "in_use": in_use,
        "created": key.created.isoformat() if key.created else None,
        "username": key.username or None,
        "hostname": key.hostname or None,
        "damage": key.damage,
    }


def _view(keys: Sequence[KeyInfo], in_use: str) -> Iterator[RenderableType]:
    table = plain_table("", "ID", "CREATED (UTC)", "USER", "HOST", "")
    for key in keys:
        table.add_row(
            "*" if key.id == in_use else "",
            key.id[:8],
            time_text(key.created) if key.created else "-",
            safe(key.username),
            safe(key.hostname),
            Text("damaged", style="bold red") if key.damage else "",
        )
    yield table
    for key in keys:
        if key.damage:
            yield Text.assemble(
                ("warning: ", "bold yellow"),
                f"{safe(key.damage)}; restic may refuse the repository while it is there: "
                f"pgstow keys remove {key.id[:8]}",
            )
