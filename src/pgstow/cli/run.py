"""``pgstow run``"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from pgstow.app.observation import History
from pgstow.app.pings import ping_run
from pgstow.app.plan_parts import PlanParts
from pgstow.app.run_due import Verdict, find_due
from pgstow.app.run_history import RunHistory
from pgstow.app.run_plan import PlanOrder, PlanRun, RunEvent, catch_up_after, run_plan
from pgstow.cli.command import Invocation
from pgstow.cli.formats import duration_text, safe, size_text
from pgstow.cli.output import Outcome, Output, Status
from pgstow.config.finding import require_settings_file
from pgstow.config.keeping import read_kept_settings
from pgstow.config.settings import DatabaseSettings, PlanSettings, Settings
from pgstow.core.errors import Interrupted, PgstowError, RunUnderWay, StateError, UsageError
from pgstow.core.progress import Progress
from pgstow.core.quantities import parse_duration
from pgstow.jobs.dispatch import SHAPE
from pgstow.jobs.presence import DEAD_AFTER_S, Presence, bury, describe_host
from pgstow.monitor.rules.backups import REUSE_ALARM
from pgstow.state.database import StateDatabase, open_state, state_folder
from pgstow.state.dues import DueKey
from pgstow.state.runs import RunRecord
from pgstow.state.spool import Spool

__all__ = ["run_command"]

PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's name in the settings.")]
DatabaseOption = Annotated[
    list[str] | None,
    typer.Option("--database", "-d", metavar="NAME", help="Only this database of the plan."),
]
IfDueOption = Annotated[
    bool, typer.Option("--if-due", help="Only if the plan's schedule says so and nobody did it: for cron.")
]
RunWaitOption = Annotated[
    str | None,
    typer.Option(
        "--wait",
        metavar="DURATION",
        help="Wait so long, such as 10m, for other runs of the same database, server or repository. "
        "Without it pgstow gives way at once.",
    ),
]
RunLabelOption = Annotated[str | None, typer.Option("--label", metavar="TEXT", help="A note to find it by.")]
DueOption = Annotated[str | None, typer.Option("--due", hidden=True)]  # how the service calls its runs
SettingsCopyOption = Annotated[Path | None, typer.Option("--settings-copy", hidden=True)]
DeadAfterOption = Annotated[str | None, typer.Option("--dead-after", hidden=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of one database."""

    database: str | None
    run: PlanRun | None = None
    verdict: Verdict | None = None


def run_command(
    invocation: Invocation,
    plan: PlanArgument,
    database: DatabaseOption = None,
    if_due: IfDueOption = False,
    wait: RunWaitOption = None,
    label: RunLabelOption = None,
    due: DueOption = None,
    dead_after: DeadAfterOption = None,
    settings_copy: SettingsCopyOption = None,
) -> Outcome:
    """Carry out a plan of the settings now: from cron, systemd, Kubernetes or CI, or by hand.

    The same work, limits and history as the service's.
    """
    settings = _settings(invocation, settings_copy)
    chosen = _plan(settings, plan)
    databases = _databases(settings, chosen, database)
    moment = datetime.fromisoformat(due) if due else None
    orders = [
        PlanOrder(
            plan=chosen,
            database=each,
            due=DueKey(plan=plan, database=each.name if each else None, due=moment) if moment else None,
            label=label,
            wait_s=parse_duration(wait) if wait else 0.0,
        )
        for each in databases
    ]
    dead_after_s = parse_duration(dead_after) if dead_after else DEAD_AFTER_S
    with (
        invocation.output.progress() as progress,
        _parts(invocation, settings, progress, dead_after_s, needs_state=moment is not None) as parts,
        _pinging(parts) as on_event,
    ):
        done = _carry_out_all(orders, parts, on_event, if_due=if_due)
    return _outcome(invocation.output, chosen, done)


def _settings(invocation: Invocation, copy: Path | None) -> Settings:
    """Return the settings; for a run of the service those that are in force there."""
    if copy is None:
        return invocation.settings()
    path = require_settings_file(invocation.config_file, invocation.environ)
    settings = read_kept_settings(copy, path)
    invocation.note_settings(path, copy)
    return settings


def _plan(settings: Settings, name: str) -> PlanSettings:
    if name not in settings.plans:
        near = difflib.get_close_matches(name, settings.plans, 1)
        raise UsageError(
            f"the settings have no plan called {name}",
            hint=f"did you mean {near[0]}?" if near else "its plans: " + ", ".join(settings.plans),
        )
    return settings.plans[name]


