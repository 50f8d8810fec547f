"""What ``pgstow restore`` can be told."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "CleanOption",
    "CompareOption",
    "ConfirmOption",
    "CreateOption",
    "DataOnlyOption",
    "DisconnectOthersOption",
    "JobsOption",
    "NoOwnerOption",
    "NoPrivilegesOption",
    "SchemaOnlyOption",
    "SchemaOption",
    "TableOption",
    "ToOption",
]

_CHOICE_PANEL = "What to restore"
_MANNER_PANEL = "Into what"

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="Target: postgresql://..., key=value pairs, or service=NAME. Or PGSTOW_TARGET.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
CreateOption = Annotated[
    bool, typer.Option("--create", help="Make the target database first.", rich_help_panel=_MANNER_PANEL)
]
CleanOption = Annotated[
    bool,
    typer.Option(
        "--clean",
        help="Drop what stands in the way; with --create the whole target database. Needs --confirm.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
ConfirmOption = Annotated[
    str | None,
    typer.Option(
        "--confirm",
        metavar="DATABASE",
        help="Name of the target database, to say that it may be overwritten. Asked for on a terminal.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
DisconnectOthersOption = Annotated[
    bool,
    typer.Option(
        "--disconnect-others",
        help="With --create --clean: end the sessions that use the old database.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
TableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--table", "-t", metavar="SCHEMA.TABLE", help="Only these tables.", rich_help_panel=_CHOICE_PANEL
    ),
]
SchemaOption = Annotated[
    list[str] | None,
    typer.Option(
        "--schema", "-n", metavar="SCHEMA", help="Only these schemas.", rich_help_panel=_CHOICE_PANEL
    ),
]
SchemaOnlyOption = Annotated[
    bool, typer.Option("--schema-only", help="Definitions without rows.", rich_help_panel=_CHOICE_PANEL)
]
DataOnlyOption = Annotated[
    bool, typer.Option("--data-only", help="Rows without definitions.", rich_help_panel=_CHOICE_PANEL)
]
NoOwnerOption = Annotated[
    bool,
    typer.Option(
        "--no-owner", help="Everything belongs to the restoring role.", rich_help_panel=_CHOICE_PANEL
    ),
]
NoPrivilegesOption = Annotated[
    bool, typer.Option("--no-privileges", help="No GRANT and REVOKE.", rich_help_panel=_CHOICE_PANEL)
]
CompareOption = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Read every restored row back and compare it with the backup's. Without it rows are counted.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Connections that load and build.")
]
