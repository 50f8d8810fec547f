"""The use case: put systemd's units for the settings in place, or take them away.

Only files that were written here and not changed since are replaced or removed. Each is replaced in one step, so
systemd never reads half of one; a run that was interrupted is finished by the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgstow.app.systemd_units import SERVICE, Unit
from pgstow.core.errors import PgstowError, UsageError
from pgstow.core.process import run

__all__ = ["Change", "apply_changes", "plan_install", "plan_uninstall", "run_systemctl", "systemctl_steps"]

Action = Literal["create", "replace", "keep", "remove"]

_HEAD = (
    "# Written by pgstow service install, which will replace it. What you add belongs into a drop-in: systemctl edit {name}\n"
    "# sha256 of the lines below: {digest}\n"
)
_FIRST_WORDS = "# Written by pgstow service install"
_PATTERNS = (SERVICE, "pgstow-run@.service", "pgstow-run@*.timer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one unit's file. ``is_foreign``: the file there is somebody else's, or was changed by hand."""

    name: str
    path: Path
    action: Action
    text: str | None = None  # with its head; None for one that is removed
    is_foreign: bool = False
    is_enabled: bool = False  # one that is to be enabled
    remark: str | None = None


def plan_install(folder: Path, units: Sequence[Unit]) -> Sequence[Change]:
    """Return what writing ``units`` to ``folder`` changes; units of an earlier installation that are not wanted any more go."""
    wanted = [_change(folder, unit) for unit in units]
    names = {change.name for change in wanted}
    return [*wanted, *(change for change in plan_uninstall(folder) if change.name not in names)]


def plan_uninstall(folder: Path) -> Sequence[Change]:
    """Return the removal of every unit in ``folder`` that was written here. What others wrote is not mentioned."""
    found = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    texts = {path: _read(path) for path in found}
    return [
        Change(name=path.name, path=path, action="remove", is_foreign=not _is_untouched(text))
        for path, text in texts.items()
        if text is not None and text.startswith(_FIRST_WORDS)
    ]


def apply_changes(changes: Sequence[Change], *, is_forced: bool = False) -> None:
    """Write and remove files as planned.

    Raises UsageError, and touches nothing, when that would lose somebody else's work, unless ``is_forced``.
    """
    foreign = [change for change in changes if change.is_foreign and change.action != "keep"]
    if foreign and not is_forced:
        raise UsageError(
            f"{foreign[0].path} was not written by pgstow, or was changed since",
            hint="keep your changes as a drop-in (systemctl edit), or give --force to lose them",
            files=[str(change.path) for change in foreign],
        )
    for change in changes:
        with _told(change):
            if change.action == "remove":
                _remove(change.path)
            elif change.action != "keep":
                assert change.text is not None
                _replace(change.path, change.text)


def systemctl_steps(changes: Sequence[Change], *, is_user: bool) -> Sequence[Sequence[str]]:
    """Return the calls of systemctl that make systemd follow the changes."""
    systemctl = ["systemctl", "--user"] if is_user else ["systemctl"]
    removed = [change.name for change in changes if change.action == "remove" and "@." not in change.name]
    enabled = [change.name for change in changes if change.is_enabled]
    replaced = [change.name for change in changes if change.is_enabled and change.action == "replace"]
    steps = [[*systemctl, "daemon-reload"]]
    if removed:
        steps.append([*systemctl, "stop", *removed])
    if enabled:
        steps.append([*systemctl, "enable", "--now", *enabled])
    if replaced:  # what runs already goes on with its old settings
        steps.append([*systemctl, "try-restart", *replaced])
    return steps


def run_systemctl(steps: Sequence[Sequence[str]]) -> None:
    """Carry out the steps. Raises ToolMissing or ProcessFailed; the units are in place then all the same."""
    for step in steps:
        run(step)


def _change(folder: Path, unit: Unit) -> Change:
    path = folder / unit.name
    present, text = _read(path), _signed(unit)
    is_foreign = present is not None and not _is_untouched(present)
    action: Action = "create" if present is None else "keep" if present == text else "replace"
    return Change(
        name=unit.name,
        path=path,
        action=action,
        text=text,
        is_foreign=is_foreign,
        is_enabled=unit.is_enabled,
        remark=unit.remark,
    )


def _signed(unit: Unit) -> str:
    return _HEAD.format(name=unit.name, digest=_digest(unit.text)) + unit.text


def _is_untouched(text: str) -> bool:
    """Whether it was written here and not changed since."""
    first, _, rest = text.partition("\n")
    second, _, body = rest.partition("\n")
    return first.startswith(_FIRST_WORDS) and second.endswith(f" {_digest(body)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str | None:
    """Return what is there; None where nothing is. A link (``systemctl mask``) is nobody's text."""
    try:
        return "" if path.is_symlink() else path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PgstowError(f"{path} cannot be read: {exc.strerror}") from exc


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".pgstow-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123  a descriptor, not a path
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, 0o644)  # units hold no secrets, and systemctl cat is for everybody
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _remove(path: Path) -> None:
    """Remove a unit and, first, the links by which it is enabled, which would point to nothing."""
    for link in path.parent.glob(f"*.wants/{path.name}"):
        if link.is_symlink():
            link.unlink()
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(change: Change) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        verb = "removed" if change.action == "remove" else "written"
        raise PgstowError(
            f"{change.path} cannot be {verb}: {exc.strerror}",
            hint="units of the machine are root's business: call it as root, or give --user for your own account",
        ) from exc