def _databases(
    settings: Settings, plan: PlanSettings, names: Sequence[str] | None
) -> list[DatabaseSettings | None]:
    if not plan.is_for_databases:
        if names:
            raise UsageError(f"plan {plan.name} is for repositories, not for a database")
        return [None]
    for name in names or ():
        if name not in plan.databases:
            raise UsageError(
                f"plan {plan.name} has no database called {name}",
                hint="its databases: " + ", ".join(plan.databases),
            )
    return [settings.databases[name] for name in plan.databases if not names or name in names]


@contextlib.contextmanager
def _parts(
    invocation: Invocation, settings: Settings, progress: Progress, dead_after_s: float, *, needs_state: bool
) -> Iterator[PlanParts]:
    """Give what a run needs; the process is entered among the hosts for so long, where there is a state database."""
    host = describe_host("run", shape=SHAPE, dead_after_s=dead_after_s)
    parts = PlanParts(
        settings=settings,
        environ=invocation.environ,
        tools=invocation.tools(),
        username=invocation.username,
        hostname=invocation.hostname,
        host_id=host.id,
        state=None,
        spool=Spool(state_folder(invocation.environ) / "spool"),
        progress=progress,
        conceal=invocation.output.conceal,
    )
    with contextlib.ExitStack() as stack:
        try:
            state = _open_state(invocation, settings)
            stack.callback(state.close)
            presence = stack.enter_context(Presence(state, host))
            bury(presence, state)
            RunHistory(state, parts.spool, progress.note).deliver()
        except StateError as exc:
            if needs_state:
                raise
            progress.note(f"{exc.message}; the plan is carried out all the same")
            yield parts
            return
        yield replace(parts, state=state)


def _open_state(invocation: Invocation, settings: Settings) -> StateDatabase:
    url = settings.state.resolve(invocation.environ) if settings.state is not None else None
    if url is not None:
        invocation.output.conceal(url.reveal())
    return open_state(url, invocation.environ)


def _carry_out_all(
    orders: Sequence[PlanOrder], parts: PlanParts, on_event: Callable[[RunEvent], None], *, if_due: bool
) -> list[_Done]:
    done: list[_Done] = []
    try:
        for order in orders:
            done.append(_carry_out(order, parts, on_event, if_due=if_due))
            run = done[-1].run
            if run is not None and run.interrupted is not None:  # too late for this one
                if len(done) < len(orders):
                    raise run.interrupted
                return done
        # Only now: no backup waits for a copy of an earlier one.
        return [_catch_up(order, one, parts) for order, one in zip(orders, done, strict=True)]
    except Interrupted as exc:
        if len(done) == len(orders):
            exc.left_behind = (
                "the runs are done; what repositories had missed before, the next run brings them"
            )
        elif done:
            exc.left_behind = f"{len(done)} of {len(orders)} databases were dealt with before; a run under way is written down as interrupted"
        raise


def _carry_out(
    order: PlanOrder, parts: PlanParts, on_event: Callable[[RunEvent], None], *, if_due: bool
) -> _Done:
    name = order.database.name if order.database is not None else None
    if name is not None:
        parts.progress.note(f"database {name}")
    if if_due:
        verdict = find_due(order.plan, order.database, parts)
        if verdict.due is None:
            return _Done(database=name, verdict=verdict)
        order = replace(order, due=verdict.due)
    return _Done(database=name, run=run_plan(order, parts, on_event=on_event))


def _catch_up(order: PlanOrder, one: _Done, parts: PlanParts) -> _Done:
    return one if one.run is None else replace(one, run=catch_up_after(order, one.run, parts))


@contextlib.contextmanager
def _pinging(parts: PlanParts) -> Iterator[Callable[[RunEvent], None]]:
    """Give what tells the dead man's switches that runs begin and end; at the end it waits until they have heard."""
    history = History(state=parts.state)
    under_way: list[threading.Thread] = []

    def tell(event: RunEvent) -> None:
        thread = ping_run(event.plan, event.record, parts.environ, history)
        if thread is not None:
            under_way.append(thread)

    try:
        yield tell
    finally:
        for thread in under_way:
            thread.join()  # half a minute at the most


