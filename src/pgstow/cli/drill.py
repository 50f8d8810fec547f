"""``pgstow drill``"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from pgstow.app.drill import Drilled, drill_and_tell, drill_dump
from pgstow.app.drill_request import DrillRequest, DrillTerms, Strategy
from pgstow.app.dump_source import STDIN
from pgstow.catalog.assertions import Assertion
from pgstow.cli.command import Invocation
from pgstow.cli.drill_options import (
    ChecksOption,
    DatabaseOption,
    JobsOption,
    KindOption,
    LatestOption,
    NotesOption,
    OldestOption,
    OnOption,
    OptionalExtensionOption,
    RandomOption,
    ReportOption,
    RotateOption,
    RpoOption,
    RtoOption,
    SeedOption,
    SubjectArgument,
)
from pgstow.cli.drill_view import (
    drill_document,
    drill_lines,
    report_format,
    unsaved_lines,
    write_report,
)
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome, Status
from pgstow.cli.piped_dump import piped_dump
from pgstow.core.errors import PgstowError, UsageError
from pgstow.core.quantities import parse_duration
from pgstow.postgres.conninfo import ConnInfo
from pgstow.state.folder import state_folder

__all__ = ["drill_command"]

_BACKUP = re.compile(r"latest|.*@.*|[0-9a-f-]{4,64}")
# Client and server of a session wait for one another in turns: on two processors one session more fills the gaps.
_JOBS = 3
_JOBS_ON_A_SERVER = 2
_URL = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)


def drill_command(
    invocation: Invocation,
    subject: SubjectArgument = None,
    latest: LatestOption = False,
    random: RandomOption = False,
    oldest: OldestOption = False,
    rotate: RotateOption = False,
    seed: SeedOption = None,
    database: DatabaseOption = None,
    kind: KindOption = None,
    on: OnOption = None,
    checks: ChecksOption = None,
    optional_extension: OptionalExtensionOption = None,
    jobs: JobsOption = None,
    rto: RtoOption = None,
    rpo: RpoOption = None,
    notes: NotesOption = None,
    report: ReportOption = None,
) -> Outcome:
    """Restore a backup where nobody works, check it, measure it, and take everything away again.

    The record of the drill is saved in the repository. Exits with 1 when the drill fails, with 3 when it passes and its record could
    not be saved, its report not be written, or what was made for it not be removed.
    """
    strategy = _strategy(latest=latest, random=random, oldest=oldest, rotate=rotate)
    dump = subject if subject is not None and is_dump(subject) else None
    if subject is not None and strategy is not None:
        raise UsageError("a backup is named, and an option is to choose one", hint="give one of the two")
    if seed is not None and strategy != "random":
        raise UsageError("--seed is for --random")
    reports = [(path, report_format(path)) for path in report or ()]
    request = DrillRequest(
        backup=subject if dump is None else None,
        strategy=strategy or "latest",
        database=database,
        kind=kind,
        seed=seed,
        server=_server(invocation, on),
        assertions=_assertions(checks),
        optional_extensions=frozenset(optional_extension or ()),
        jobs=jobs or (_JOBS if on is None else _JOBS_ON_A_SERVER),
        rto_target_s=parse_duration(rto) if rto is not None else None,
        rpo_target_s=parse_duration(rpo) if rpo is not None else None,
        terms=_terms(invocation) if dump is None else {},
        notes=notes,
        state_folder=state_folder(invocation.environ),
        server_path=invocation.environ.get("PATH", os.defpath),
        host=invocation.hostname,
        username=invocation.username,
    )
    request.check()
    drilled = _carried_out(invocation, request, dump)
    written: list[Path] = []
    unwritten: list[PgstowError] = []
    for path, form in reports:
        try:
            write_report(drilled.record, path, form)
            written.append(path)
        except PgstowError as exc:
            unwritten.append(exc)
    return _outcome(invocation, drilled, written, unwritten, is_dump=dump is not None)


def _carried_out(invocation: Invocation, request: DrillRequest, dump: str | None) -> Drilled:
    """Carry out the drill of a backup of the repository, or of a dump, which needs none."""
    if dump is not None and (request.database is not None or request.kind is not None):
        raise UsageError("--database and --kind choose among backups, and a dump is named")
    with invocation.output.progress() as progress:
        if dump is None:
            repository = invocation.repository(progress, is_cached=True, without_config=True)
            return drill_and_tell(request, repository, invocation.tools(), progress)
        return drill_dump(
            dump,
            request,
            invocation.tools(),
            progress,
            environ=invocation.environ,
            stdin=piped_dump() if dump == STDIN else None,
        )


def is_dump(text: str) -> bool:
    """Whether what is to be drilled is a dump: an address of one, or a path, and not the name of a backup.

    Raises UsageError for a path at which there is nothing.
    """
    if text == STDIN or _URL.match(text):
        return True
    if _BACKUP.fullmatch(text) and "/" not in text:
        return False
    if Path(text).expanduser().exists():
        return True
    if "/" in text:
        raise UsageError(f"there is no file or folder {text}")
    return False


def _strategy(*, latest: bool, random: bool, oldest: bool, rotate: bool) -> Strategy | None:
    given: dict[Strategy, bool] = {"latest": latest, "random": random, "oldest": oldest, "rotate": rotate}
    chosen = [strategy for strategy, is_chosen in given.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(
            f"--{chosen[0]} and --{chosen[1]} choose different backups", hint="give one of the two"
        )
    return chosen[0] if chosen else None


def _server(invocation: Invocation, on: str | None) -> ConnInfo | None:
    """Return the server to make a database on; None for a throwaway one."""
    on = on or invocation.environ.get("PGSTOW_DRILL_SERVER")
    if on in (None, "", "embedded"):
        return None
    return invocation.connection(on, variable="PGSTOW_DRILL_SERVER", what="server to drill on (--on)")


def _assertions(checks: Path | None) -> tuple[Assertion, ...]:
    if checks is None:
        return ()
    # Imported here because the reader of YAML takes a third of a second.
    from pgstow.config.assertions import read_assertions_file  # noqa: PLC0415

    return read_assertions_file(checks)


def _terms(invocation: Invocation) -> Mapping[str, DrillTerms]:
    """Return what the settings say of their databases, if the repository is one of theirs."""
    if invocation.named is None:
        return {}
    return {
        name: DrillTerms(
            assertions=one.assertions,
            optional_extensions=frozenset(one.optional_extensions),
            rto_target_s=one.rto_s,
            rpo_target_s=one.rpo_s,
            is_partial=one.is_partial,
        )
        for name, one in invocation.settings().databases.items()
    }


def _outcome(
    invocation: Invocation,
    drilled: Drilled,
    reports: list[Path],
    unwritten: list[PgstowError],
    *,
    is_dump: bool,
) -> Outcome:
    record = drilled.record
    is_saved = drilled.unsaved is None and not is_dump
    is_tidy = drilled.unsaved is None and not unwritten and record.is_removed
    status: Status = "done" if is_tidy else "partial"
    view: list[RenderableType] = list(drill_lines(record))
    if drilled.unsaved is not None:
        view += unsaved_lines(drilled.unsaved.message, drilled.kept_in)
    view += [Text.assemble(("  not written: ", "bold yellow"), safe(exc.message)) for exc in unwritten]
    if reports and not unwritten:
        view.append(Text(f"  wrote {', '.join(safe(str(path)) for path in reports)}", style="dim"))
    elif is_saved:
        view.append(
            Text(f"  pgstow drills show {record.id[:8]} --format md shows the whole report", style="dim")
        )
    output = invocation.output
    return Outcome(
        status=status if record.is_passed else "failed",
        document={
            "drill": drill_document(record),
            "saved": is_saved,
            "unsaved": output.error_document(drilled.unsaved) if drilled.unsaved is not None else None,
            "kept_in": str(drilled.kept_in) if drilled.kept_in is not None else None,
            "reports": [str(path) for path in reports],
            "report_errors": [output.error_document(exc) for exc in unwritten],
        },
        view=view,
    )
