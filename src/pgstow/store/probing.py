"""Asking a store whether it keeps a promise, instead of believing it."""

from __future__ import annotations

import contextlib
import secrets

from pgstow.core.errors import ObjectExists, StoreDenied, StoreError
from pgstow.store.api import Store

__all__ = ["NOT_IMPLEMENTED", "probe_conditional_put"]

NOT_IMPLEMENTED = 501  # what a store answers that knows no condition, as the fact http_status


def probe_conditional_put(store: Store) -> bool:
    """Return whether the store refuses a create-if-absent of an object that exists.

    Some imitations of S3 ignore the condition and overwrite, others reject the request. Leaves nothing
    behind. Shows that the condition is looked at, not that two requests at the same instant are kept
    apart: no finite number of attempts could.
    """
    name = f"pgstow/probe-{secrets.token_hex(16)}"
    try:
        store.put(name, b"first", if_absent=True)
        with contextlib.suppress(
            ObjectExists, StoreDenied
        ):  # some let nobody overwrite, whatever the condition
            store.put(name, b"second", if_absent=True)
            return False
        return store.get(name) == b"first"
    except StoreError as exc:
        if exc.facts.get("http_status") == NOT_IMPLEMENTED:
            return False
        raise
    finally:
        with contextlib.suppress(StoreError):  # an empty object of no meaning: the answer matters more
            store.delete(name)
