"""What entries, enrolments and anchors look like as bytes.

Each is canonical JSON that names its format, what it is and the repository it belongs to. Reading is strict: a document that
is not exactly what it should be raises ValueError, since all of it was written by a program of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from pgstow.audit.entries import AuditEntry, ChainHead, ForeignHead, Result
from pgstow.audit.keys import canonical

__all__ = [
    "ANCHOR",
    "ENROLMENT",
    "ENTRY",
    "Anchor",
    "Enrolment",
    "anchor_bytes",
    "enrolment_bytes",
    "entry_bytes",
    "entry_document",
    "heads_document",
    "parse_anchor",
    "parse_enrolment",
    "parse_entry",
]

# Purposes of signatures.
ENTRY = "entry"
ENROLMENT = "enrolment"
ANCHOR = "anchor"

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an administrator says of a host's key: it is that host's, or with ``is_revoked`` no longer to be believed.

    ``head`` is the newest entry of the chain that he saw: a revocation leaves what is up to there as good as it was.
    """

    chain: str
    host: str
    host_key: bytes
    at: datetime
    repository: str  # where he saw the head; the statement about the key holds everywhere
    is_revoked: bool = False
    reason: str = ""
    head: ChainHead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Heads that a host saw at a moment: of this repository, and of others that it writes to."""

    chain: str  # of who wrote it
    repository: str
    at: datetime
    heads: tuple[ChainHead, ...]
    elsewhere: tuple[ForeignHead, ...] = ()


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as JSON shows it."""
    return {
        "format": _FORMAT,
        "repository": entry.repository,
        "chain": entry.chain,
        "number": entry.number,
        "previous": entry.previous,
        "at": _time_text(entry.at),
        "host": entry.host,
        "user": entry.user,
        "database_user": entry.database_user,
        "origin": entry.origin,
        "action": entry.action,
        "subjects": list(entry.subjects),
        "result": entry.result,
        "error_code": entry.error_code,
        "facts": dict(entry.facts),
        "heads": [_head_fields(head) for head in entry.heads],
        "elsewhere": [_foreign_fields(foreign) for foreign in entry.elsewhere],
    }


def entry_bytes(entry: AuditEntry) -> bytes:
    """Return the bytes of an entry that are signed."""
    return canonical(entry_document(entry))


def parse_entry(content: bytes) -> AuditEntry:
    """Return the entry in these bytes. Raises ValueError."""
    fields = _fields(content)
    try:
        entry = AuditEntry(
            chain=_text(fields["chain"]),
            number=_number(fields["number"]),
            at=_parse_time(fields["at"]),
            host=_text(fields["host"]),
            user=_text(fields["user"]),
            database_user=_optional(fields["database_user"]),
            origin=_optional(fields["origin"]),
            action=_text(fields["action"]),
            subjects=tuple(map(_text, fields["subjects"])),
            result=_result(fields["result"]),
            error_code=_optional(fields["error_code"]),
            facts={_text(key): _text(value) for key, value in fields["facts"].items()},
            heads=tuple(map(_parse_head, fields["heads"])),
            previous=_text(fields["previous"]),
            repository=_text(fields["repository"]),
            elsewhere=tuple(map(_parse_foreign, fields["elsewhere"])),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not an entry of an audit trail: {exc}") from exc
    return entry


def enrolment_bytes(enrolment: Enrolment) -> bytes:
    """Return the bytes of an enrolment that an administrator signs."""
    return canonical(
        {
            "format": _FORMAT,
            "statement": "revoked" if enrolment.is_revoked else "enrolled",
            "chain": enrolment.chain,
            "host": enrolment.host,
            "host_key": enrolment.host_key.hex(),
            "at": _time_text(enrolment.at),
            "repository": enrolment.repository,
            "reason": enrolment.reason,
            "head": _head_fields(enrolment.head) if enrolment.head is not None else None,
        }
    )


def parse_enrolment(content: bytes) -> Enrolment:
    """Return the enrolment in these bytes. Raises ValueError."""
    fields = _fields(content)
    try:
        statement = _text(fields["statement"])
        if statement not in ("enrolled", "revoked"):
            raise ValueError(f"unknown statement {statement!r}")
        return Enrolment(
            chain=_text(fields["chain"]),
            host=_text(fields["host"]),
            host_key=bytes.fromhex(fields["host_key"]),
            at=_parse_time(fields["at"]),
            repository=_text(fields["repository"]),
            is_revoked=statement == "revoked",
            reason=_text(fields["reason"]),
            head=_parse_head(fields["head"]) if fields["head"] is not None else None,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not an enrolment: {exc}") from exc


def anchor_bytes(anchor: Anchor) -> bytes:
    """Return the bytes of an anchor that a host signs."""
    return canonical(
        {
            "format": _FORMAT,
            "anchor_of": anchor.chain,
            "repository": anchor.repository,
            "at": _time_text(anchor.at),
            "heads": [_head_fields(head) for head in anchor.heads],
            "elsewhere": [_foreign_fields(foreign) for foreign in anchor.elsewhere],
        }
    )


def parse_anchor(content: bytes) -> Anchor:
    """Return the anchor in these bytes. Raises ValueError."""
    fields = _fields(content)
    try:
        return Anchor(
            chain=_text(fields["anchor_of"]),
            repository=_text(fields["repository"]),
            at=_parse_time(fields["at"]),
            heads=tuple(map(_parse_head, fields["heads"])),
            elsewhere=tuple(map(_parse_foreign, fields["elsewhere"])),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not an anchor: {exc}") from exc


def _fields(content: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(content)
    except RecursionError as exc:
        raise ValueError("not an object") from exc
    if not isinstance(fields, dict):
        raise ValueError("not an object")  # noqa: TRY004  for the caller it is a bad value like the others
    if fields.get("format") != _FORMAT:
        raise ValueError(f"format {fields.get('format')!r} is not known to this version")
    return fields


def _head_fields(head: ChainHead) -> dict[str, Any]:
    return {"chain": head.chain, "number": head.number, "digest": head.digest}


def _parse_head(fields: Mapping[str, Any]) -> ChainHead:
    return ChainHead(
        chain=_text(fields["chain"]), number=_number(fields["number"]), digest=_text(fields["digest"])
    )


def _foreign_fields(foreign: ForeignHead) -> dict[str, Any]:
    return {"repository": foreign.repository, **_head_fields(foreign.head)}


def _parse_foreign(fields: Mapping[str, Any]) -> ForeignHead:
    return ForeignHead(repository=_text(fields["repository"]), head=_parse_head(fields))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no number of an entry")
    return value


def _result(value: object) -> Result:
    for known in get_args(Result):
        if value == known:
            result: Result = known
            return result
    raise ValueError(f"unknown result {value!r}")


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse_time(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"{value!r} is no moment") from exc


def heads_document(heads: Sequence[ChainHead]) -> list[dict[str, Any]]:
    """Return heads as JSON shows them."""
    return [_head_fields(head) for head in heads]
