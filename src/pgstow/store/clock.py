"""What time it is by the store's clock, the only one that all who use a repository share."""

from __future__ import annotations

import contextlib
import secrets
from datetime import datetime

from pgstow.core.errors import StoreError
from pgstow.store.api import Store

__all__ = ["store_now"]


def store_now(store: Store) -> datetime:
    """Return the store's time: that of a tiny object, written, looked at and removed. Buckets tell whole seconds."""
    name = f"pgstow/clock-{secrets.token_hex(16)}"
    try:
        store.put(name, b"now")
        return store.stat(name).modified
    finally:
        with contextlib.suppress(StoreError):  # three bytes of no meaning: the answer matters more
            store.delete(name)
