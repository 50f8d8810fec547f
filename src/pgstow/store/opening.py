"""From what people write to a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from pgstow.core.errors import UsageError
from pgstow.store.api import Store, is_name
from pgstow.store.caching import CachingStore, cache_folder
from pgstow.store.local import LocalStore
from pgstow.store.retrying import RetryingStore, RetryPolicy

__all__ = ["check_location", "open_retrying_store", "open_store", "parse_location"]

_FORMS = (
    "a repository is a folder (/path, ./path, ~/path, file:///path), "
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_location(location: str) -> None:
    """Raise UsageError for a location that cannot be one; nothing is opened, and no secret in it is repeated."""
    parse_location(location, {})


def open_store(location: str, environ: Mapping[str, str]) -> Store:
    """Return the store at ``location``, without retry; nothing is created and no server is asked.

    ``environ`` supplies credentials, endpoints and proxies. Raises UsageError for a location that
    cannot be one, StoreDenied when there are no credentials.
    """
    parsed = parse_location(location, environ)
    if isinstance(parsed, Path):
        return LocalStore(parsed)
    # Imported here because botocore takes a third of a second, which no local backup should pay.
    from pgstow.store.buckets import Scheme, open_bucket  # noqa: PLC0415

    scheme, bucket, prefix = parsed
    return open_bucket(cast("Scheme", scheme), bucket, prefix, environ)


def parse_location(location: str, environ: Mapping[str, str]) -> Path | tuple[str, str, str]:
    """Return a folder, or the scheme, bucket and prefix of an object store."""
    found = _SCHEME.match(location)
    if not found:
        return _local_path(location, environ)
    scheme = found[1].lower()
    if scheme == "file":
        return _file_path(location)
    if scheme in ("s3", "gs", "az") and location[found.end() :].startswith("//"):
        return _bucket(scheme, location)
    raise UsageError(f"{scheme}: is not a kind of repository location", hint=_FORMS)


def open_retrying_store(
    location: str,
    environ: Mapping[str, str],
    *,
    on_retry: Callable[[str], None] = lambda _message: None,
    is_cached: bool = False,
    policy: RetryPolicy | None = None,
) -> Store:
    """Return the store at ``location``, which tries passing failures again, as ``policy`` says; see ``open_store``.

    ``on_retry`` is told, from whichever thread is waiting, what failed and how long the pause is. With
    ``is_cached`` the index and snapshot files of a bucket are kept on this machine.
    """
    store = RetryingStore(open_store(location, environ), policy=policy, on_retry=on_retry)
    root = _cache_root(environ)
    if not is_cached or root is None or _is_local(location):
        return store
    return CachingStore(store, cache_folder(root, store.location))


def _is_local(location: str) -> bool:
    found = _SCHEME.match(location)
    return not found or found[1].lower() == "file"


def _cache_root(environ: Mapping[str, str]) -> Path | None:
    """Return where copies are kept; None when nothing says where, or PGSTOW_CACHE_DIR is set to nothing."""
    given = environ.get("PGSTOW_CACHE_DIR")
    if given is not None:
        return Path(given) if given else None
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base) / "pgstow"
    home = environ.get("HOME")
    return Path(home) / ".cache" / "pgstow" if home else None


def _local_path(location: str, environ: Mapping[str, str]) -> Path:
    if not location.strip() or "\0" in location:
        raise UsageError("the repository location is empty", hint=_FORMS)
    if location == "~" or location.startswith("~/"):
        location = environ.get("HOME", "~") + location[1:]
    return Path(os.path.expanduser(location))  # noqa: PTH111  (Path.expanduser raises RuntimeError)


def _file_path(location: str) -> Path:
    parts = urlsplit(location)
    if (
        parts.netloc not in ("", "localhost")
        or not parts.path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        raise UsageError("a file location is file:///ABSOLUTE/PATH", hint=_FORMS)
    return Path(unquote(parts.path))


def _bucket(scheme: str, location: str) -> tuple[str, str, str]:
    parts = urlsplit(location)
    _refuse_secrets(scheme, parts)
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc) or (prefix and not is_name(prefix)):
        raise UsageError(f"{location!r} names no valid bucket and prefix", hint=_FORMS)
    return scheme, parts.netloc, prefix


def _refuse_secrets(scheme: str, parts: SplitResult) -> None:
    """UsageError, without repeating it, for what a URL must not carry: it ends up in logs and ``ps``."""
    if "@" in parts.netloc:
        raise UsageError(
            f"the {scheme}:// location holds a user or password",
            hint="credentials come from the environment or a profile (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)",
        )
    if parts.query or parts.fragment:
        raise UsageError(
            f"the {scheme}:// location has a ? or # part, which means nothing here",
            hint="endpoint and region come from the environment (AWS_ENDPOINT_URL, AWS_REGION)",
        )
