"""Bundles: a report, what it rests on, and one signature over all of it.

facts.json         everything that was gathered; the report follows from it
report.json        what the controls come to
report.html        the same for people
attestations.jsonl the entries in which people state what no program can look at, as they were signed
audit.jsonl        the entries of the period as they were signed, one a line, each chain with its neighbours at either end
drills/ID.json     the records of drills
keys.json          what administrators say of the keys of hosts, as they signed it
manifest.json      name, size and SHA-256 of every other file; by whose key it is signed
manifest.sig       the signature of that host over the bytes of manifest.json
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pgstow.audit.keys import HostKey, Signed, canonical
from pgstow.evidence.facts import EvidenceFacts
from pgstow.evidence.page import report_page
from pgstow.evidence.report import judge, report_document, time_text

__all__ = [
    "ATTESTATIONS",
    "AUDIT",
    "FACTS",
    "KEYS",
    "MANIFEST",
    "PAGE",
    "REPORT",
    "SIGNATURE",
    "SIGNED_AS",
    "BundleManifest",
    "bundle_files",
    "canonical_facts",
    "drill_name",
    "is_bundle_name",
    "keys_bytes",
    "manifest_bytes",
    "parse_keys",
    "parse_manifest",
    "parse_signature",
    "signed_files",
    "strict_json",
]

FACTS, REPORT, PAGE = "facts.json", "report.json", "report.html"
AUDIT, KEYS = "audit.jsonl", "keys.json"
ATTESTATIONS = "attestations.jsonl"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
SIGNED_AS = "evidence bundle"  # the purpose of the signature

_FORMAT = 1
_NAMES = frozenset((FACTS, REPORT, PAGE, AUDIT, ATTESTATIONS, KEYS, MANIFEST, SIGNATURE))
_DRILL = re.compile(r"drills/[0-9A-Za-z][0-9A-Za-z-]{0,63}\.json")


class _FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="[0-9a-f]{64}")
    size_bytes: int = Field(ge=0)


class BundleManifest(BaseModel):
    """Which files belong to a bundle. ``signer``: the fingerprint of the key that signs it; None: nobody does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    made: AwareDatetime
    period: str
    signer: str | None
    files: dict[str, _FileEntry]


def strict_json(content: bytes) -> Any:  # noqa: ANN401  JSON
    """Return the document in these bytes, which must be just what ``canonical()`` makes of it and a line end. Raises ValueError.

    So nobody reads another document than was signed: not the first of two keys of one name, or a number of its own making.
    """
    try:
        document = json.loads(content)
        if canonical(document) + b"\n" == content:
            return document
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    raise ValueError("it is not as it was written: keys twice, in another order, or blanks")


def drill_name(drill_id: str) -> str:
    """Return the name of the file that holds the record of a drill."""
    return f"drills/{drill_id}.json"


def is_bundle_name(name: str) -> bool:
    """Whether a file of this name can belong to a bundle."""
    return name in _NAMES or _DRILL.fullmatch(name) is not None


def canonical_facts(facts: EvidenceFacts) -> bytes:
    """Return the bytes of facts.json."""
    return canonical(facts.model_dump(mode="json")) + b"\n"


def bundle_files(
    facts: EvidenceFacts,
    *,
    drills: Mapping[str, bytes],
    entries: Iterable[bytes],
    attestations: Iterable[bytes] = (),
    enrolments: Sequence[bytes],
    key: HostKey | None,
) -> dict[str, bytes]:
    """Return every file of a bundle. ``drills`` by id; The others as they were signed."""
    report = judge(facts)
    files = {
        FACTS: canonical_facts(facts),
        REPORT: canonical(report_document(report)) + b"\n",
        PAGE: report_page(report),
        AUDIT: b"".join(each + b"\n" for each in entries),
        ATTESTATIONS: b"".join(each + b"\n" for each in attestations),
        KEYS: keys_bytes(enrolments),
        **{drill_name(drill_id): content for drill_id, content in drills.items()},
    }
    assert all(map(is_bundle_name, files))
    return signed_files(files, facts, key)


def signed_files(files: Mapping[str, bytes], facts: EvidenceFacts, key: HostKey | None) -> dict[str, bytes]:
    """Return the files with their manifest, signed with ``key`` if there is one."""
    manifest = manifest_bytes(files, facts, signer=None if key is None else key.chain)
    whole = {**files, MANIFEST: manifest}
    if key is not None:
        whole[SIGNATURE] = signature_bytes(key.signed(SIGNED_AS, manifest))
    return whole


def manifest_bytes(files: Mapping[str, bytes], facts: EvidenceFacts, *, signer: str | None) -> bytes:
    """Return the bytes of manifest.json."""
    document = {
        "format": _FORMAT,
        "made": time_text(facts.made),
        "period": facts.period.name,
        "signer": signer,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in files.items()
        },
    }
    return canonical(document) + b"\n"


def parse_manifest(content: bytes) -> BundleManifest:
    """Return the manifest in these bytes. Raises ValueError."""
    strict_json(content)
    try:
        manifest = BundleManifest.model_validate_json(content)
    except ValidationError as exc:
        raise ValueError(_first(exc)) from exc
    if manifest.format != _FORMAT:
        raise ValueError(f"format {manifest.format} is not known to this version")
    return manifest


def signature_bytes(signed: Signed) -> bytes:
    """Return the bytes of manifest.sig; what is signed stands in manifest.json alone."""
    return canonical({"key": signed.public_key.hex(), "signature": signed.signature.hex()}) + b"\n"


def parse_signature(content: bytes, manifest: bytes) -> Signed:
    """Return the signature in these bytes over those of the manifest; is it genuine, is another question. Raises ValueError.

    Nothing covers this file itself, so it must be byte for byte what would be written.
    """
    fields = strict_json(content)
    try:
        signed = Signed(
            content=manifest,
            public_key=bytes.fromhex(fields["key"]),
            signature=bytes.fromhex(fields["signature"]),
        )
    except (KeyError, TypeError) as exc:
        raise ValueError("it is no signature") from exc
    if signature_bytes(signed) != content:
        raise ValueError("it is not as it was written")
    return signed


def keys_bytes(enrolments: Sequence[bytes]) -> bytes:
    """Return the bytes of keys.json."""
    return canonical({"format": _FORMAT, "enrolments": [each.decode("ascii") for each in enrolments]}) + b"\n"


def parse_keys(content: bytes) -> list[bytes]:
    """Return what administrators signed, one document for each statement. Raises ValueError."""
    fields = strict_json(content)
    try:
        if fields["format"] != _FORMAT:
            raise ValueError(f"format {fields['format']!r} is not known to this version")
        return [each.encode("ascii") for each in fields["enrolments"]]
    except (AttributeError, KeyError, TypeError) as exc:
        raise ValueError("it does not list keys") from exc


def _first(exc: ValidationError) -> str:
    first = exc.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
