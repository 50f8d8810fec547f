"""Go's JSON, quoting and times."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.repository import gojson


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "x"]}, '{"b":1,"a":[true,null,"x"]}'),
        ("<a&b>", r'"\u003ca\u0026b\u003e"'),
        ("\u2028\u2029", r'"\u2028\u2029"'),
        ("tab\tnewline\n\r\b\f\0\x1f\x7f", '"tab\\tnewline\\n\\r\\b\\f\\u0000\\u001f\x7f"'),
        ('"\\/', r'"\"\\/"'),
        ("ünï\U0001f600", '"ünï\U0001f600"'),
        ("\udcff\ud800", r'"\ufffd\ufffd"'),
        ("\ufffd", '"\ufffd"'),
    ],
)
def test_json_is_go_s(value: object, expected: str) -> None:
    assert gojson.dumps(value).decode() == expected


# What Go prints for strconv.Quote, without the outer quotes.
QUOTED = [
    ("plain name.dat", "plain name.dat"),
    ('say "hi"', r"say \"hi\""),
    ("it's", "it's"),
    ("a\\b", r"a\\b"),
    ("\a\b\f\n\r\t\v", r"\a\b\f\n\r\t\v"),
    ("\0\x01\x1f\x7f", r"\x00\x01\x1f\x7f"),
    ("\x80\x85\xa0\xad", r"\u0080\u0085\u00a0\u00ad"),
    ("\u200b\u2028\ufeff\ue000", r"\u200b\u2028\ufeff\ue000"),
    ("ü日\u0301\U0001f600", "ü日\u0301\U0001f600"),
    ("\U000e0001\U0010ffff", r"\U000e0001\U0010ffff"),
    ("\u0378", r"\u0378"),  # not assigned
    ("bytes \udcff\udc80", r"bytes \xff\x80"),
]


@pytest.mark.parametrize(("text", "quoted"), QUOTED)
def test_quoting_is_go_s(text: str, quoted: str) -> None:
    assert gojson.quote(text) == quoted
    assert gojson.unquote(quoted) == text
    assert gojson.quoting_is_canonical(quoted)


@given(st.text())
def test_quote_and_unquote_are_inverse(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    quoted = gojson.quote(text)
    assert gojson.unquote(quoted) == text
    assert gojson.quoting_is_canonical(quoted)


@given(st.binary())
def test_names_that_are_not_utf_8_survive(name: bytes) -> None:
    text = name.decode("utf-8", "surrogateescape")
    assert gojson.unquote(gojson.quote(text)).encode("utf-8", "surrogateescape") == name


@given(st.text(alphabet='\\"abnxuU0178\n') | st.text())
def test_unquote_raises_only_value_errors(text: str) -> None:
    with contextlib.suppress(ValueError):
        gojson.unquote(text)


@pytest.mark.parametrize(
    ("quoted", "text"),
    [(r"\x41", "A"), (r"\u0041", "A"), (r"\101", "A"), (r"\xc3\xa9", "é"), (r"\U000000e9", "é")],
)
def test_other_escapes_are_read_but_not_canonical(quoted: str, text: str) -> None:
    assert gojson.unquote(quoted) == text
    if text == "A":
        assert not gojson.quoting_is_canonical(quoted)


@pytest.mark.parametrize(
    "text", ["\\", r"\q", r"\x4", r"\u12", r"\ud800", r"\U00110000", 'a"b', "a\nb", r"\'"]
)
def test_malformed_quotes(text: str) -> None:
    with pytest.raises(ValueError, match=r"quoted string|does not exist"):
        gojson.unquote(text)
    assert not gojson.quoting_is_canonical(text)


def test_which_unicode_version_does_not_matter_beyond_ascii() -> None:
    assert gojson.quoting_is_canonical("ü")
    assert gojson.quoting_is_canonical(r"\u00fc")  # as a restic without that character would write it
    assert gojson.quoting_is_canonical("\\\\u00fc")
    assert not gojson.quoting_is_canonical(r"\u000a")


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 20, 2, tzinfo=UTC), "2026-11-20T02:00:00Z"),
        (datetime(2026, 11, 20, 2, 0, 0, 120_000, tzinfo=UTC), "2026-11-20T02:00:00.12Z"),
        (datetime(2026, 11, 20, 2, 0, 0, 1, tzinfo=UTC), "2026-11-20T02:00:00.000001Z"),
        (datetime(2026, 11, 20, 2, tzinfo=timezone(timedelta(hours=2))), "2026-11-20T00:00:00Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_go_s(moment: datetime, text: str) -> None:
    assert gojson.format_time(moment) == text
    assert gojson.parse_time(text) == moment
    assert gojson.is_canonical_time(text)


@pytest.mark.parametrize(
    ("text", "moment", "is_canonical"),
    [
        ("2026-11-20T02:00:00.123456789+02:00", datetime(2026, 11, 20, 0, 0, 0, 123456, tzinfo=UTC), True),
        ("2026-11-20T02:00:00-03:30", datetime(2026, 11, 20, 5, 30, tzinfo=UTC), True),
        ("2026-11-20T02:00:00.10Z", datetime(2026, 11, 20, 2, 0, 0, 100_000, tzinfo=UTC), False),
        ("2026-11-20T02:00:00+00:00", datetime(2026, 11, 20, 2, tzinfo=UTC), False),
        ("0000-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC), True),
    ],
)
def test_times_of_others(text: str, moment: datetime, is_canonical: bool) -> None:
    assert gojson.parse_time(text) == moment
    assert gojson.is_canonical_time(text) == is_canonical


def test_what_is_no_time() -> None:
    for text in ("", "2026-11-20", "2026-13-20T02:00:00Z", "2026-11-20T02:00:00", "2026-11-20 02:00:00Z"):
        with pytest.raises(ValueError, match=r"is not a time|does not match format"):
            gojson.parse_time(text)
    with pytest.raises(ValueError, match="no time zone"):
        gojson.format_time(datetime(2026, 1, 1))


@given(st.datetimes(timezones=st.just(UTC)))
def test_time_round_trip(moment: datetime) -> None:
    assert gojson.parse_time(gojson.format_time(moment)) == moment


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_reads_back(value: object) -> None:
    text = gojson.dumps(value).decode()
    assert not set("<>&\u2028\u2029") & set(text)
    cleaned = json.loads(
        json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    assert json.loads(text) == cleaned
