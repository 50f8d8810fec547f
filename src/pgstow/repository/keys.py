"""Key files: the master key, wrapped by a password.

A key file is plain JSON; scrypt turns its salt and the password into the key that seals the master key.
Several key files with different passwords may wrap the same master key.
Source: restic doc/design.rst, "Keys, Encryption and MAC"; restic internal/repository/key.go.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged
from pgstow.core.secrets import Secret
from pgstow.repository import gojson
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import FileKind, list_ids, read_verified
from pgstow.store.api import Store

__all__ = ["KeyFile", "KeySearch", "search_keys", "wrap_key"]

# 32 MiB and a tenth of a second: what restic's calibration chooses on ordinary machines.
_N, _R, _P = 32768, 8, 1
_SALT_BYTES = 64
_MAX_SCRYPT_BYTES = 1 << 30  # a hostile key file must not exhaust memory


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """A key file as stored: its name is the SHA-256 of its bytes."""

    id: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySearch:
    """What trying a password on every key file gave."""

    opened: tuple[tuple[str, MasterKey], ...]
    refused: int  # key files of other passwords
    damaged: tuple[str, ...]  # messages about key files that cannot be read at all


def wrap_key(master: MasterKey, password: Secret, *, hostname: str, username: str) -> KeyFile:
    """Return a key file that opens ``master`` with ``password``; the caller stores it."""
    salt = os.urandom(_SALT_BYTES)
    plain = {
        "mac": {"k": _base64(master.mac_k), "r": _base64(master.mac_r)},
        "encrypt": _base64(master.encrypt),
    }
    fields = {
        "created": gojson.format_time(datetime.now(UTC)),
        "username": username,
        "hostname": hostname,
        "kdf": "scrypt",
        "N": _N,
        "r": _R,
        "p": _P,
        "salt": _base64(salt),
        "data": _base64(_derive(password, salt, _N, _R, _P).seal(gojson.dumps(plain))),
    }
    data = gojson.dumps(fields)
    return KeyFile(id=hashlib.sha256(data).hexdigest(), data=data)


def search_keys(store: Store, password: Secret) -> KeySearch:
    """Try ``password`` on every key file; a damaged one never stands in the way of the others."""
    opened: list[tuple[str, MasterKey]] = []
    damaged: list[str] = []
    refused = 0
    for file_id in sorted(file_id for file_id, _ in list_ids(store, FileKind.KEY)):
        try:
            master = _open_key(file_id, read_verified(store, FileKind.KEY, file_id), password)
        except ObjectNotFound:
            continue  # removed since it was listed
        except RepositoryDamaged as exc:
            damaged.append(exc.message)
            continue
        if master is None:
            refused += 1
        else:
            opened.append((file_id, master))
    return KeySearch(opened=tuple(opened), refused=refused, damaged=tuple(damaged))


def _open_key(file_id: str, data: bytes, password: Secret) -> MasterKey | None:
    """Return the master key in a key file, or None if the password is another one."""
    try:
        fields = json.loads(data)
        if fields["kdf"] != "scrypt":
            raise ValueError(f"unknown key derivation {fields['kdf']!r}")
        n, r, p = int(fields["N"]), int(fields["r"]), int(fields["p"])
        if 128 * n * r > _MAX_SCRYPT_BYTES or not 0 < p <= 64:
            raise ValueError("scrypt parameters are out of range")
        wrapping = _derive(password, base64.b64decode(fields["salt"], validate=True), n, r, p)
        plain = wrapping.open(base64.b64decode(fields["data"], validate=True))
        if plain is None:
            return None
        secrets = json.loads(plain)
        parts = (secrets["encrypt"], secrets["mac"]["k"], secrets["mac"]["r"])
        return MasterKey(b"".join(base64.b64decode(part, validate=True) for part in parts))
    except (ValueError, KeyError, TypeError) as exc:
        raise RepositoryDamaged(f"keys/{file_id} is not a key file") from exc


def _derive(password: Secret, salt: bytes, n: int, r: int, p: int) -> MasterKey:
    secret = hashlib.scrypt(
        password.reveal().encode(),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=128 * r * (n + p + 2) + (1 << 20),
        dklen=64,
    )
    return MasterKey(secret)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
