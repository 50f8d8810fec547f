"""``pgstow retention apply``"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.retention import (
    AppliedRetention,
    RetentionRequest,
    apply_retention,
    plan_retention_only,
)
from pgstow.cli.command import Invocation
from pgstow.cli.formats import plural, safe
from pgstow.cli.output import Outcome
from pgstow.cli.repo_prune import prune_document, prune_view
from pgstow.cli.retention_options import (
    DatabaseOption,
    KeepOption,
    NoPromoteOption,
    TimeZoneOption,
    WaitOption,
)
from pgstow.cli.retention_rules import GivenRules, rules_from
from pgstow.cli.retention_view import (
    drop_lines,
    note_lines,
    plan_document,
    plan_view,
    read_planned,
    summary_line,
)
from pgstow.core.errors import UsageError
from pgstow.core.progress import Progress
from pgstow.core.quantities import parse_duration
from pgstow.repository import Repository
from pgstow.upkeep.expire import ExpiryPlan, PlannedDrops
from pgstow.upkeep.prune_plan import PruneOptions

__all__ = ["retention_apply_command"]


def retention_apply_command(
    invocation: Invocation,
    keep: KeepOption = None,
    time_zone: TimeZoneOption = None,
    no_promote: NoPromoteOption = False,
    database: DatabaseOption = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="HASH|FILE",
            help="Remove what this plan says and nothing else: its hash, or a file with what retention plan --json printed.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="As pgstow retention plan: change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal either.")] = False,
    no_prune: Annotated[
        bool, typer.Option("--no-prune", help="Do not free what the removed backups alone needed.")
    ] = False,
    wait: WaitOption = "0",
) -> Outcome:
    """Remove the backups that expire, then prune. On a terminal the plan is shown and confirmed first.

    The plan is made anew while nobody else uses the repository. With --plan nothing at all is removed if it is another one
    by then. Space is freed in two steps: by the next prune, a day later or more. Exits with 3 when the backups were
    removed and the prune failed.
    """
    rules = rules_from(invocation, keep, time_zone, no_promote=no_promote)
    request = rules.request(invocation, database)
    planned, wait_s = read_planned(plan), parse_duration(wait)
    with invocation.output.progress() as progress:
        repository = invocation.repository(progress)
        if dry_run:
            return _dry_run(plan_retention_only(repository, request, progress, wait_s=wait_s), planned, rules)
    is_asked = planned is None and not yes and invocation.output.is_interactive
    if is_asked:
        planned = _confirmed(invocation, repository, request, rules, wait_s=wait_s)
    with invocation.output.progress() as progress:
        applied = apply_retention(
            repository,
            request,
            progress,
            planned=planned,
            prune=None if no_prune else PruneOptions(),
            show=lambda made: None if is_asked else _tell(invocation, made, progress),
            wait_s=wait_s,
        )
    return _outcome(invocation, applied, rules)


def _dry_run(plan: ExpiryPlan, planned: PlannedDrops | None, rules: GivenRules) -> Outcome:
    if planned is not None:
        plan.require(planned)
    return Outcome(
        document={"dry_run": True, "plan": plan_document(plan, rules), "prune": None, "prune_error": None},
        view=list(plan_view(plan, rules)),
    )


def _confirmed(
    invocation: Invocation,
    repository: Repository,
    request: RetentionRequest,
    rules: GivenRules,
    *,
    wait_s: float,
) -> PlannedDrops | None:
    """Return the plan that a person has seen and agreed to; nobody else waits while he thinks."""
    with invocation.output.progress() as progress:
        plan = plan_retention_only(repository, request, progress, wait_s=wait_s)
    if plan.dropped:
        lines = "".join(f"{line}\n" for line in [*drop_lines(plan), *note_lines(plan)])
        number = plural(len(plan.dropped), "backup")
        answer = invocation.output.question(
            f"{lines}By {rules}, {number} will be removed for ever, {len(plan.kept):,} kept. Type yes to go on: "
        )
        if (answer or "").strip().lower() != "yes":
            raise UsageError("not confirmed: nothing was removed", hint="--yes goes on without asking")
    dropped = frozenset(decision.backup.id for decision in plan.dropped)
    return PlannedDrops(hash=plan.hash, backup_ids=dropped)


def _tell(invocation: Invocation, plan: ExpiryPlan, progress: Progress) -> None:
    if not invocation.output.as_json:
        for line in [*drop_lines(plan), *note_lines(plan)]:
            progress.note(line)


def _outcome(invocation: Invocation, applied: AppliedRetention, rules: GivenRules) -> Outcome:
    error = applied.prune_error
    return Outcome(
        status="partial" if error is not None else "done",
        document={
            "dry_run": False,
            "plan": plan_document(applied.plan, rules),
            "prune": _prune_document(applied),
            "prune_error": invocation.output.error_document(error) if error is not None else None,
        },
        view=list(_view(applied, rules)),
    )


def _prune_document(applied: AppliedRetention) -> dict[str, Any] | None:
    return None if applied.prune is None else prune_document(*applied.prune)


def _view(applied: AppliedRetention, rules: GivenRules) -> Iterator[RenderableType]:
    yield Text(safe(summary_line(applied.plan, "removed", rules)))
    if applied.prune is not None:
        yield from (Text(line) for line in prune_view(*applied.prune))
    if applied.prune_error is not None:
        yield Text.assemble(
            ("the prune failed: ", "bold red"),
            f"{safe(applied.prune_error.message)}; pgstow repo prune frees the space",
        )
