"""What the replies of object stores mean.

obstore puts the server's whole reply into the text of its exceptions, and some replies repeat
credentials: S3 answers an expired session token with the token. So status, error code and a scrubbed
message are taken out of the text, and the rest is dropped.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from pgstow.core.errors import (
    Fact,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

__all__ = ["error_of_reply"]

_STATUS = re.compile(r"(?:status(?: code)?: |\bcode: \")(\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
_LOOKS_SECRET = re.compile(r"[A-Za-z0-9+/=_%-]{32,}|://[^/\s]*@")
_TRANSPORT = re.compile(r"\bkind: (Timeout|Connect|Request|Interrupted|Unknown)\b")
_CREDENTIALS = re.compile(r"External \w+ credential provider: (\w+)")

_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "StorageQuotaExceeded"})
_DENIED = frozenset(
    {
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidAccessKeyId",
        "AuthorizationHeaderMalformed",
        "BlobImmutableDueToPolicy",
    }
)
# Replies that are not 5xx but say "again, please": see the error list of the S3 API reference.
_MAY_PASS = frozenset(
    {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "IncompleteBody", "BadDigest"}
    | {"XAmzContentSHA256Mismatch", "SlowDown", "ServerBusy", "OperationTimedOut"}
)
_CONFLICT = frozenset({HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_MODIFIED})
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CREDENTIALS = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}
    | {"MetadataRetrievalError", "ConnectionError"}
)


def error_of_reply(text: str, *, what: str, name: str, location: str, if_absent: bool) -> StoreError:
    """Return the error for a failed request from the text of obstore's exception.

    ``what`` was to be done to ``name`` in ``location``; ``if_absent`` tells a lost condition from other conflicts.
    """
    reply = _Reply(text)
    facts: dict[str, Fact] = {"http_status": reply.status, "store_code": reply.code}
    kind, hint = _judge(reply, if_absent=if_absent)
    message = f"cannot {what} in {location}: {reply.summary}"
    if kind is ObjectExists:
        message = f"{name} is already in {location}"
    elif kind is ObjectNotFound:
        message = f"{name} is not in {location}"
    error = kind(message, hint=hint)
    error.facts.update(facts)
    return error


def _judge(reply: _Reply, *, if_absent: bool) -> tuple[type[StoreError], str | None]:
    """Return the class of error that a reply is, and what to do about it."""
    if reply.code in _NO_BUCKET or (reply.status == HTTPStatus.NOT_FOUND and not reply.is_about_object):
        return StoreError, "the bucket does not exist: create it, or correct its name"
    if reply.code in _FULL or reply.status == HTTPStatus.INSUFFICIENT_STORAGE:
        return StoreFull, "free some space or raise the quota, then try again"
    if reply.may_pass:  # before the conflicts: some 409 mean "at the same moment", not "exists"
        return StoreUnavailable, reply.hint
    if if_absent and reply.status in _CONFLICT:
        return ObjectExists, None
    if reply.status == HTTPStatus.NOT_FOUND:
        return ObjectNotFound, None
    if reply.is_denied:
        return StoreDenied, reply.hint or "check the credentials and what they allow"
    return StoreError, reply.hint


class _Reply:
    """What a failure's text says about itself."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.status = int(found[1]) if (found := _STATUS.search(text)) else None
        self.code = found[1] if (found := _CODE.search(text)) else None
        self._transport = found[1] if (found := _TRANSPORT.search(text)) else None
        self._provider = found[1] if (found := _CREDENTIALS.search(text)) else None

    @property
    def _is_certificate(self) -> bool:
        return "InvalidCertificate" in self._text or "InvalidContentType" in self._text

    @property
    def _is_redirect(self) -> bool:
        return "redirect without LOCATION" in self._text or self.status in (301, 307)

    @property
    def is_about_object(self) -> bool:
        """Whether one object was asked for: listings and the batch deletes of Azure ask the bucket."""
        return "performing list request" not in self._text and "performing POST" not in self._text

    @property
    def may_pass(self) -> bool:
        if self.code in _MAY_PASS or self.status in _PASSING_STATUS:
            return True
        if self._provider is not None:
            return self._provider in _PASSING_CREDENTIALS
        return self.status is None and self._transport is not None and not self._is_certificate

    @property
    def is_denied(self) -> bool:
        return self.status in (401, 403) or self.code in _DENIED or self._provider is not None

    @property
    def summary(self) -> str:
        """A line for people, without secrets."""
        if self._provider is not None:
            return f"no usable credentials ({self._provider})"
        if self.status is not None:
            said = found[1] if (found := _MESSAGE.search(self._text)) else ""
            said = _LOOKS_SECRET.sub("...", said).strip()
            return " ".join(f"HTTP {self.status} {self.code or ''}".split()) + (f" ({said})" if said else "")
        for mark, meaning in _MEANINGS:
            if mark in self._text:
                return meaning
        return "the connection failed" if self._transport else "the store's reply makes no sense"

    @property
    def hint(self) -> str | None:
        if self._is_redirect:
            return "the bucket is in another region; set AWS_REGION"
        if self._is_certificate:
            return "set AWS_CA_BUNDLE to the certificate authority of the endpoint, or correct the endpoint"
        if self.code == "RequestTimeTooSkewed":
            return "the clock of this machine is wrong; set it"
        if "dns error" in self._text:
            return "check the endpoint (AWS_ENDPOINT_URL) and the name server"
        return None


_MEANINGS = (
    ("InvalidCertificate", "the certificate of the endpoint is not trusted"),
    ("InvalidContentType", "the endpoint does not speak TLS"),
    ("redirect without LOCATION", "the endpoint sent us to another region"),
    ("dns error", "the host name of the endpoint cannot be resolved"),
    ("ConnectionRefused", "connection refused"),
    ("TimedOut", "timed out"),
    ("kind: Timeout", "timed out"),
    ("IncompleteBody", "the reply was cut off"),
    ("ConnectionReset", "the connection was reset"),
    ("invalid path", "it holds an object whose name no store can have"),
    ("InvalidPath", "it holds an object whose name no store can have"),
    ("NotPartial", "the store ignores ranges"),
    ("URL scheme is not allowed", "plain http is not allowed here"),
)
