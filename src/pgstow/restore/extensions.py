"""Doing without extensions that the target's server does not have, where that was said to be all right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pgstow.postgres.archive import Toc, TocEntry
from pgstow.restore.naming import described, text
from pgstow.restore.report import Skipped
from pgstow.restore.selection import Selection

__all__ = ["needing_extensions", "without_extensions"]


def without_extensions(toc: Toc, selection: Selection, missing: Iterable[str]) -> Selection:
    """Return the selection without these extensions and all that needs one of them, which is skipped with the reason."""
    gone = needing_extensions(toc, missing)
    if not gone:
        return selection
    encoding = toc.encoding
    skipped = [
        Skipped(
            what=described(entry, encoding),
            why=f"extension {gone[entry.dump_id]}, which may be missing, is not on this server",
        )
        for entry in (*selection.entries, *selection.foreign_keys)
        if entry.dump_id in gone
    ]
    return replace(
        selection,
        entries=_rest(selection.entries, gone),
        foreign_keys=_rest(selection.foreign_keys, gone),
        skipped=(*selection.skipped, *skipped),
    )


def needing_extensions(toc: Toc, extensions: Iterable[str]) -> dict[int, str]:
    """Return the dump ids of these extensions and of everything that depends on them, each with the extension's name.

    pg_dump writes down what an object needs; where that belongs to an extension, the extension stands for it. What a
    function's body mentions is unknown to the server, and to pg_dump.
    """
    names, encoding = set(extensions), toc.encoding
    gone = {
        entry.dump_id: name
        for entry in toc.entries
        if entry.desc == b"EXTENSION" and (name := text(entry.tag, encoding)) in names
    }
    if not gone:
        return {}
    grows = True
    while grows:  # entries stand in an order in which nearly all follow what they need; a cycle may not
        grows = False
        for entry in toc.entries:
            if entry.dump_id not in gone and (why := _reason(entry, gone)) is not None:
                gone[entry.dump_id] = why
                grows = True
    return gone


def _reason(entry: TocEntry, gone: dict[int, str]) -> str | None:
    return next((gone[one] for one in entry.dependencies if one in gone), None)


def _rest(entries: tuple[TocEntry, ...], gone: dict[int, str]) -> tuple[TocEntry, ...]:
    return tuple(entry for entry in entries if entry.dump_id not in gone)
