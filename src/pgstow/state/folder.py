"""Where state is kept on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["state_folder"]


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return where state is kept on this machine: PGSTOW_STATE_DIR, or the place that XDG names."""
    if given := environ.get("PGSTOW_STATE_DIR"):
        return Path(given)
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path(environ.get("HOME") or "/var/lib") / ".local/state") / "pgstow"
