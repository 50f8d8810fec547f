"""Which version of TLS a store negotiates with this machine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from pgstow.core.errors import StoreError
from pgstow.store.opening import parse_location
from pgstow.store.whereabouts import whereabouts

__all__ = ["negotiated_tls"]

_HTTPS = 443
_TIMEOUT_S = 10.0


def negotiated_tls(location: str, environ: Mapping[str, str], *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the version (``TLSv1.3``) that a connection of our own comes to; None where the store is reached without TLS.

    Certificate and name are checked as for backups. It is a connection beside those that carry data: these are made by a
    library that does not tell, and that knows no version below 1.2. Raises StoreError, UsageError.
    """
    parsed = parse_location(location, environ)
    if isinstance(parsed, Path):
        return None
    if whereabouts(location, environ).transport != "https":
        return None
    # Imported here because botocore takes a third of a second, which no local repository should pay.
    from pgstow.store.buckets import Scheme, authority_of, endpoint_url_of, has_proxy  # noqa: PLC0415

    scheme = cast("Scheme", parsed[0])
    parts = urlsplit(endpoint_url_of(scheme, environ))
    if parts.hostname is None:
        raise StoreError("the host of the store is not known")
    if has_proxy(environ):
        raise StoreError(f"{parts.hostname} is reached through a proxy, past which nothing was asked")
    context = ssl.create_default_context(cafile=authority_of(scheme, environ))
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or _HTTPS), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            return secure.version()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise StoreError(f"which TLS {parts.hostname} negotiates is unknown: {reason}") from exc
