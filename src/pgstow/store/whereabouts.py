"""Where a store is, as far as its location and settings tell without asking it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pgstow.store.opening import parse_location

__all__ = ["Transport", "Whereabouts", "whereabouts"]

# none: nothing leaves the machine by us; where a mounted folder really is, is not known.
Transport = Literal["none", "https", "http"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """``provider``: ``folder``, or a service with the host of its endpoint. None is unknown."""

    provider: str
    transport: Transport
    region: str | None = None
    account: str | None = None


def whereabouts(location: str, environ: Mapping[str, str]) -> Whereabouts:
    """Return where the store at ``location`` is; no server is asked, and nothing of it is secret. Raises UsageError."""
    parsed = parse_location(location, environ)
    if isinstance(parsed, Path):
        return Whereabouts(provider="folder", transport="none")
    # Imported here because botocore takes a third of a second, which no local repository should pay.
    from pgstow.store.buckets import Scheme, endpoint_of  # noqa: PLC0415

    endpoint = endpoint_of(cast("Scheme", parsed[0]), environ)
    return Whereabouts(
        provider=endpoint.provider,
        transport="http" if endpoint.is_plain else "https",
        region=endpoint.region,
        account=endpoint.account,
    )
