"""What ``pgstow drill`` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "ChecksOption",
    "DatabaseOption",
    "JobsOption",
    "KindOption",
    "LatestOption",
    "NotesOption",
    "OldestOption",
    "OnOption",
    "OptionalExtensionOption",
    "RandomOption",
    "ReportOption",
    "RotateOption",
    "RpoOption",
    "RtoOption",
    "SeedOption",
    "SubjectArgument",
]

_CHOICE_PANEL = "Which backup"
_MANNER_PANEL = "Where and how"
_REPORT_PANEL = "Targets and report"

SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="BACKUP|DUMP",
        help="A backup as for restore, or a dump that was made elsewhere: a file, a folder, s3://BUCKET/KEY (gs://, az://), or - for standard input.",
    ),
]
LatestOption = Annotated[
    bool, typer.Option("--latest", help="The newest; the default.", rich_help_panel=_CHOICE_PANEL)
]
RandomOption = Annotated[
    bool,
    typer.Option("--random", help="Any; the record holds the seed.", rich_help_panel=_CHOICE_PANEL),
]
OldestOption = Annotated[bool, typer.Option("--oldest", help="The oldest.", rich_help_panel=_CHOICE_PANEL)]
RotateOption = Annotated[
    bool,
    typer.Option(
        "--rotate",
        help="Of the database, kind and age that was drilled longest ago or never.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
SeedOption = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="SEED",
        help="With --random: that of an earlier drill, to choose as then.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        "-d",
        metavar="NAME",
        help="Among the backups of this source.",
        rich_help_panel=_CHOICE_PANEL,
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", metavar="KIND", help="Among those of this kind.", rich_help_panel=_CHOICE_PANEL),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="embedded|URL",
        help="Where: a throwaway server of this machine (the default), or a database of its own on the server at URL, where it "
        "is dropped afterwards. Or PGSTOW_DRILL_SERVER.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
ChecksOption = Annotated[
    Path | None,
    typer.Option(
        "--checks",
        metavar="FILE",
        help="Assertions that must hold in the restored database, as in pgstow.yaml.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
OptionalExtensionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--optional-extension",
        metavar="NAME",
        help="May be missing: it and what needs it is left out then.",
        rich_help_panel=_MANNER_PANEL,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Connections that load, build and read back (default: 3; with --on 2, as somebody else may need that server).",
        rich_help_panel=_MANNER_PANEL,
    ),
]
NotesOption = Annotated[
    str | None,
    typer.Option(
        "--notes", metavar="TEXT", help="What is to stand in the record.", rich_help_panel=_REPORT_PANEL
    ),
]
ReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write the report there: .md, .html or .json. May be given several times.",
        rich_help_panel=_REPORT_PANEL,
    ),
]
RtoOption = Annotated[
    str | None,
    typer.Option(
        "--rto",
        metavar="DURATION",
        help="How long a restore may take, such as 4h.",
        rich_help_panel=_REPORT_PANEL,
    ),
]
RpoOption = Annotated[
    str | None,
    typer.Option(
        "--rpo",
        metavar="DURATION",
        help="How much may be lost, such as 1h.",
        rich_help_panel=_REPORT_PANEL,
    ),
]
