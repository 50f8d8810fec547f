"""Durations on the command line."""

from __future__ import annotations

import pytest

from pgstow.core.errors import UsageError
from pgstow.core.quantities import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("24h", 86400), ("7d", 604800), (" 1.5 h ", 5400), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 minutes", "1e9", "5M", "nan", "inf", "٣m", "99999d"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration") as caught:
        parse_duration(text)
    assert "24h" in (caught.value.hint or "")
