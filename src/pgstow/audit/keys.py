"""Keys of the audit trail, and what is signed with them.

Every host has an Ed25519 key, whose fingerprint is the name of its chain. An administrator's key is kept offline; with it
he states which host keys are genuine. Its fingerprint is published where who can write to the repository cannot change it.

A signature covers its purpose and the bytes as they are stored: nothing is serialised again to check it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret

__all__ = ["AdministratorKey", "HostKey", "Signed", "canonical", "fingerprint", "is_signed_by"]

_PREFIX = "pgstow audit 1"  # of everything that is signed, before its purpose: no signature serves for anything else


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return a document as the bytes that are signed: JSON in ASCII, sorted keys, no blanks."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def fingerprint(public_key: bytes) -> str:
    """Return the SHA-256 of a public key's 32 bytes, in hex."""
    return hashlib.sha256(public_key).hexdigest()


def is_signed_by(public_key: bytes, purpose: str, content: bytes, signature: bytes) -> bool:
    """Whether the owner of ``public_key`` signed ``content`` for this purpose."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed_bytes(purpose, content))
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_bytes(purpose: str, content: bytes) -> bytes:
    return f"{_PREFIX} {purpose}\n".encode() + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Bytes with a signature and the public key that checks it. ``encode()`` is what is stored and exported."""

    content: bytes
    public_key: bytes
    signature: bytes

    def is_genuine(self, purpose: str) -> bool:
        """Whether the signature is that of the key. Whose key it is, is another question."""
        return is_signed_by(self.public_key, purpose, self.content, self.signature)

    @property
    def signer(self) -> str:
        """The fingerprint of the key."""
        return fingerprint(self.public_key)

    def encode(self) -> bytes:
        return canonical(
            {
                "content": self.content.decode("ascii"),
                "key": self.public_key.hex(),
                "signature": self.signature.hex(),
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return what ``encode()`` made; ValueError if these bytes are nothing of the kind."""
        try:
            fields = json.loads(raw)
            signed = cls(
                content=fields["content"].encode("ascii"),
                public_key=bytes.fromhex(fields["key"]),
                signature=bytes.fromhex(fields["signature"]),
            )
        except (AttributeError, KeyError, TypeError, RecursionError) as exc:
            raise ValueError("not a signed document") from exc
        if signed.encode() != raw:  # else anybody could make a second document of one signature
            raise ValueError("not as a signed document is written")
        return signed


class _SigningKey:
    """An Ed25519 key that can sign."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fingerprint})"

    @classmethod
    def generate(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)

    def sign(self, purpose: str, content: bytes) -> bytes:
        """Return a signature that serves for this purpose alone."""
        return self._key.sign(_signed_bytes(purpose, content))

    def signed(self, purpose: str, content: bytes) -> Signed:
        """Return ``content``, which must be ASCII, with a signature."""
        return Signed(content=content, public_key=self.public_key, signature=self.sign(purpose, content))


class HostKey(_SigningKey):
    """The key of a host. Its file is not encrypted: whoever can read it can write entries in this host's name."""

    @property
    def chain(self) -> str:
        """The name of the chain: the fingerprint of the public key."""
        return self.fingerprint

    def pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Return the key in a PEM file. Raises UsageError."""
        return cls(_private_key(pem, None))


class AdministratorKey(_SigningKey):
    """The key of an administrator, kept offline behind a passphrase."""

    def pem(self, passphrase: Secret) -> bytes:
        """Return the key as an encrypted PKCS 8 file."""
        encryption = BestAvailableEncryption(passphrase.reveal().encode())
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: Secret) -> Self:
        """Return the key in a PEM file. Raises UsageError."""
        return cls(_private_key(pem, passphrase))


def _private_key(pem: bytes, passphrase: Secret | None) -> Ed25519PrivateKey:
    password = passphrase.reveal().encode() if passphrase is not None else None
    try:
        key = load_pem_private_key(pem, password)
    except TypeError as exc:  # encrypted or not, against what was expected
        raise UsageError(
            "the key file is not encrypted" if passphrase else "the key file is encrypted"
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError("the key file cannot be read, or the passphrase is wrong") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("the key file holds no Ed25519 key")
    return key
