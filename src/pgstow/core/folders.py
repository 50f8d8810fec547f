"""Folders of our own on this machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["make_private_folder"]


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for nobody but this user, whatever the umask. Raises OSError.

    A folder that others may write to would let them put another in the place of what is inside, however private that is.
    ``mkdir(parents=True)`` gives the mode to the last one only. What is there already is left as it is.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
