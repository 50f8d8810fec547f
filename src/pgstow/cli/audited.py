"""What each command is in the audit trail.

A command that is not here is recorded under its own name; a test demands that every one is, with the reason where it is exempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["AUDITED", "Audited", "Exempt", "audited"]


def _never(_given: Mapping[str, Any]) -> bool:
    return False


def _always(_given: Mapping[str, Any]) -> bool:
    return True


def _unless_dry_run(given: Mapping[str, Any]) -> bool:
    return not given.get("dry_run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A command whose accesses are recorded, as ``action``, with those of its ``arguments`` that hold no secret.

    ``is_destructive`` tells by the arguments whether an entry is written before it begins, too.
    """

    action: str
    arguments: tuple[str, ...] = ()
    is_destructive: Callable[[Mapping[str, Any]], bool] = _never

    def facts(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return what the entry says of the arguments; those that were not given say nothing."""
        return {name: text for name in self.arguments if (text := _text(given.get(name)))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exempt:
    """A command that is not recorded, and why."""

    because: str


def _text(value: object) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "yes" if value is True else str(getattr(value, "value", value))


_WATCHES = Exempt(
    because="watches: it reads names and times, every minute or so, and nothing inside a backup"
)
_NO_REPOSITORY = Exempt(because="opens no repository")

AUDITED: Mapping[str, Audited | Exempt] = MappingProxyType(
    {
        "init": Audited(action="init"),
        "backup": Audited(action="backup", arguments=("name", "kind", "label", "table", "schema")),
        "list": Audited(action="list", arguments=("name", "kind")),
        "show": Audited(action="show", arguments=("backup",)),
        "restore": Audited(
            action="restore",
            arguments=("backup", "table", "schema", "clean", "create", "schema_only", "data_only", "compare"),
            is_destructive=lambda given: bool(given.get("clean")),
        ),
        "verify": Audited(action="verify", arguments=("backup", "backups", "read_data")),
        "export": Audited(action="export", arguments=("backup", "output_format", "output", "data_only")),
        "drill": Audited(action="drill", arguments=("subject", "database", "kind")),
        "drills list": Audited(action="drills list"),
        "drills show": Audited(action="drills show", arguments=("drill",)),
        "import": Audited(action="import", arguments=("dump", "name")),
        "evidence report": Audited(action="evidence report", arguments=("period", "output", "probe_delete")),
        "evidence verify": _NO_REPOSITORY,
        "evidence attest": Exempt(because="writes entries of its own, and fails where it cannot"),
        "doctor": Exempt(because="looks whether a repository opens, and at nothing in it"),
        "status": _WATCHES,
        "metrics": _WATCHES,
        "checklist": _WATCHES,
        "demo": Exempt(because="makes a repository of its own and removes it"),
        "repo prune": Audited(action="prune", arguments=("dry_run",), is_destructive=_unless_dry_run),
        "repo stats": Audited(action="stats"),
        "repo unlock": Audited(action="unlock", arguments=("remove_all",), is_destructive=_always),
        "keys list": Audited(action="keys list"),
        "keys test": Audited(action="keys test", arguments=("note",)),
        "keys add": Audited(action="keys add"),
        "keys remove": Audited(action="keys remove", arguments=("key",), is_destructive=_always),
        "keys passwd": Audited(action="keys passwd", is_destructive=_always),
        "repo copy": Audited(action="copy", arguments=("backups", "is_catch_up", "dry_run")),
        "repo rekey": Audited(action="rekey", arguments=("to",), is_destructive=_always),
        "repo check": Audited(action="check"),
        "repo repair": Audited(
            action="repair", arguments=("dry_run", "apply"), is_destructive=_unless_dry_run
        ),
        "config check": _NO_REPOSITORY,
        "config show": _NO_REPOSITORY,
        "config schema": _NO_REPOSITORY,
        "service install": _NO_REPOSITORY,
        "service uninstall": _NO_REPOSITORY,
        "service show": _NO_REPOSITORY,
        "retention plan": Audited(action="retention plan", arguments=("keep", "database")),
        "retention apply": Audited(
            action="retention apply",
            arguments=("keep", "database", "dry_run"),
            is_destructive=_unless_dry_run,
        ),
        "hold": Audited(action="hold", arguments=("backup", "reason", "until")),
        "release": Audited(action="release", arguments=("backup", "reason")),
        "retire": Audited(action="retire", arguments=("name", "reason", "undo")),
        "run": Audited(action="run", arguments=("plan",)),  # what it does in each run has its own entries
        "serve": Exempt(because="starts runs, which are recorded, and watches"),
        "alerts list": _WATCHES,
        "alerts check": _WATCHES,
        "alerts ack": _NO_REPOSITORY,
        "alerts silence": _NO_REPOSITORY,
        "alerts test": _NO_REPOSITORY,
        "audit list": Audited(action="audit list", arguments=("since", "until", "action", "host", "backup")),
        "audit verify": Audited(action="audit verify"),
        "audit export": Audited(action="audit export", arguments=("output",)),
        "audit anchor": Audited(action="audit anchor"),
        "audit enroll": Audited(action="audit enroll", arguments=("host",)),
        "audit revoke": Audited(action="audit revoke", arguments=("host", "reason")),
        "audit admin-key": _NO_REPOSITORY,
    }
)


def audited(command: str) -> Audited | Exempt:
    """Return what a command is in the audit trail; one that nobody thought of is recorded."""
    return AUDITED.get(command, Audited(action=command))
