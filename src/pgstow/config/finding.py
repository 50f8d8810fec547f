"""Where the settings file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pgstow.core.errors import UsageError

__all__ = ["FILE_NAME", "find_settings_file", "require_settings_file"]

FILE_NAME = "pgstow.yaml"
_OF_THE_MACHINE = Path("/etc/pgstow") / FILE_NAME


def find_settings_file(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that was given, or PGSTOW_CONFIG, or the first that is there; None where nothing says one.

    A file that was named is returned whether it is there or not: reading it tells that it is missing.
    """
    if given is not None:
        return given
    if named := environ.get("PGSTOW_CONFIG"):
        return Path(named)
    return next((path for path in _places(environ) if _is_there(path)), None)


def require_settings_file(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Return what ``find_settings_file()`` returns; UsageError, which says where it was looked for, if that is None."""
    found = find_settings_file(given, environ)
    if found is None:
        places = ", ".join(str(path) for path in _places(environ))
        raise UsageError(
            f"no settings file was found: {places}",
            hint="give --config FILE or set PGSTOW_CONFIG; pgstow init --wizard URL writes a first one",
        )
    return found


def _is_there(path: Path) -> bool:
    """Whether there is such a file; not for one in a folder that this user may not enter, such as a HOME that sudo kept."""
    try:
        return path.is_file()
    except PermissionError:
        return False


def _places(environ: Mapping[str, str]) -> list[Path]:
    base, home = environ.get("XDG_CONFIG_HOME"), environ.get("HOME")
    own = Path(base) if base else Path(home) / ".config" if home else None
    return [Path(FILE_NAME), *([own / "pgstow" / FILE_NAME] if own else []), _OF_THE_MACHINE]
