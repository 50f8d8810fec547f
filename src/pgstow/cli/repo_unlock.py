"""``pgstow repo unlock``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.unlock import UnlockReport, confirmation_of, unlock
from pgstow.cli.command import Invocation
from pgstow.cli.formats import duration_text, plural, safe
from pgstow.cli.output import Outcome
from pgstow.core.errors import UsageError
from pgstow.repository import Obstacle, Repository

__all__ = ["repo_unlock_command"]

_RISK = (
    "Whoever still works with one of these loses it: a backup then fails without being published, but a restic backup\n"
    "or a restore goes on, and a prune may take away what it needs. Be sure that nothing uses the repository, on no\n"
    "machine.\n"
)


def repo_unlock_command(
    invocation: Invocation,
    remove_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Remove every lock and lease, also those that are in use. Needs --confirm.",
        ),
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm",
            metavar="ID",
            help="The first 8 characters of the repository's id, to say that nothing uses it. Asked for on a terminal.",
        ),
    ] = None,
) -> Outcome:
    """Remove the locks and leases that dead processes left behind.

    pgstow does that by itself where its own stand in the way; restic's locks it leaves alone. Dead means: the
    process ran here and has ended, or nothing was refreshed for half an hour by the store's clock. Locks that may
    be in use are only removed with --all: a restic backup or a restore that still runs would go on without
    protection from a prune.
    """
    if confirm is not None and not remove_all:
        raise UsageError("--confirm means nothing without --all")
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)

    def ask(alive: Sequence[Obstacle]) -> str | None:
        return confirm if confirm is not None else _ask(invocation, repository, alive)

    report = unlock(repository, remove_all=remove_all, ask=ask)
    return Outcome(document=_document(report), view=list(_view(report)))


def _ask(invocation: Invocation, repository: Repository, alive: Sequence[Obstacle]) -> str | None:
    """Return what a person typed to confirm; None when there is no one, and nothing will be removed."""
    lines = "".join(f"  {_text(obstacle)}: {obstacle.why}\n" for obstacle in alive)
    return invocation.output.question(
        f"{lines}{_RISK}Type {confirmation_of(repository)}, the beginning of the repository's id, to go on: "
    )


def _document(report: UnlockReport) -> dict[str, Any]:
    return {
        "removed": [_entry(obstacle) for obstacle in report.removed],
        "kept": [_entry(obstacle) for obstacle in report.kept],
    }


def _entry(obstacle: Obstacle) -> dict[str, Any]:
    return {
        "kind": obstacle.kind,
        "file": obstacle.name,
        "who": obstacle.who,
        "database": obstacle.database,
        "exclusive": obstacle.is_exclusive,
        "idle_seconds": round(obstacle.age_s, 1),
        "dead": obstacle.is_dead,
        "why": obstacle.why,
    }


def _view(report: UnlockReport) -> Iterator[RenderableType]:
    for obstacle in report.removed:
        forced = "" if obstacle.is_dead else ", by force"
        yield Text.assemble(("removed ", "green"), f"{_text(obstacle)}: {obstacle.why}{forced}")
    for obstacle in report.kept:
        yield Text.assemble(("left ", "yellow"), f"{_text(obstacle)}: {obstacle.why}")
    if not report.removed:
        yield Text("nothing to remove" if report.kept else "there are no locks and no leases")
    elif report.kept:
        yield Text(f"{plural(len(report.kept), 'lock or lease', 'locks and leases')} in use", style="dim")


def _text(obstacle: Obstacle) -> str:
    if obstacle.kind == "lease":
        what = f"lease of {safe(obstacle.database or 'an unknown database')}"
    else:
        what = "exclusive lock" if obstacle.is_exclusive else "lock"
    return f"{what}, held by {safe(obstacle.who)}, refreshed {duration_text(max(0.0, obstacle.age_s))} ago"
