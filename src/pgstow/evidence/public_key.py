"""The administrator's key as whoever checks a bundle has it."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from pgstow.audit.keys import fingerprint
from pgstow.core.errors import UsageError

__all__ = ["administrator_of"]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_LARGEST_BYTES = 64 << 10
_HINT = "give the fingerprint that the administrator has published (64 hexadecimal digits), or a PEM file with the public key"


def administrator_of(text: str) -> str:
    """Return the fingerprint that ``text`` is, or that of the public key in the file it names. Raises UsageError."""
    bare = text.replace(":", "").replace(" ", "")
    if _FINGERPRINT.fullmatch(bare):
        return bare.lower()
    path = Path(text)
    try:
        with path.open("rb") as file:
            pem = file.read(_LARGEST_BYTES)
    except (OSError, ValueError) as exc:
        raise UsageError(f"{text!r} is no fingerprint, and no file that can be read", hint=_HINT) from exc
    if b"PRIVATE KEY" in pem:
        raise UsageError(f"{text} holds a private key, which must not leave its place", hint=_HINT)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError(f"{text} holds no public key", hint=_HINT) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{text} holds a public key of another kind than Ed25519", hint=_HINT)
    return fingerprint(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
