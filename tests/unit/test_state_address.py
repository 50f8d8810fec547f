"""Addresses of state databases that cannot be meant: refused, and nothing of a password in what is said."""

from __future__ import annotations

import traceback

import pytest

from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.state.database import open_state


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hunter@2@h/db",
        "postgresql://u:x@hunter/2@h/db",
        "postgresql://u@h:hunter2/db",
        "hunter2",
        "mysql://u:hunter2@h/db",
    ],
)
def test_no_part_of_a_password_is_told(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_state(Secret(address), {})
    told = f"{caught.value.hint} {''.join(traceback.format_exception(caught.value))}"
    assert "hunter" not in told
