"""What is left of asking a store where who asked died, or may not delete: tiny objects that mean nothing."""

from __future__ import annotations

import re
from datetime import timedelta

from pgstow.store.api import Store
from pgstow.store.clock import store_now

__all__ = ["remove_old_questions"]

_QUESTION = re.compile(r"pgstow/(?:clock|probe)-[0-9a-f]{32}")  # of store_now() and probe_conditional_put()


def remove_old_questions(store: Store, *, older_than: timedelta = timedelta(days=1)) -> int:
    """Remove the objects by which a store was asked for its time, or what it can do; return how many there were.

    Younger ones may be in use: asking takes no lock.
    """
    left = [info for info in store.list("pgstow/") if _QUESTION.fullmatch(info.name)]
    if not left:
        return 0
    limit = store_now(store) - older_than
    old = [info.name for info in left if info.modified < limit]
    for name in old:
        store.delete(name)
    return len(old)
