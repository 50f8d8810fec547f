"""Records of runs that could not be saved: a file each in the state folder, until the state database is back."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pgstow.core.errors import StateError
from pgstow.core.folders import make_private_folder
from pgstow.state.runs import DestinationResult, RunRecord, Runs

__all__ = ["Spool"]

_MOMENTS = ("due", "started", "finished")


class Spool:
    """The files below one folder, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, record: RunRecord) -> None:
        """Write a record down durably. Raises StateError when that fails."""
        path = self._folder / f"{record.id}.json"
        temporary = path.with_suffix(".tmp")
        try:
            make_private_folder(self._folder)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(_document(record), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as exc:
            raise StateError(f"the record of a run cannot be kept in {self._folder}: {exc.strerror}") from exc

    def deliver(self, runs: Runs) -> int:
        """Save every record that waits, and return how many did. Raises StateError; what was not saved still waits.

        A record that the database refuses, while it takes others, is told by the error and set aside: it must not keep
        the service from its work again and again.
        """
        delivered = 0
        refused: StateError | None = None
        for path in self._waiting():
            record = _record(path)
            if record is None:  # not whole, or of another version: left for a person to look at
                continue
            try:
                runs.save(record)
            except (StateError, ValueError, OverflowError) as exc:
                runs.find(limit=1)  # raises if it is the database that is away
                aside = path.with_suffix(".refused")
                refused = StateError(f"{exc}; the record of a run was set aside as {aside}")
                path.replace(aside)
                continue
            with contextlib.suppress(OSError):  # saved again next time, with the same content
                path.unlink()
            delivered += 1
        if refused is not None:
            raise refused
        return delivered

    def _waiting(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from sorted(self._folder.glob("*.json"))


def _document(record: RunRecord) -> dict[str, Any]:
    fields = asdict(record)
    for name in _MOMENTS:
        moment = fields[name]
        fields[name] = moment.isoformat() if moment is not None else None
    fields["tables"] = {name: list(sizes) for name, sizes in record.tables.items()}
    return fields


def _record(path: Path) -> RunRecord | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        for name in _MOMENTS:
            fields[name] = datetime.fromisoformat(fields[name]) if fields[name] is not None else None
        fields["tables"] = {name: (rows, size) for name, (rows, size) in fields["tables"].items()}
        fields["destinations"] = tuple(DestinationResult.of(one) for one in fields["destinations"])
        fields["warnings"] = tuple(fields["warnings"])
        return RunRecord(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None
