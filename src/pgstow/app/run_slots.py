"""Waiting for one's turn: so many runs per server and repository, over all hosts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from pgstow.app.plan_parts import PlanParts
from pgstow.core.errors import RunUnderWay, StateError
from pgstow.state.slots import Slots

__all__ = ["taking_slots"]

_POLL_S = 1.0


@contextlib.contextmanager
def taking_slots(parts: PlanParts, limits: Mapping[str, int], *, wait_s: float) -> Iterator[None]:
    """Hold a slot of each resource for a block. RunUnderWay if others have them for longer than ``wait_s``.

    Without the state database there are no limits: a backup does not depend on it.
    """
    slots = Slots(parts.state) if parts.state is not None else None
    try:
        if slots is not None:
            _take(slots, parts, limits, wait_s)
    except StateError as exc:
        parts.progress.note(f"{exc.message}; limits are not kept meanwhile")
        slots = None
    try:
        yield
    finally:
        if slots is not None:
            with contextlib.suppress(StateError):  # they end with this process
                slots.release(parts.host_id)


def _take(slots: Slots, parts: PlanParts, limits: Mapping[str, int], wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    has_told = False
    while (busy := slots.take(parts.host_id, limits)) is not None:
        text = f"as many runs as allowed ({limits[busy]}) are under way on {busy}"
        if time.monotonic() >= deadline_s:
            raise RunUnderWay(
                text, hint="--wait DURATION waits for its turn; limits: in the settings set how many"
            )
        if not has_told:
            parts.progress.note(f"{text}; waiting")
            has_told = True
        time.sleep(_POLL_S)
