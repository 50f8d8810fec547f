"""What people read: sizes, durations, and names that must not act on their terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.cli.formats import count_text, duration_text, parse_size, plural, safe, size_text, time_text
from pgstow.core.errors import UsageError


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (12_897_485, "12.3 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_size_text(size_bytes: int | None, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (12.34, "12.3 s"), (245, "4 min 05 s"), (3599.6, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_duration_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counts_and_times() -> None:
    assert count_text(1234567) == "1,234,567"
    assert count_text(None) == "-"
    assert (plural(1, "table"), plural(2, "table"), plural(0, "index", "indexes")) == (
        "1 table",
        "2 tables",
        "0 indexes",
    )
    cet = timezone(timedelta(hours=1))
    assert time_text(datetime(2026, 11, 20, 3, 0, 5, tzinfo=cet)) == "2026-11-20 02:00:05"
    assert time_text(datetime(2026, 11, 20, 2, 0, 5, tzinfo=UTC)) == "2026-11-20 02:00:05"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1),
        ("512B", 512),
        ("64K", 65536),
        ("10M", 10485760),
        ("1.5GiB", 1610612736),
        ("2 tb", 2199023255552),
    ],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert parse_size(text, option="--limit-rate") == size_bytes


@pytest.mark.parametrize("text", ["", "0", "-5M", "fast", "10X", "1e9", "0.0001K"])
def test_parse_size_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="--limit-rate"):
        parse_size(text, option="--limit-rate")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("orders", "orders"),
        ("größe 表", "größe 表"),
        ("two\nlines\t.", r"two\nlines\t."),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
        ("lone \udce4", r"lone \udce4"),
        ("[red]markup[/red]", "[red]markup[/red]"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text(st.characters(codec=None)))
def test_safe_leaves_nothing_that_acts_on_a_terminal(text: str) -> None:
    shown = safe(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()  # no surrogates: it can be written anywhere
