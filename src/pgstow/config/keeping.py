"""Settings that stay in force while their file is being edited: kept as they were read, for the processes of a service."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pgstow.config.problems import invalid
from pgstow.config.reading import parse_settings
from pgstow.config.settings import Settings
from pgstow.core.errors import StateError, UsageError
from pgstow.core.folders import make_private_folder

__all__ = ["forget_copies", "keep_settings", "read_kept_settings"]

_KEPT_S = 30 * 86400.0


def keep_settings(path: Path, folder: Path) -> tuple[Settings, Path]:
    """Return what the file at ``path`` says, and a copy of it in ``folder`` that nobody edits.

    Raises UsageError when it cannot be read, ConfigInvalid when it is wrong, StateError when the copy cannot be written.
    """
    data = _read(path)
    settings = _parse(data, path)
    copy = folder / f"settings-{hashlib.sha256(data).hexdigest()[:16]}.yaml"
    temporary = copy.with_suffix(".tmp")
    try:
        make_private_folder(folder)
        temporary.write_bytes(data)
        temporary.chmod(0o600)
        temporary.replace(copy)
    except OSError as exc:
        raise StateError(f"a copy of the settings cannot be kept in {folder}: {exc.strerror}") from exc
    return settings, copy


def forget_copies(folder: Path, in_use: Path) -> None:
    """Remove copies that nobody has used for a month; whoever uses one calls this more often.

    Raises StateError when that is not possible.
    """
    try:
        os.utime(in_use)
        oldest = in_use.stat().st_mtime - _KEPT_S
        for copy in folder.glob("settings-*.yaml"):
            if copy != in_use and copy.stat().st_mtime < oldest:
                copy.unlink(missing_ok=True)
    except OSError as exc:
        raise StateError(f"old copies of the settings in {folder} stay: {exc.strerror}") from exc


def read_kept_settings(copy: Path, path: Path) -> Settings:
    """Return what the file at ``path`` said when ``copy`` was made of it; relative paths in it still begin at ``path``."""
    return _parse(_read(copy), path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"the settings file {path} cannot be read: {exc.strerror}") from exc


def _parse(data: bytes, path: Path) -> Settings:
    reading = parse_settings(data, path)
    if reading.settings is None:
        raise invalid(path, reading.errors)
    return reading.settings
