"""Key files: the master key, wrapped by a password.

A key file is plain JSON; scrypt turns its salt and the password into the key that seals the master key.
Several key files with different passwords may wrap the same master key.
Source: restic doc/design.rst, "Keys, Encryption and MAC"; restic internal/repository/key.go.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from pgstow.core.errors import ObjectNotFound, RepositoryDamaged, RepositoryError, StoreError
from pgstow.core.secrets import Secret
from pgstow.repository import gojson
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import FileKind, list_ids, read_verified
from pgstow.store.api import Store

__all__ = [
    "KeyFile",
    "KeyInfo",
    "KeySearch",
    "find_damaged_keys",
    "list_keys",
    "remove_key",
    "search_keys",
    "store_key",
    "wrap_key",
]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What a key file says about itself. One with ``damage`` opens nothing, and says nothing else."""

    id: str
    created: datetime | None = None
    username: str = ""
    hostname: str = ""
    damage: str | None = None


def list_keys(store: Store) -> list[KeyInfo]:
    """Return every key file, the oldest first, damaged ones last."""
    found = [_describe(store, file_id) for file_id, _ in list_ids(store, FileKind.KEY)]
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(
        (info for info in found if info is not None), key=lambda info: (info.created or latest, info.id)
    )


def _describe(store: Store, file_id: str) -> KeyInfo | None:
    try:
        fields = json.loads(read_verified(store, FileKind.KEY, file_id))
        return KeyInfo(
            id=file_id,
            created=gojson.parse_time(fields["created"]),
            username=str(fields.get("username", "")),
            hostname=str(fields.get("hostname", "")),
        )
    except ObjectNotFound:
        return None  # removed since it was listed
    except RepositoryDamaged as exc:
        return KeyInfo(id=file_id, damage=exc.message)
    except (ValueError, KeyError, TypeError, AttributeError):
        return KeyInfo(id=file_id, damage=f"keys/{file_id} is not a key file")


def store_key(store: Store, master: MasterKey, password: Secret, *, hostname: str, username: str) -> str:
    """Store a key file for ``password`` and return its id, once it was read back and found to open ``master``.

    One that does not is taken away again: restic refuses a repository with a damaged key file.
    """
    key_file = wrap_key(master, password, hostname=hostname, username=username)
    name = FileKind.KEY.name_of(key_file.id)
    try:
        store.put(name, key_file.data)
        opened = _open_key(key_file.id, read_verified(store, FileKind.KEY, key_file.id), password)
        if opened is None or not opened.equals(master):
            raise RepositoryDamaged(f"{name} does not open with the new password", file=name)
    except BaseException:
        with contextlib.suppress(StoreError):  # the first error says what is wrong with the store
            store.delete(name)
        raise
    return key_file.id


def remove_key(store: Store, key_id: str, *, kept_id: str) -> None:
    """Remove a key file, having made sure that another one is still there, byte for byte as it was when it opened.

    Hold an exclusive lock: two sessions could else each remove the key of the other.
    """
    try:
        read_verified(store, FileKind.KEY, kept_id)
    except (ObjectNotFound, RepositoryDamaged) as exc:
        raise RepositoryError(
            f"nothing was removed: the key file {kept_id[:8]}, which is to stay, is gone or damaged",
            hint="open the repository again; pgstow keys list shows its keys",
        ) from exc
    store.delete(FileKind.KEY.name_of(key_id))


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


def find_damaged_keys(store: Store) -> dict[str, str]:
    """Return the key files that no password can open any more: id and what is wrong."""
    damaged: dict[str, str] = {}
    for file_id in sorted(file_id for file_id, _ in list_ids(store, FileKind.KEY)):
        try:
            data = read_verified(store, FileKind.KEY, file_id)
            if not {"kdf", "N", "r", "p", "salt", "data"} <= json.loads(data).keys():
                raise ValueError("fields are missing")
        except ObjectNotFound:
            continue  # removed since it was listed
        except RepositoryDamaged as exc:
            damaged[file_id] = exc.message
        except (ValueError, AttributeError):
            damaged[file_id] = f"keys/{file_id} is not a key file"
    return damaged


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
