"""Tests that kill the command say so when they have killed nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import killing
from support.command import Pgstow
from support.faults import Point
from support.killing import AT_READS, Kill, Killing


class Rehearsal(Killing):
    """Twenty calls were seen, of which the command does not make some again."""

    def __init__(self, folder: Path, *missing: int) -> None:
        super().__init__(Pgstow(), [], template=folder, folder=folder)
        self.missing = missing

    def _calls(self) -> list[tuple[int, Point]]:
        return [(0, Point("get", "data", number)) for number in range(1, 21)]

    def _is_killed(self, kill: Kill) -> bool:
        return kill.point.number not in self.missing

    def numbers(self, tries: int) -> list[int]:
        return [kill.point.number for kill in self.kills("rehearsal", AT_READS, tries)]


@pytest.fixture(autouse=True)
def in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killing, "TRY_ALL", False)
    monkeypatch.setattr(killing, "tell", lambda **_line: None)


def test_a_call_that_is_not_made_again_is_replaced_by_one_before_it(tmp_path: Path) -> None:
    assert Rehearsal(tmp_path).numbers(4) == [3, 8, 13, 18]
    assert Rehearsal(tmp_path, 13, 17, 18).numbers(4) == [3, 8, 12, 16]


def test_where_nothing_can_be_killed_it_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="too many calls"):
        Rehearsal(tmp_path, *range(1, 21)).numbers(1)
    with pytest.raises(AssertionError, match="too many calls"):
        Rehearsal(tmp_path, *range(10, 21)).numbers(4)
