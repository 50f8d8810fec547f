"""What an evidence report is asked to be about, and what was gathered for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgstow.evidence.facts import EvidenceFacts
from pgstow.evidence.period import Period

__all__ = ["EvidenceRequest", "Gathered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRequest:
    """``administrators`` are fingerprints of keys that count beside those of the settings.

    ``asks_servers``: connect to every database, to see which others its server has; ``excluded_databases`` are known there
    and left out by intent. ``probes_deletion``: ask buckets what the credentials may delete. ``logs``: files in which the
    secrets of the settings are searched for.
    """

    period: Period
    host: str
    by: str
    administrators: tuple[str, ...] = ()
    asks_servers: bool = False
    excluded_databases: tuple[str, ...] = ()
    probes_deletion: bool = False
    logs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The facts, and what they were taken from: records of drills by id, entries and others as they were signed."""

    facts: EvidenceFacts
    drills: Mapping[str, bytes] = field(default_factory=dict)
    entries: tuple[bytes, ...] = ()
    attestations: tuple[bytes, ...] = ()
    enrolments: tuple[bytes, ...] = ()
