"""When the value of an assertion is what it must be."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pgstow.catalog.assertions import Assertion, contradiction


def _assertion(**conditions: Any) -> Assertion:
    return Assertion(name="one", sql="SELECT 1", **conditions)


@pytest.mark.parametrize(
    ("conditions", "value"),
    [
        ({"equals": "0.00"}, "0.00"),
        ({"equals": "0"}, "0.00"),
        ({"equals": "-1e3"}, "-1000"),
        ({"equals": "NaN"}, "NaN"),
        ({"equals": "true"}, "t"),
        ({"equals": "false"}, "f"),
        ({"equals": ""}, ""),
        ({"is_null": True}, None),
        ({"at_least": Decimal(1)}, "1"),
        ({"at_most": Decimal("1.5")}, "1.50"),
        ({"at_least": Decimal(1), "at_most": Decimal(3)}, "2e0"),
        ({"at_least": Decimal(1)}, "Infinity"),
        ({"same_as_backup": True}, None),
        ({"same_as_backup": True}, "anything"),
    ],
)
def test_it_holds(conditions: dict[str, Any], value: str | None) -> None:
    assert contradiction(_assertion(**conditions), value) is None


@pytest.mark.parametrize(
    ("conditions", "value", "why"),
    [
        ({"equals": "0"}, "1", "it is '1' and not '0'"),
        ({"equals": "0"}, "0.01", "it is '0.01' and not '0'"),
        ({"equals": "1"}, "1_0", "and not"),
        ({"equals": "10"}, "1_0", "and not"),
        ({"equals": "NaN"}, "nan", "and not"),
        ({"equals": "1"}, "t", "and not"),
        ({"equals": "true"}, "f", "and not"),
        ({"equals": "x"}, "X", "and not"),
        ({"equals": ""}, None, "it is NULL"),
        ({"is_null": True}, "", "not NULL"),
        ({"at_least": Decimal(2)}, "1", "less than 2"),
        ({"at_most": Decimal(2)}, "3", "more than 2"),
        ({"at_most": Decimal(2)}, None, "it is NULL"),
        ({"at_least": Decimal(2)}, "two", "no number"),
        ({"at_least": Decimal(2)}, "NaN", "no number"),
        ({"equals": "3", "at_most": Decimal(2)}, "3", "more than 2"),
    ],
)
def test_it_does_not_hold(conditions: dict[str, Any], value: str | None, why: str) -> None:
    assert why in (contradiction(_assertion(**conditions), value) or "")
