"""The controls, in their order. Each is a pure function of facts; ``RULES`` counts the versions of their judgement."""

from __future__ import annotations

from pgstow.evidence.controls import backups, drills, people, places, secrecy, stores, upkeep
from pgstow.evidence.controls.findings import Control, Finding, Result, result_of

__all__ = ["CONTROLS", "RULES", "Control", "Finding", "Result", "result_of"]

# Raise it with every change of what a control, its words, the report or its page come to for the same facts: whoever
# judges a bundle again must know whether he would have to come to the same. A test holds it against a report that is kept.
RULES = 2

CONTROLS: tuple[Control, ...] = tuple(
    sorted(
        (
            *backups.CONTROLS,
            *drills.CONTROLS,
            *people.CONTROLS,
            *places.CONTROLS,
            *secrecy.CONTROLS,
            *stores.CONTROLS,
            *upkeep.CONTROLS,
        ),
        key=lambda control: int(control.code[1:]),
    )
)
