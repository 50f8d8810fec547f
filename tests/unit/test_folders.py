"""Folders of our own: private from the first one that had to be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgstow.core.folders import make_private_folder


def test_every_folder_that_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        make_private_folder(there / "state" / "pgstow" / "audit")
        make_private_folder(there / "state" / "pgstow" / "audit")
    finally:
        os.umask(before)
    made = [there / "state", there / "state" / "pgstow", there / "state" / "pgstow" / "audit"]
    assert [folder.stat().st_mode & 0o777 for folder in [there, *made]] == [0o755, 0o700, 0o700, 0o700]


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_private_folder(tmp_path / "file" / "below")
