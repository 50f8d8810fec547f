"""Sealing bytes: AES-256 in counter mode, authenticated by Poly1305-AES.

A sealed message is ``IV (16) + ciphertext + MAC (16)``. The one-time Poly1305 key is ``r`` followed by the
AES-128 encryption, under ``k``, of the IV.
Source: restic doc/design.rst, "Keys, Encryption and MAC".
"""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

__all__ = ["SEAL_BYTES", "MasterKey"]

_IV_BYTES = 16
_MAC_BYTES = 16
SEAL_BYTES = _IV_BYTES + _MAC_BYTES
"""How much longer a sealed message is than its plaintext."""

Buffer = bytes | bytearray | memoryview


class MasterKey:
    """The 64 secret bytes that seal everything in a repository: encrypt 32, k 16, r 16."""

    __slots__ = ("_aes", "_mac_cipher", "_r", "encrypt", "mac_k")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 64:
            raise ValueError(f"a key has 64 bytes, not {len(secret)}")
        self.encrypt, self.mac_k, self._r = secret[:32], secret[32:48], secret[48:]
        self._aes = algorithms.AES(self.encrypt)
        self._mac_cipher = Cipher(algorithms.AES(self.mac_k), modes.ECB())  # noqa: S305  a single block per message

    @classmethod
    def generate(cls) -> MasterKey:
        """Return a new random key."""
        return cls(os.urandom(64))

    @property
    def mac_r(self) -> bytes:
        return self._r

    def equals(self, other: MasterKey) -> bool:
        """Return whether both are the same secret: what one seals, the other opens."""
        mine, its = (key.encrypt + key.mac_k + key.mac_r for key in (self, other))
        return hmac.compare_digest(mine, its)

    def seal(self, plain: Buffer) -> bytes:
        """Return ``plain`` encrypted under a fresh IV and authenticated."""
        out = bytearray(len(plain) + SEAL_BYTES)
        self.seal_into(plain, memoryview(out))
        return bytes(out)

    def seal_into(self, plain: Buffer, out: memoryview) -> None:
        """Write the sealed ``plain`` to ``out``, which is exactly SEAL_BYTES longer."""
        iv = os.urandom(_IV_BYTES)
        body = out[_IV_BYTES:-_MAC_BYTES]
        out[:_IV_BYTES] = iv
        Cipher(self._aes, modes.CTR(iv)).encryptor().update_into(plain, body)
        out[-_MAC_BYTES:] = Poly1305.generate_tag(self._mac_key(iv), body)

    def open(self, sealed: Buffer) -> bytes | None:
        """Return the plaintext, or None if not every byte is as this key once sealed it."""
        if len(sealed) < SEAL_BYTES:
            return None
        view = memoryview(sealed)
        iv, body, mac = bytes(view[:_IV_BYTES]), view[_IV_BYTES:-_MAC_BYTES], bytes(view[-_MAC_BYTES:])
        try:
            Poly1305.verify_tag(self._mac_key(iv), body, mac)
        except InvalidSignature:
            return None
        return Cipher(self._aes, modes.CTR(iv)).decryptor().update(body)

    def _mac_key(self, iv: bytes) -> bytes:
        return self._r + self._mac_cipher.encryptor().update(iv)

    def __repr__(self) -> str:
        return "MasterKey(...)"
