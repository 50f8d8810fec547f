"""Kinds of work that overlap are told with begin, end, and what all sessions spent."""

from __future__ import annotations

import pytest

from pgstow.restore.report import WorkSpan
from pgstow.restore.timesheet import Timesheet


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_kinds_overlap_and_add_up() -> None:
    clock = Clock()
    sheet = Timesheet(clock)
    sheet.worked("loading", 101.0, 105.0)
    sheet.worked("content", 104.0, 106.5)
    sheet.worked("loading", 100.5, 103.0)
    assert sheet.spans() == (
        WorkSpan(name="loading", begun_s=0.5, seconds=4.5, busy_s=6.5),
        WorkSpan(name="content", begun_s=4.0, seconds=2.5, busy_s=2.5),
    )


def test_what_fails_took_its_time_too() -> None:
    clock = Clock()
    sheet = Timesheet(clock)

    def fail_after_three_seconds() -> None:
        with sheet.working("indexes"):
            clock.now = 103.0
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_three_seconds()
    assert sheet.spans() == (WorkSpan(name="indexes", begun_s=0.0, seconds=3.0, busy_s=3.0),)
