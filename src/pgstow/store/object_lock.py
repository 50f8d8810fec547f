"""Objects that a bucket does not give up before a day: S3's Object Lock, asked for and read back.

Only buckets that were made with Object Lock have it. What is locked is a *version* of an object: whoever may delete can hide
it behind a marker, so what is locked is read by its versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from pgstow.core.errors import StoreError
from pgstow.store.buckets import let_interruption_through, s3_client

__all__ = ["LockableBucket", "ObjectLock"]

_READERS = 16

_NO_LOCK = frozenset(
    {
        "NoSuchObjectLockConfiguration",
        "ObjectLockConfigurationNotFoundError",
        "InvalidRequest",
        "NotImplemented",
        "MethodNotAllowed",
    }
)


_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset({"403", "AccessDenied", "Forbidden"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLock:
    """How the newest version of an object is held. ``is_strict``: in compliance mode, which nobody can lift; else some may."""

    until: datetime
    is_strict: bool


class LockableBucket:
    """A folder in an S3 bucket. Every method raises StoreError where the bucket says no."""

    def __init__(self, location: str, environ: Mapping[str, str]) -> None:
        parts = urlsplit(location)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._location = location
        self._environ = environ
        self._made: Any = None

    def lock(self, name: str, until: datetime) -> datetime | None:
        """Have an object kept until then; return until when it is, as the bucket says. None without Object Lock.

        A lock that the bucket gave the object by its own rule stays as it is. Else the mode is governance: those who
        were given the right to can lift it.
        """
        client, place = self._client(), {"Bucket": self._bucket, "Key": self._key(name)}
        if not self._can_lock(client):
            return None
        if (held := self._held(client, place)) is not None:
            return held
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
        try:
            client.put_object_retention(**place, Retention=retention)
        except ClientError as exc:
            if _code(exc) in _NO_LOCK:
                return None
            raise self._error("lock", name, exc) from None
        except BotoCoreError as exc:
            raise self._error("lock", name, exc) from None
        return self._held(client, place)

    def locks(self, names: Iterable[str]) -> dict[str, ObjectLock | None] | None:
        """Return how each object is held now, by what the bucket says of it; None for the whole where it has no Object Lock.

        An object that is not there is held by nothing. Raises StoreError also where whoever asks may not see locks.
        """
        client, wanted = self._client(), list(names)
        if not self._can_lock(client):
            return None
        with ThreadPoolExecutor(_READERS) as readers:
            found = dict(
                zip(wanted, readers.map(lambda name: self._lock_of(client, name), wanted), strict=True)
            )
        bare = next((name for name, lock in found.items() if lock is None), None)
        if (
            bare is not None
        ):  # a bucket leaves out what one may not see: the question itself tells the difference
            self._ask_openly(client, bare)
        return found

    def _lock_of(self, client: Any, name: str) -> ObjectLock | None:  # noqa: ANN401  botocore has no types
        try:
            found = client.head_object(Bucket=self._bucket, Key=self._key(name))
        except ClientError as exc:
            if _code(exc) in _NOT_THERE:
                return None
            raise self._error("look at the lock of", name, exc) from None
        except BotoCoreError as exc:
            raise self._error("look at the lock of", name, exc) from None
        until = found.get("ObjectLockRetainUntilDate")
        if until is None:
            return None
        return ObjectLock(until=until, is_strict=found.get("ObjectLockMode") == "COMPLIANCE")

    def _ask_openly(self, client: Any, name: str) -> None:  # noqa: ANN401  botocore has no types
        try:
            client.get_object_retention(Bucket=self._bucket, Key=self._key(name))
        except ClientError as exc:
            if (
                _code(exc) in _DENIED
            ):  # any other answer leaves what was seen: that it is not held, which is no pass
                raise self._error("see the lock of", name, exc) from None
        except BotoCoreError as exc:
            raise self._error("see the lock of", name, exc) from None

    def hidden_versions(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of every version below ``prefix`` that was overwritten or hides behind a marker."""
        client = self._client()
        try:
            pages = client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=self._key(prefix)
            )
            for page in pages:
                for version in page.get("Versions", ()):
                    if version["IsLatest"]:
                        continue
                    place = {
                        "Bucket": self._bucket,
                        "Key": version["Key"],
                        "VersionId": version["VersionId"],
                    }
                    name = version["Key"].removeprefix(self._prefix).lstrip("/")
                    yield name, client.get_object(**place)["Body"].read()
        except (ClientError, BotoCoreError) as exc:
            raise self._error("read the versions of", prefix, exc) from None

    def _can_lock(self, client: Any) -> bool:  # noqa: ANN401  botocore has no types
        try:
            found = client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as exc:
            if _code(exc) in _NO_LOCK:
                return False
            raise self._error("ask about Object Lock for", self._bucket, exc) from None
        except BotoCoreError as exc:
            raise self._error("ask about Object Lock for", self._bucket, exc) from None
        return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def _held(self, client: Any, place: Mapping[str, str]) -> datetime | None:  # noqa: ANN401  botocore has no types
        """Return until when the newest version is locked; None if it is not, or whoever asks may not know."""
        try:
            until: datetime | None = client.head_object(**place).get("ObjectLockRetainUntilDate")
        except (ClientError, BotoCoreError) as exc:
            raise self._error("look at the lock of", place["Key"], exc) from None
        return until if until is not None and until > datetime.now(UTC) else None

    def _client(self) -> Any:  # noqa: ANN401  botocore has no types
        if self._made is None:  # making one takes a tenth of a second
            self._made = s3_client(self._environ)
        return self._made

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _error(self, what: str, name: str, exc: Exception) -> StoreError:
        let_interruption_through(exc)
        # The error's own words only: a request holds credentials.
        said = (
            exc.response.get("Error", {}).get("Message", "")
            if isinstance(exc, ClientError)
            else type(exc).__name__
        )
        return StoreError(f"cannot {what} {name} in {self._location}: {said}")


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))
