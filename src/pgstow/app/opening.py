"""Opening repositories: the one place where a location and a password become a Repository, and where that is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pgstow.app import auditing
from pgstow.app.doctor import RepositoryToCheck
from pgstow.core.secrets import Secret
from pgstow.repository import Repository, RepositoryKin
from pgstow.store.local import LocalStore
from pgstow.store.opening import open_retrying_store, open_store

__all__ = ["local_folder", "make_repository", "open_for_check", "open_repository"]


def open_repository(
    location: str,
    password: Secret,
    environ: Mapping[str, str],
    *,
    on_retry: Callable[[str], None],
    is_cached: bool = False,
    without_config: bool = False,
) -> Repository:
    """Return the repository at ``location``; ``on_retry`` hears of passing failures of its store.

    The access that is under way has it in its audit entry.

    With ``is_cached`` small files of a far store are read from this machine where a copy is there: not for what
    examines the store itself. ``without_config``: also one that lost its configuration.
    Raises UsageError, NoRepository, WrongPassword, StoreError.
    """
    store = open_retrying_store(location, environ, on_retry=on_retry, is_cached=is_cached)
    with auditing.opening(store.location):
        repository = Repository.open(store, password, without_config=without_config)
    auditing.opened(repository, environ)
    return repository


def make_repository(
    location: str,
    password: Secret,
    environ: Mapping[str, str],
    *,
    kin: RepositoryKin | None = None,
    hostname: str,
    username: str,
    on_retry: Callable[[str], None],
) -> Repository:
    """Return a new repository at ``location``, with the master key of ``kin`` if there is one.

    Raises UsageError, RepositoryExists, StoreError.
    """
    store = open_retrying_store(location, environ, on_retry=on_retry)
    repository = Repository.init(store, password, hostname=hostname, username=username, kin=kin)
    auditing.opened(repository, environ)
    return repository


def open_for_check(
    location: str, password: Secret | None, environ: Mapping[str, str], *, on_retry: Callable[[str], None]
) -> RepositoryToCheck:
    """Return the place of a repository that may not exist or open, for the doctor to look at."""
    return RepositoryToCheck(
        store=open_retrying_store(location, environ, on_retry=on_retry),
        folder=local_folder(location, environ),
        password=password,
    )


def local_folder(location: str, environ: Mapping[str, str]) -> Path | None:
    """Return the folder of a repository on this machine; None for one that is elsewhere."""
    store = open_store(location, environ)
    return Path(store.location) if isinstance(store, LocalStore) else None
