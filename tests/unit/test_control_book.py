"""What is remembered of the controls between two reports, and what Prometheus is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.monitor.control_metrics import control_families
from pgstow.state.controls import ControlBook, ControlStatus
from pgstow.state.database import open_state

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[ControlBook]:
    state = open_state(None, {"PGSTOW_STATE_DIR": str(tmp_path)})
    yield ControlBook(state)
    state.close()


def test_the_newest_report_takes_the_place_of_the_one_before(book: ControlBook) -> None:
    assert book.read() == ()
    book.replace({"C1": "pass", "C2": "fail"}, made=NOW)
    book.replace({"C2": "waived"}, made=NOW + timedelta(hours=1))
    assert book.read() == (ControlStatus(control="C2", result="waived", made=NOW + timedelta(hours=1)),)


def test_an_older_report_that_ends_later_changes_nothing(book: ControlBook) -> None:
    book.replace({"C1": "fail"}, made=NOW)
    book.replace({"C1": "pass"}, made=NOW - timedelta(hours=1))
    assert [each.result for each in book.read()] == ["fail"]


def test_a_report_from_times_to_come_gives_way(book: ControlBook) -> None:
    book.replace({"C1": "pass"}, made=NOW + timedelta(days=30))
    book.replace({"C1": "fail"}, made=NOW)
    assert [each.result for each in book.read()] == ["fail"]


def test_what_is_no_pass_is_below_one() -> None:
    results = {"C1": "pass", "C2": "waived", "C3": "fail", "C4": "unknown", "C5": "a word of a later version"}
    status, made = control_families(
        ControlStatus(control=code, result=each, made=NOW) for code, each in results.items()
    )
    values = {sample.labels["control"]: sample.value for sample in status.samples}
    assert values == {"C1": 1.0, "C2": 0.5, "C3": 0.0, "C4": -1.0, "C5": -1.0}
    assert [sample.value for sample in made.samples] == [NOW.timestamp()]


def test_before_there_was_a_report_there_is_no_value() -> None:
    assert [family.samples for family in control_families(())] == [[], []]