def _outcome(output: Output, plan: PlanSettings, done: Sequence[_Done]) -> Outcome:
    runs = [one.run for one in done if one.run is not None]
    if len(done) == 1:
        _raise_alone(done[0])
    bad = [run for run in runs if run.record.outcome == "failed"]
    partial = [run for run in runs if run.record.outcome == "partial"]
    status: Status = "done"
    if any(warning.startswith(REUSE_ALARM) for run in runs for warning in run.record.warnings):
        status = "failed"  # the new backup is right, and an earlier one may not be
    elif bad or partial:
        status = "failed" if len(bad) == len(runs) else "partial"
    document: dict[str, Any] = {
        "plan": plan.name,
        "kind": plan.kind,
        "runs": [_run_document(output, run) for run in runs],
        "not_run": [_verdict_document(one) for one in done if one.run is None],
    }
    return Outcome(
        status=status, document=document, view=[line for one in done for line in _view(output, one)]
    )


def _raise_alone(one: _Done) -> None:
    """A run that was the only one and failed is the command's own failure, and so is one that another process has."""
    if one.run is not None and one.run.record.outcome == "failed" and one.run.error is not None:
        raise one.run.error
    if one.run is None and _reason(one.verdict) == "under_way":
        host = one.verdict.host if one.verdict is not None else None
        raise RunUnderWay(
            f"{host or 'another process'} carries it out already", hint="nothing is left to do here"
        )


def _run_document(output: Output, run: PlanRun) -> dict[str, Any]:
    record = run.record
    return {
        "id": record.id,
        "database": record.database,
        "due": record.due.isoformat() if record.due else None,
        "outcome": record.outcome,
        "backup": record.backup_id,
        "drill": record.drill_id,
        "started": record.started.isoformat(),
        "finished": record.finished.isoformat() if record.finished else None,
        "size_bytes": record.size_bytes,
        "new_bytes": record.new_bytes,
        "stored_bytes": record.stored_bytes,
        "destinations": [
            {
                "repository": one.repository,
                "snapshot": one.snapshot_id,
                "caught_up": list(one.caught_up),
                "error": {"code": one.error_code, "message": output.scrub(one.error or "")}
                if one.error_code
                else None,
            }
            for one in record.destinations
        ],
        "warnings": [output.scrub(warning) for warning in record.warnings],
        "error": output.error_document(run.error) if isinstance(run.error, PgstowError) else None,
    }


def _verdict_document(one: _Done) -> dict[str, Any]:
    verdict = one.verdict
    return {
        "database": one.database,
        "reason": _reason(verdict),
        "retry": verdict.retry.isoformat() if verdict and verdict.retry else None,
        "next_due": verdict.next_due.isoformat() if verdict and verdict.next_due else None,
    }


def _reason(verdict: Verdict | None) -> str:
    if verdict is None or verdict.host is not None:
        return "under_way"
    if verdict.retry is not None:
        return "retry"
    return "missed" if verdict.missed is not None else "not_due"


def _view(output: Output, one: _Done) -> Iterator[RenderableType]:
    subject = safe(one.database) if one.database else "repositories"
    if one.run is None:
        reason = {
            "under_way": "another process carries it out",
            "missed": "missed: the time to catch it up has passed",
            "retry": "failed, and is tried again later",
            "not_due": "not due",
        }[_reason(one.verdict)]
        following = (one.verdict.retry or one.verdict.next_due) if one.verdict else None
        then = f", next at {following:%Y-%m-%d %H:%M:%S}Z" if following else ""
        yield Text(f"{subject}: {reason}{then}")
        return
    record = one.run.record
    style = {"done": "green", "partial": "yellow"}.get(record.outcome, "bold red")
    yield Text.assemble((record.outcome, style), f" {subject} ({safe(record.kind)})", _facts(record))
    for each in record.destinations:
        if each.error is not None:
            yield Text.assemble(
                ("  failed: ", "bold red"), f"{safe(each.repository)}: {safe(output.scrub(each.error))}"
            )
        if brought := [safe(backup_id[:8]) for backup_id in each.caught_up]:
            yield Text(f"  caught up: {safe(each.repository)}: {', '.join(brought)}")
    if record.error is not None and record.outcome == "failed":
        yield Text.assemble(("  error: ", "bold red"), safe(output.scrub(record.error)))
    for warning in record.warnings:
        yield Text.assemble(("  warning: ", "yellow"), safe(output.scrub(warning)))


def _facts(record: RunRecord) -> str:
    parts = [f"drill {record.drill_id[:8]}"] if record.drill_id else []
    parts += [f"backup {record.backup_id[:8]}"] if record.backup_id else []
    if record.size_bytes is not None:
        parts.append(size_text(record.size_bytes))
    if record.finished is not None:
        parts.append(duration_text((record.finished - record.started).total_seconds()))
    return ": " + ", ".join(parts) if parts else ""
