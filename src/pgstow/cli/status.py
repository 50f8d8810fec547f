"""``pgstow status``"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from pgstow.app.looking import Look
from pgstow.app.observation import Place
from pgstow.app.status import repository_status, settings_status
from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.cli.status_check import check_outcome, unknown_outcome
from pgstow.cli.status_document import status_document
from pgstow.cli.status_view import status_view
from pgstow.config.finding import find_settings_file
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.quantities import parse_duration
from pgstow.monitor.verdict import Verdict

__all__ = ["status_command"]

_MAX_AGE_S = 26 * 3600.0  # of a check without settings: a day and two hours


def status_command(
    invocation: Invocation,
    database: Annotated[
        list[str] | None,
        typer.Option("--database", metavar="NAME", help="Only this database. May be given several times."),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(
            "--max-age",
            metavar="DURATION",
            help="How old the newest whole backup may be, such as 26h (which --check of a single repository assumes).",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="For Nagios and its kin: one line with performance data; exits with 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
        ),
    ] = False,
) -> Outcome:
    """Say how the databases stand: newest backups, their age, what runs next, what each repository lacks, storage.

    Backups are read from the repositories themselves. Looks at everything in the settings, or with --repo at one
    repository. Exits with 3 when something could not be looked at.
    """

    def look() -> Verdict:
        max_age_s = None if max_age is None else parse_duration(max_age)
        return _verdict(invocation, database or [], max_age_s, is_check=check)

    if check:
        return _checked(invocation, look)
    verdict = look()
    facts = verdict.facts
    are_known = all(each.is_known and each.drills_error is None for each in facts.repositories.values())
    is_known = are_known and facts.runs_error is None
    return Outcome(
        status="done" if is_known else "partial",
        document=status_document(verdict, invocation.output),
        view=list(status_view(verdict, invocation.output)),
    )


def _checked(invocation: Invocation, look: Callable[[], Verdict]) -> Outcome:
    try:
        verdict = look()
    except Interrupted:
        raise
    except PgstowError as exc:  # a monitor takes the exit code of any other error for something it is not
        return unknown_outcome(exc, invocation.output)
    return check_outcome(verdict, status_document(verdict, invocation.output), invocation.output)


def _verdict(
    invocation: Invocation, databases: list[str], max_age_s: float | None, *, is_check: bool
) -> Verdict:
    now = datetime.now(UTC)
    has_settings = find_settings_file(invocation.config_file, invocation.environ) is not None
    with invocation.output.progress() as progress:
        if invocation.given_location is None and (has_settings or invocation.location is None):
            look = Look(
                settings=invocation.settings(),
                environ=invocation.environ,
                now=now,
                databases=databases,
                note=progress.note,
                conceal=invocation.output.conceal,
            )
            return settings_status(look, max_age_s=max_age_s)
        verdict = repository_status(
            _place(invocation),
            now=now,
            databases=databases,
            max_age_s=_MAX_AGE_S if is_check and max_age_s is None else max_age_s,
            note=progress.note,
        )
    (repository,) = verdict.facts.repositories.values()
    if repository.error is not None:
        raise repository.error
    return verdict


def _place(invocation: Invocation) -> Place:
    named = invocation.named
    return Place(
        name="repository" if named is None else named.name,
        location=invocation.require_location(),
        unlock=lambda: (invocation.password(), invocation.environ),
        quota_bytes=None if named is None else named.quota_bytes,
    )
