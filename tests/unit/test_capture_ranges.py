"""Geometry and index of page ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.capture.ranges import (
    MAX_PAGES_PER_RANGE,
    PageRange,
    decode_ranges,
    encode_ranges,
    pages_per_range,
)
from pgstow.core.errors import RepositoryDamaged

BLOCK = 8192
int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
ranges = st.lists(
    st.builds(
        PageRange, rows=uint64, sum=int64, xor=int64, size_bytes=uint64, blobs=st.integers(0, 2**32 - 1)
    )
)


@given(st.integers(1, MAX_PAGES_PER_RANGE), ranges)
def test_index_round_trip(pages: int, listed: list[PageRange]) -> None:
    found, decoded = decode_ranges(encode_ranges(pages, b"".join(one.encode() for one in listed)))
    assert found == pages
    assert list(decoded) == listed


@given(ranges, st.data())
def test_truncated_index_is_damage(listed: list[PageRange], data: st.DataObject) -> None:
    encoded = encode_ranges(128, b"".join(one.encode() for one in listed))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(RepositoryDamaged):
        decode_ranges(encoded[:cut])


@given(pages=st.integers(0, 2**32 - 1), toast=st.integers(0, 2**45))
def test_a_range_is_a_power_of_two_of_pages_and_no_longer_than_it_may_be(pages: int, toast: int) -> None:
    found = pages_per_range(heap_bytes=pages * BLOCK, toast_bytes=toast if pages else 0, block_bytes=BLOCK)
    assert found & (found - 1) == 0
    assert 1 <= found <= MAX_PAGES_PER_RANGE


@pytest.mark.parametrize(
    ("heap", "toast", "expected"),
    [
        (0, 0, 1),
        (1 << 30, 0, 128),  # 1 MiB of heap
        (1 << 30, 1 << 30, 64),  # as much again in TOAST
        (1 << 20, 1 << 30, 1),  # rows live in TOAST
        (1 << 40, 0, 512),  # 1 TB: the list of blobs must stay small
    ],
)
def test_range_follows_what_its_pages_hold(heap: int, toast: int, expected: int) -> None:
    assert pages_per_range(heap_bytes=heap, toast_bytes=toast, block_bytes=BLOCK) == expected


@given(st.integers(200, 2**22))
def test_growth_keeps_boundaries_where_they_were(pages: int) -> None:
    now = pages_per_range(heap_bytes=pages * BLOCK, toast_bytes=0, block_bytes=BLOCK)
    later = pages_per_range(heap_bytes=2 * pages * BLOCK, toast_bytes=0, block_bytes=BLOCK)
    assert later % now == 0
