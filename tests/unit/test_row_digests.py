"""Digests of rows: order and cuts mean nothing, everything else does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.postgres import _row_digests, row_digests
from pgstow.postgres.row_digests import ContentDigest, DigestKey, RowDigester

KEY = bytes(range(16))
IMPLEMENTATIONS = {"C": _row_digests.add_rows, "Python": row_digests._add_rows_in_python}

rows_of_text = st.lists(st.binary(max_size=40).map(lambda row: row.replace(b"\n", b"")), max_size=30)


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def add_rows(request: pytest.FixtureRequest) -> row_digests._AddRows:
    return IMPLEMENTATIONS[request.param]


def digest_of(rows: list[bytes], add_rows: row_digests._AddRows, pieces: int | None = None) -> ContentDigest:
    digester = RowDigester(KEY, add_rows)
    text = b"".join(row + b"\n" for row in rows)
    size = max(1, len(text) // pieces) if pieces else max(1, len(text))
    for start in range(0, len(text), size):
        digester.add(text[start : start + size])
    return digester.digest()


def test_siphash_is_the_published_one() -> None:
    """The vectors of the reference implementation for 128 bits: bytes 0, 1, 2... under the key 0, 1, 2..."""
    vectors = {
        0: "a3817f04ba25a8e66df67214c7550293",
        1: "da87c1d86b99af44347659119b22fc45",
        7: "a1f1ebbed8dbc153c0b84aa61ff08239",
        8: "3b62a9ba6258f5610f83e264f31497b4",
        9: "264499060ad9baabc47f8b02bb6d71ed",
    }
    for length, expected in vectors.items():
        _rows, _used, low, high = _row_digests.add_rows(KEY, bytes(range(length)) + b"\n", 0, 0)
        found = low.to_bytes(8, "little") + high.to_bytes(8, "little")
        assert found.hex() == expected, length


@given(rows=rows_of_text, pieces=st.integers(1, 20), seed=st.integers())
@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
def test_order_and_cuts_mean_nothing(implementation: str, rows: list[bytes], pieces: int, seed: int) -> None:
    mixed = rows.copy()
    random.Random(seed).shuffle(mixed)
    add_rows = IMPLEMENTATIONS[implementation]
    digest = digest_of(rows, add_rows)
    assert digest.rows == len(rows)
    assert digest_of(mixed, add_rows, pieces) == digest


@given(rows=rows_of_text.filter(len), data=st.data())
@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
def test_any_other_content_is_noticed(implementation: str, rows: list[bytes], data: st.DataObject) -> None:
    add_rows = IMPLEMENTATIONS[implementation]
    place = data.draw(st.integers(0, len(rows) - 1))
    other = {
        "lost": rows[:place] + rows[place + 1 :],
        "doubled": [*rows, rows[place]],
        "changed": [*rows[:place], rows[place] + b"x", *rows[place + 1 :]],
        "merged": [*rows[:place], rows[place] + b"\\n", *rows[place + 1 :]],
    }
    for changed in other.values():
        assert digest_of(changed, add_rows) != digest_of(rows, add_rows)


def test_values_that_change_places_between_rows_are_noticed(add_rows: row_digests._AddRows) -> None:
    assert digest_of([b"1\ta", b"2\tb"], add_rows) != digest_of([b"1\tb", b"2\ta"], add_rows)


def test_digests_of_parts_add_up(add_rows: row_digests._AddRows) -> None:
    rows = [b"%d\tvalue" % number for number in range(1000)]
    parts = [digest_of(rows[start::7], add_rows) for start in range(7)]
    assert sum(parts, ContentDigest()) == digest_of(rows, add_rows)


def test_sums_carry_over_from_the_low_to_the_high_half() -> None:
    _rows, _used, low, high = _row_digests.add_rows(KEY, b"a\nb\n", 2**64 - 1, 2**64 - 1)
    _rows, _used, plain_low, plain_high = _row_digests.add_rows(KEY, b"a\nb\n", 0, 0)
    expected = (plain_high * 2**64 + plain_low + 2**128 - 1) % 2**128
    assert high * 2**64 + low == expected


def test_a_row_without_its_end_is_refused(add_rows: row_digests._AddRows) -> None:
    digester = RowDigester(KEY, add_rows)
    digester.add(b"1\n2")
    with pytest.raises(ValueError, match="middle of a row"):
        digester.digest()
    digester.add(b"2")
    digester.add(b"\n")
    assert digester.digest() == digest_of([b"1", b"22"], add_rows)


def test_every_key_gives_other_digests() -> None:
    digests = set()
    for _ in range(3):
        digester = DigestKey().digester()
        digester.add(b"row\n")
        digests.add(str(digester.digest()))
    assert len(digests) == 3


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        _row_digests.add_rows(b"short", b"row\n", 0, 0)
