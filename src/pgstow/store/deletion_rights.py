"""Whether the credentials in use could destroy what is in an S3 bucket, found out without touching anything that is there.

A deletion is allowed or denied before anybody looks whether there is something to delete. So names are deleted that no object
has: random ones of 256 bits, of the same form and in the same folders as the objects of a repository, since rights differ by
folder. The one object that is written is our own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from pgstow.core.errors import StoreError
from pgstow.store.buckets import let_interruption_through, s3_client

__all__ = ["DeletionRights", "probe_deletion_rights"]

_CANARY = "pgstow/evidence-probe"  # always the same, so that one at most stays where it cannot be removed
_DENIED = frozenset({"AccessDenied", "403", "Forbidden"})
_ANY_VERSION = "null"  # the version of an object that was written without versioning; a random name has none


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRights:
    """What these credentials may do. ``keeps_versions``: what is deleted or overwritten stays as an older version.

    ``may_write`` False: these are not the credentials of who makes backups, and nothing else was asked. ``may_delete`` and
    ``may_delete_versions`` are true if it is so in any folder of a repository.
    """

    may_write: bool
    may_delete: bool = False
    may_delete_versions: bool = False
    keeps_versions: bool = False


def probe_deletion_rights(location: str, environ: Mapping[str, str]) -> DeletionRights:
    """Return what the credentials of ``environ`` may destroy at ``location``, an ``s3://`` one. Raises StoreError."""
    parts = urlsplit(location)
    prefix = parts.path.strip("/")
    client = s3_client(environ)
    return _Probe(client, parts.netloc, f"{prefix}/" if prefix else "", location).run()


class _Probe:
    def __init__(self, client: Any, bucket: str, prefix: str, location: str) -> None:  # noqa: ANN401  botocore has no types
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._location = location

    def run(self) -> DeletionRights:
        canary = {"Bucket": self._bucket, "Key": self._prefix + _CANARY}
        if not self._is_allowed(
            lambda: self._client.put_object(**canary, Body=b"written to see who may delete")
        ):
            return DeletionRights(may_write=False)
        self._is_allowed(lambda: self._client.delete_object(**canary))
        names = [self._prefix + name for name in _names_of_nothing()]
        return DeletionRights(
            may_write=True,
            may_delete=any(self._may_delete(name) for name in names),
            may_delete_versions=any(self._may_delete_version(name) for name in names),
            keeps_versions=self._keeps_versions(),
        )

    def _may_delete(self, name: str) -> bool:
        place = {"Bucket": self._bucket, "Key": name}
        made: dict[str, Any] = {}
        if not self._is_allowed(lambda: made.update(self._client.delete_object(**place))):
            return False
        if made.get("DeleteMarker") and (marker := made.get("VersionId")):
            # What a bucket with versions put there for a name that had none: the marker of this request, and nothing else.
            self._is_allowed(lambda: self._client.delete_object(**place, VersionId=marker))
        return True

    def _may_delete_version(self, name: str) -> bool:
        return self._is_allowed(
            lambda: self._client.delete_object(Bucket=self._bucket, Key=name, VersionId=_ANY_VERSION)
        )

    def _keeps_versions(self) -> bool:
        found: dict[str, Any] = {}
        if not self._is_allowed(
            lambda: found.update(self._client.get_bucket_versioning(Bucket=self._bucket))
        ):
            raise StoreError(
                f"whether {self._location} keeps versions may not be asked with these credentials",
                hint="grant s3:GetBucketVersioning",
            )
        return found.get("Status") == "Enabled"

    def _is_allowed(self, ask: Callable[[], object]) -> bool:
        """Return whether a request was allowed. Raises StoreError for any other answer than yes and no."""
        try:
            ask()
        except ClientError as exc:
            error = exc.response.get("Error", {})
            if str(error.get("Code", "")) in _DENIED:
                return False
            # The error's own words only: a request holds credentials.
            said = error.get("Message", "")
            raise StoreError(f"cannot find out who may delete in {self._location}: {said}") from None
        except BotoCoreError as exc:
            let_interruption_through(exc)
            raise StoreError(
                f"cannot find out who may delete in {self._location}: {type(exc).__name__}"
            ) from None
        return True


def _names_of_nothing() -> list[str]:
    one = secrets.token_hex(32)
    return [
        f"data/{one[:2]}/{one}",
        *(f"{folder}/{secrets.token_hex(32)}" for folder in ("index", "keys", "snapshots")),
    ]
