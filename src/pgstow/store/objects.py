"""Objects in a bucket: S3 and its imitations, Google Cloud Storage, Azure.

A put is one request: no multipart upload that could be left half done, and the condition of a
create-if-absent is part of it. obstore's own retry is off (``RetryingStore`` is the place for that).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from pgstow.core.errors import ObjectNotFound, StoreError
from pgstow.store.api import ObjectInfo, check_name, check_prefix, check_range, is_name
from pgstow.store.replies import error_of_reply

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["Client", "ObjectStore"]

T = TypeVar("T")

Client = S3Store | GCSStore | AzureStore

_SMALL_BYTES = 1 << 20
_LIST_PAGE = 1000


class ObjectStore:
    """A folder in a bucket. ``pgstow.store.buckets`` makes these."""

    def __init__(self, client: Client, *, location: str, uploads: Client | None = None) -> None:
        """Take two clients: ``uploads``, for puts of more than 1 MiB, may be the more patient one."""
        self._client = client
        self._uploads = uploads if uploads is not None else client
        self._location = location

    def __repr__(self) -> str:
        return f"ObjectStore({self._location!r})"

    @property
    def location(self) -> str:
        return self._location

    def put(self, name: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        check_name(name)
        size_bytes = data.nbytes if isinstance(data, memoryview) else len(data)
        client = self._client if size_bytes <= _SMALL_BYTES else self._uploads
        mode: Literal["create", "overwrite"] = "create" if if_absent else "overwrite"
        self._ask(
            lambda: obstore.put(client, name, data, mode=mode, use_multipart=False),
            f"write {name}",
            name=name,
            if_absent=if_absent,
        )

    def get(self, name: str) -> bytes:
        check_name(name)
        return self._ask(
            lambda: obstore.get(self._client, name).bytes().to_bytes(), f"read {name}", name=name
        )

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        check_name(name)
        check_range(name, offset, length)
        if length == 0:  # HTTP has no empty range
            if offset > self.stat(name).size_bytes:
                raise self._too_short(name, offset)
            return b""
        data = self._ask(
            lambda: obstore.get_range(self._client, name, start=offset, length=length).to_bytes(),
            f"read {length} bytes at {offset} of {name}",
            name=name,
        )
        if len(data) != length:
            raise self._too_short(name, offset + length)
        return data

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        return _info(self._ask(lambda: obstore.head(self._client, name), f"look at {name}", name=name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        pages = obstore.list(self._client, prefix or None, chunk_size=_LIST_PAGE)
        # Nothing is asked of the server before the first page is.
        while (
            page := self._ask(lambda: next(pages, None), f"list {prefix or 'objects'}", name=prefix)
        ) is not None:
            for found in page:
                # The marker object of a "folder" comes out under the folder's own name.
                if is_name(found["path"]) and found["path"].startswith(prefix):
                    yield _info(found)

    def delete(self, name: str) -> None:
        check_name(name)
        with contextlib.suppress(ObjectNotFound):
            self._ask(lambda: obstore.delete(self._client, name), f"delete {name}", name=name)

    def remove_stale_temporaries(self) -> int:
        return 0  # a put is one request: there is nothing unfinished to find

    def _too_short(self, name: str, size_bytes: int) -> StoreError:
        return StoreError(f"{name} in {self.location} is shorter than {size_bytes} bytes")

    def _ask(self, request: Callable[[], T], what: str, *, name: str, if_absent: bool = False) -> T:
        """Return the result of a request; what obstore raises becomes an error of ours."""
        try:
            return request()
        except (BaseError, OSError, ValueError) as exc:
            error = error_of_reply(
                str(exc), what=what, name=name, location=self.location, if_absent=if_absent
            )
        # Not inside the except, not in a context manager: either would chain obstore's exception, and its
        # secrets would show up in tracebacks.
        raise error


def _info(found: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(name=found["path"], size_bytes=found["size"], modified=found["last_modified"])
