"""The audit trail as a file that is checked without the repository: JSON lines.

The first line names the repository and holds an anchor, signed by the host that wrote the file: its heads show when lines are
missing at the end. Every other line is an object of the trail, its name and the signed document as it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pgstow.audit.anchoring import opened_anchors
from pgstow.audit.checking import KnownHead
from pgstow.audit.documents import Anchor
from pgstow.audit.trail import (
    StoredDocument,
    Trail,
    anchor_name,
    enrolment_name,
    entry_name,
    trail_of,
)
from pgstow.core.errors import UsageError

__all__ = ["ExportedTrail", "documents_of", "read_export", "write_export"]

_FORMAT = "pgstow-audit/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTrail:
    """A trail that was read from a file. ``anchor`` is what its writer saw; None if that is not as it was signed."""

    trail: Trail
    anchor: Anchor | None

    def known_heads(self) -> Iterator[KnownHead]:
        if self.anchor is not None:
            for head in self.anchor.heads:
                yield KnownHead(head=head, where="the first line of the file")


def documents_of(trail: Trail) -> Iterator[StoredDocument]:
    """Yield every document of a trail that is what it should be, under the name it is stored by."""
    for stated in trail.enrolments:
        yield StoredDocument(name=enrolment_name(stated.enrolment.chain, stated.raw), raw=stated.raw)
    for anchor in trail.anchors:
        yield StoredDocument(name=anchor_name(anchor.anchor, anchor.raw), raw=anchor.raw)
    for entry in trail.entries:
        yield StoredDocument(name=entry_name(entry.entry, entry.raw), raw=entry.raw)


def write_export(trail: Trail, anchor: bytes, file: IO[str]) -> int:
    """Write a trail with the signed ``anchor`` of now; return how many documents there are."""
    first = {"format": _FORMAT, "repository": trail.repository, "anchor": anchor.decode("ascii")}
    file.write(json.dumps(first) + "\n")
    count = 0
    for document in documents_of(trail):
        raw = document.raw or b""
        file.write(json.dumps({"name": document.name, "document": raw.decode("ascii")}) + "\n")
        count += 1
    return count


def read_export(path: Path) -> ExportedTrail:
    """Return what ``write_export()`` wrote. Raises UsageError for a file that is nothing of the kind."""
    try:
        with path.open(encoding="ascii") as file:
            first = json.loads(file.readline() or "null")
            if not isinstance(first, dict) or first.get("format") != _FORMAT:
                raise ValueError("the first line is not that of an audit export")
            repository = str(first["repository"])
            documents = [_document(json.loads(line)) for line in file]
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path} is not an audit export: {exc}") from exc
    anchors = opened_anchors([str(first.get("anchor")).encode()], repository)
    return ExportedTrail(trail=trail_of(repository, documents), anchor=anchors[0].anchor if anchors else None)


def _document(line: Any) -> StoredDocument:  # noqa: ANN401  JSON
    return StoredDocument(name=str(line["name"]), raw=str(line["document"]).encode())
