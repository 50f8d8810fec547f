"""The probe against stores that break the promise it asks about."""

from __future__ import annotations

import pytest

from pgstow.core.errors import StoreDenied, StoreError
from pgstow.store.memory import MemoryStore
from pgstow.store.probing import probe_conditional_put


class Overwriting(MemoryStore):
    """Ignores the condition, as some imitations of S3 do."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        super().put(name, data)


class Pretending(MemoryStore):
    """Says that the object exists, and overwrites it all the same."""

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        try:
            super().put(name, data, if_absent=if_absent)
        finally:
            super().put(name, data)


class Answering(MemoryStore):
    """Answers every conditional put with one error."""

    def __init__(self, error: StoreError) -> None:
        super().__init__()
        self._error = error

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        raise self._error


class Undeletable(MemoryStore):
    def delete(self, name: str) -> None:
        raise StoreDenied("deleting is not allowed")


@pytest.mark.parametrize(
    "store", [Overwriting(), Pretending(), Answering(StoreError("not implemented", http_status=501))]
)
def test_a_broken_promise_is_found_and_nothing_is_left(store: MemoryStore) -> None:
    assert probe_conditional_put(store) is False
    assert list(store.list("")) == []


def test_a_store_that_keeps_it_but_lets_nobody_delete_still_counts() -> None:
    assert probe_conditional_put(Undeletable()) is True


def test_other_errors_are_not_an_answer() -> None:
    with pytest.raises(StoreDenied):
        probe_conditional_put(Answering(StoreDenied("no")))
