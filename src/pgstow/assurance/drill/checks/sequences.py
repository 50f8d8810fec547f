"""Sequences: what they give next is what they would have given in the source."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.postgres.inventory import sequence_states
from pgstow.postgres.raw import RawSession

__all__ = ["check_sequences"]

_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\(.*, (-?[0-9]+), (true|false)\);\s*", re.DOTALL)


def check_sequences(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether last_value and is_called of each sequence are those of the archive."""
    entries = restored.entries(b"SEQUENCE SET")
    if not entries:
        yield skipped("sequences", "the backup holds no values of sequences")
        return
    states = sequence_states(session)
    problems = []
    for entry in entries:
        name = restored.qualified(entry)
        match = _SETVAL.fullmatch(entry.defn or b"")
        if match is None:
            problems.append(unknown("sequences", "the archive's statement is of no known form", subject=name))
            continue
        wanted = (int(match[1]), match[2] == b"true")
        there = states.get((entry.namespace or b"", entry.tag))
        if there is None:
            problems.append(failed("sequences", "the sequence is missing", subject=name))
        elif there != wanted:
            problems.append(
                failed(
                    "sequences",
                    "the sequence stands at another value",
                    subject=name,
                    expected=_shown(wanted),
                    found=_shown(there),
                )
            )
    yield from summed_up(
        passed("sequences", f"{counted(len(entries), 'sequence')} where they stood"), problems
    )


def _shown(state: tuple[int, bool]) -> str:
    last_value, is_called = state
    return f"{last_value}{'' if is_called else ', which was not given yet'}"
