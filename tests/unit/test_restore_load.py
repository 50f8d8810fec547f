"""Cutting the end mark off, in whatever pieces a member comes, and the order of tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.core.errors import RepositoryDamaged, TargetRefused
from pgstow.postgres.archive import TABLE_DATA_TRAILER
from pgstow.postgres.loading import ForeignKey
from pgstow.restore.data_only import load_order
from pgstow.restore.load import without_trailer

ROWS = st.lists(st.binary(max_size=20).map(lambda row: row.replace(b"\n", b"") + b"\n"), max_size=20).map(
    b"".join
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(ROWS, st.lists(st.integers(0, 10_000), max_size=30))
def test_rows_come_out_as_they_went_in(rows: bytes, places: list[int]) -> None:
    assert b"".join(without_trailer(cut(rows + TABLE_DATA_TRAILER, places), where="m")) == rows


@given(ROWS, st.lists(st.integers(0, 10_000), max_size=30), st.integers(1, 5))
def test_a_cut_member_is_damaged(rows: bytes, places: list[int], missing: int) -> None:
    with pytest.raises(RepositoryDamaged, match=r"^m "):
        list(without_trailer(cut((rows + TABLE_DATA_TRAILER)[:-missing], places), where="m"))


def test_half_a_row_is_damage() -> None:
    with pytest.raises(RepositoryDamaged, match="in the middle of a row"):
        list(without_trailer([b"1\n2", TABLE_DATA_TRAILER], where="m"))


def test_big_pieces_pass_through_uncopied() -> None:
    big = b"x" * 99_999 + b"\n"
    pieces = list(without_trailer([big, big, TABLE_DATA_TRAILER], where="m"))
    assert [piece is big for piece in pieces] == [True, True]


def key(table: int, references: int) -> ForeignKey:
    return ForeignKey(table=table, references=references, description=f"{table} to {references}")


def test_tables_wait_for_those_they_refer_to() -> None:
    keys = [key(1, 2), key(2, 3), key(4, 3), key(3, 3), key(1, 99)]

    steps = load_order([1, 2, 3, 4], keys)

    assert steps == [[3], [2, 4], [1]]


def test_circles_are_refused_by_name() -> None:
    with pytest.raises(TargetRefused, match="circle: 1 to 2, 2 to 1$"):
        load_order([1, 2, 3], [key(1, 2), key(2, 1), key(3, 1), key(1, 1)])
