"""How the commands of ``pgstow service`` show their work."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from pgstow.app.systemd_install import Change
from pgstow.cli.formats import safe
from pgstow.cli.service_options import InstallPlan

__all__ = [
    "install_document",
    "install_view",
    "show_document",
    "show_view",
    "uninstall_document",
    "uninstall_view",
]

_DONE: Mapping[str, str] = {
    "create": "written",
    "replace": "replaced",
    "keep": "unchanged",
    "remove": "removed",
}
_WOULD: Mapping[str, str] = {
    "create": "would be written",
    "replace": "would be replaced",
    "keep": "unchanged",
    "remove": "would be removed",
}

Steps = Sequence[Sequence[str]]


def install_document(
    plan: InstallPlan, steps: Steps, *, is_dry_run: bool, is_enabled: bool
) -> dict[str, Any]:
    """Return the document of ``service install``."""
    return {
        "dry_run": is_dry_run,
        "enabled": is_enabled,
        "units": [_unit(change) for change in plan.changes],
        "variables": list(plan.needs.variables),
        "files": [str(path) for path in plan.needs.files],
        "todo": list(plan.todo),
        "next_commands": [] if is_enabled else _commands(steps),
    }


def install_view(
    plan: InstallPlan, steps: Steps, *, is_dry_run: bool, is_enabled: bool
) -> Iterator[RenderableType]:
    """Return what a person sees of it."""
    yield from _changes(plan.changes, is_dry_run=is_dry_run)
    if plan.todo:
        yield Text("\nBefore it can work", style="bold")
        yield from (Text(f"  {safe(line)}") for line in plan.todo)
    yield from _next(steps, is_done=is_enabled, said="enabled and started")


def show_document(plan: InstallPlan, steps: Steps) -> dict[str, Any]:
    """Return the document of ``service show``: that of a dry run, with the units' text."""
    document = install_document(plan, steps, is_dry_run=True, is_enabled=False)
    texts = {change.name: change.text for change in plan.changes}
    document["units"] = [{**unit, "text": texts[unit["name"]]} for unit in document["units"]]
    return document


def show_view(plan: InstallPlan) -> Iterator[RenderableType]:
    """Return the units, each under a line that says where it belongs."""
    for change in plan.changes:
        yield Text(f"# {safe(str(change.path))}: {_state(change, is_dry_run=True)}", style="bold")
        if change.text is not None:
            yield Text(change.text)


def uninstall_document(
    changes: Sequence[Change], steps: Steps, *, is_dry_run: bool, is_stopped: bool
) -> dict[str, Any]:
    """Return the document of ``service uninstall``."""
    return {
        "dry_run": is_dry_run,
        "stopped": is_stopped,
        "units": [_unit(change) for change in changes],
        "next_commands": [] if is_stopped else _commands(steps),
    }


def uninstall_view(
    changes: Sequence[Change], steps: Steps, *, is_dry_run: bool, is_stopped: bool
) -> Iterator[RenderableType]:
    """Return what a person sees of it."""
    if not changes:
        yield Text("there is no unit of pgstow's")
        return
    yield from _changes(changes, is_dry_run=is_dry_run)
    yield from _next(steps, is_done=is_stopped, said="stopped")


def _unit(change: Change) -> dict[str, Any]:
    return {
        "name": change.name,
        "path": str(change.path),
        "action": change.action,
        "foreign": change.is_foreign,
        "remark": change.remark,
    }


def _changes(changes: Sequence[Change], *, is_dry_run: bool) -> Iterator[RenderableType]:
    for change in changes:
        yield Text(f"{safe(str(change.path))}: {_state(change, is_dry_run=is_dry_run)}")
        if change.remark:
            yield Text(f"  {safe(change.remark)}", style="dim")


def _state(change: Change, *, is_dry_run: bool) -> str:
    words = (_WOULD if is_dry_run else _DONE)[change.action]
    if change.is_foreign and change.action != "keep" and is_dry_run:
        return f"{words}, but only with --force: it was not written by pgstow, or was changed since"
    return words


def _next(steps: Steps, *, is_done: bool, said: str) -> Iterator[RenderableType]:
    if is_done:
        yield Text(said)
    elif steps:
        yield Text("\nThen", style="bold")
        yield from (Text(f"  {line}") for line in _commands(steps))


def _commands(steps: Steps) -> list[str]:
    return [shlex.join(step) for step in steps]
