"""What ``pgstow backup`` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllDatabasesOption",
    "AlsoOption",
    "ChecksOption",
    "ExcludeSchemaOption",
    "ExcludeTableDataOption",
    "ExcludeTableOption",
    "FullReadEveryOption",
    "FullReadOption",
    "JobsOption",
    "KindOption",
    "LabelOption",
    "LimitRateOption",
    "MaxBlockingOption",
    "MustContainOption",
    "NameOption",
    "NewSourceOption",
    "RolePasswordsOption",
    "SchemaOption",
    "SourceArgument",
    "SplitBigTablesOption",
    "TableOption",
    "WaitOption",
]

_CHOICE_PANEL = "What to take"
_DESTINATIONS_PANEL = "Further destinations"
_MANNER_PANEL = "How to read"

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL", help="postgresql://..., key=value pairs, or service=NAME. Or PGSTOW_SOURCE."
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the source; by default the database's own."),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", metavar="KIND", help="Kind, such as weekly, dr; by default daily, with --table critical."
    ),
]
LabelOption = Annotated[str | None, typer.Option("--label", metavar="TEXT", help="A note to find it by.")]
AllDatabasesOption = Annotated[
    bool,
    typer.Option(
        "--all-databases", help="Every database of the server, as one set.", rich_help_panel=_CHOICE_PANEL
    ),
]
SchemaOption = Annotated[
    list[str] | None,
    typer.Option(
        "--schema", "-n", metavar="PATTERN", help="Only these schemas.", rich_help_panel=_CHOICE_PANEL
    ),
]
TableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        "-t",
        metavar="SCHEMA.TABLE",
        help="Only this table, with its partitions and sequences; a name, no pattern. May be repeated.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
MustContainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--must-contain",
        metavar="SCHEMA.TABLE",
        help="Fail unless the backup holds the rows of this table, or of every table with SCHEMA.*. May be repeated.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
ChecksOption = Annotated[
    Path | None,
    typer.Option(
        "--checks",
        metavar="FILE",
        help="File of assertions, asked under the backup's snapshot and recorded: a drill compares with them.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
ExcludeSchemaOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-schema", metavar="PATTERN", help="Not these schemas.", rich_help_panel=_CHOICE_PANEL
    ),
]
ExcludeTableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-table", metavar="PATTERN", help="Not these tables.", rich_help_panel=_CHOICE_PANEL
    ),
]
ExcludeTableDataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-table-data",
        metavar="PATTERN",
        help="These tables without their rows.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
RolePasswordsOption = Annotated[
    bool,
    typer.Option(
        "--role-passwords",
        help="Save the password hashes of roles too, if allowed.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
NewSourceOption = Annotated[
    bool,
    typer.Option(
        "--new-source",
        help="NAME is another server from now on: the old one was replaced.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Connections that read rows.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
LimitRateOption = Annotated[
    str | None,
    typer.Option(
        "--limit-rate",
        metavar="RATE",
        help="At most this many bytes a second, such as 20M.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
SplitBigTablesOption = Annotated[
    bool,
    typer.Option(
        "--split-big-tables",
        help="Read large tables in parallel: faster, but it may push hot pages out of the server's cache.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
FullReadOption = Annotated[
    bool,
    typer.Option(
        "--full-read",
        help="Read everything, and compare it with what would have been reused.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
FullReadEveryOption = Annotated[
    int,
    typer.Option(
        "--full-read-every",
        metavar="N",
        min=1,
        help="Do so in every Nth backup.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
MaxBlockingOption = Annotated[
    float,
    typer.Option(
        "--max-blocking",
        metavar="SECONDS",
        min=0,
        help="Step aside and start over when others wait this long for a lock of ours; 0: never.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
WaitOption = Annotated[
    str | None,
    typer.Option(
        "--wait",
        metavar="DURATION",
        help="Wait so long, such as 10m, for another backup of the same database or an exclusive lock; "
        "with --all-databases for each. Without it pgstow gives way at once.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="LOCATION",
        help="Another repository that the same backup goes to, the database being read once. May be repeated.",
        rich_help_panel=_DESTINATIONS_PANEL,
    ),
]
