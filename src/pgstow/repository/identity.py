"""Which repository this is and what opens it: its configuration and its master key, made or found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgstow.core.errors import (
    NoRepository,
    ObjectExists,
    ObjectNotFound,
    RepositoryDamaged,
    RepositoryExists,
    StoreError,
    WrongPassword,
)
from pgstow.core.secrets import Secret
from pgstow.repository.config import RepositoryConfig, random_polynomial
from pgstow.repository.crypto import MasterKey
from pgstow.repository.files import CONFIG, FileKind, SealedFiles, list_ids
from pgstow.repository.keys import search_keys, wrap_key
from pgstow.store.api import Store
from pgstow.store.probing import probe_conditional_put

__all__ = ["Identity", "RepositoryKin", "find_identity", "make_identity"]

_SETTLE_S = 5.0
_REFUSED_HINT = "is it the password of another repository, or an old one? whoever has one that works can add another: pgstow keys add"
_NEW_CONFIG_HINT = "pgstow repo repair makes a new one; nothing else depends on it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is known of a repository once a password has opened it."""

    config: RepositoryConfig
    key: MasterKey
    key_id: str
    config_problem: str | None = None  # why the configuration is not the stored one


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryKin:
    """What repositories share between which packs can be moved as they are: master key and way of cutting files."""

    key: MasterKey
    chunker_polynomial: int

    @classmethod
    def generate(cls, key: MasterKey | None = None) -> RepositoryKin:
        """Return what no other repository has; ``key`` is that of an init which did not come to its end."""
        return cls(key=key or MasterKey.generate(), chunker_polynomial=random_polynomial())


def make_identity(
    store: Store,
    password: Secret,
    *,
    hostname: str,
    username: str,
    kin: RepositoryKin | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Identity:
    """Make an empty repository; RepositoryExists if one is there or another init was faster.

    With the ``kin`` of another one packs can be moved between them as they are, and whoever once had the master
    key of one can read both.

    What an init that was interrupted left is finished, if the password is the same. Where the store cannot
    create conditionally the configuration is read again after a while: of two that were written at once the
    last stands, and the other init gives way.
    """
    if _read_config(store) is not None:
        raise RepositoryExists(f"there is a repository at {store.location} already")
    unfinished = _unfinished_keys(store, password)
    kin = kin or RepositoryKin.generate(unfinished[0][1] if unfinished else None)
    if unfinished and not unfinished[0][1].equals(kin.key):
        raise RepositoryExists(
            f"{store.location} holds key files of an interrupted init that was not to share this master key",
            hint="remove the folder keys and try again",
        )
    config = RepositoryConfig.generate(kin.chunker_polynomial)
    key_file = wrap_key(kin.key, password, hostname=hostname, username=username)
    key_name = FileKind.KEY.name_of(key_file.id)
    is_conditional = probe_conditional_put(store)
    store.put(key_name, key_file.data)  # before the config: what has a config can be opened
    try:
        _write_config(store, kin.key.seal(config.encode()), is_conditional=is_conditional, sleep=sleep)
    except ObjectExists as exc:
        store.delete(key_name)
        raise RepositoryExists(f"another init made the repository at {store.location} first") from exc
    with contextlib.suppress(StoreError):  # the repository is there; they open it with the same password
        for key_id, _ in unfinished:
            store.delete(FileKind.KEY.name_of(key_id))
    return Identity(config=config, key=kin.key, key_id=key_file.id)


def _write_config(
    store: Store, sealed: bytes, *, is_conditional: bool, sleep: Callable[[float], None]
) -> None:
    """Write the configuration; ObjectExists if another init was faster."""
    store.put(CONFIG, sealed, if_absent=is_conditional)
    if not is_conditional:
        sleep(_SETTLE_S)
    if store.get(CONFIG) != sealed:
        raise ObjectExists(f"{CONFIG} was written by another init")


def find_identity(store: Store, password: Secret, *, without_config: bool = False) -> Identity:
    """Return what opens the repository in ``store``. Raises NoRepository, WrongPassword, RepositoryDamaged.

    Only key files are needed to read. ``without_config`` makes do with a new configuration, in memory, where
    the stored one is lost; ``config_problem`` says why then.
    """
    sealed = _read_config(store)
    if sealed is None:
        if not _has_content(store):
            raise NoRepository(f"there is no repository at {store.location}", hint="pgstow init makes one")
        if without_config:
            return _without_config(store, password, "config is missing")
        raise RepositoryDamaged(
            f"config is missing from {store.location}, though there are snapshots or index files",
            hint=_NEW_CONFIG_HINT,
            file=CONFIG,
        )
    search = search_keys(store, password)
    for key_id, key in search.opened:
        plain = key.open(sealed)
        if plain is not None:  # else: the key file of an init that lost its race
            return Identity(config=RepositoryConfig.decode(plain), key=key, key_id=key_id)
    if search.opened:
        problem = "config is damaged: no key opens it"
        if without_config:
            return _without_config(store, password, problem)
        raise RepositoryDamaged(problem, hint=_NEW_CONFIG_HINT, file=CONFIG)
    if search.refused:
        also = f"; {len(search.damaged)} key files are damaged" if search.damaged else ""
        raise WrongPassword(
            f"the password opens none of {search.refused} key files at {store.location}{also}",
            hint=_REFUSED_HINT,
        )
    if search.damaged:
        raise RepositoryDamaged("no key file can be read: " + "; ".join(search.damaged))
    raise NoRepository(f"{store.location} has a config but no key file", hint="restore the folder keys")


def _without_config(store: Store, password: Secret, problem: str) -> Identity:
    """Return the first master key that fits what is stored; the config would say which one it is."""
    search = search_keys(store, password)
    if not search.opened:
        raise WrongPassword(
            f"the password opens none of the key files at {store.location}", hint=_REFUSED_HINT
        )
    for key_id, key in search.opened:
        if _opens_something(SealedFiles(store, key)) is not False:
            config = RepositoryConfig.generate(random_polynomial())
            return Identity(config=config, key=key, key_id=key_id, config_problem=problem)
    raise RepositoryDamaged(f"{problem}, and the key opens nothing that is stored", file=CONFIG)


def _unfinished_keys(store: Store, password: Secret) -> Sequence[tuple[str, MasterKey]]:
    """Return the keys of an init that has not written its config; RepositoryExists if the password opens none of them."""
    if not any(True for _ in list_ids(store, FileKind.KEY)):
        return ()
    search = search_keys(store, password)
    if not search.opened and (search.refused or search.damaged):
        raise RepositoryExists(
            f"{store.location} holds key files but no config",
            hint="another init is at work, or one with another password was interrupted:"
            " then give that password, or remove the folder keys and try again",
        )
    return search.opened


def _opens_something(files: SealedFiles) -> bool | None:
    """Return whether the key opens any index or snapshot file; None if there are none to try."""
    outcomes = []
    for kind in (FileKind.SNAPSHOT, FileKind.INDEX):
        for file_id, _ in list_ids(files.store, kind):
            with contextlib.suppress(RepositoryDamaged):
                if files.load_present(kind, file_id) is not None:
                    return True
            outcomes.append(False)
    return False if outcomes else None


def _has_content(store: Store) -> bool:
    """Return whether somebody stored something here that only a repository has."""
    return any(True for kind in (FileKind.SNAPSHOT, FileKind.INDEX) for _ in list_ids(store, kind))


def _read_config(store: Store) -> bytes | None:
    try:
        return store.get(CONFIG)
    except ObjectNotFound:
        return None
