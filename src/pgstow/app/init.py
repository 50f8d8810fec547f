"""The use case: make a repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pgstow.core.secrets import Secret
from pgstow.repository import Repository
from pgstow.store.opening import open_retrying_store

__all__ = ["InitReport", "init_repository"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """A repository that was made."""

    location: str
    repository_id: str
    shares_key_with: str | None  # location of the repository that has the same master key


def init_repository(
    location: str,
    password: Secret,
    environ: Mapping[str, str],
    *,
    relative: Repository | None = None,
    hostname: str,
    username: str,
    on_retry: Callable[[str], None],
) -> InitReport:
    """Make a repository at ``location`` that ``password`` opens, with the master key of ``relative`` if there is one.

    ``hostname`` and ``username`` are noted in its key. Raises RepositoryExists, UsageError, StoreError.
    """
    store = open_retrying_store(location, environ, on_retry=on_retry)
    kin = relative.kin if relative else None
    repository = Repository.init(store, password, hostname=hostname, username=username, kin=kin)
    return InitReport(
        location=store.location,
        repository_id=repository.id,
        shares_key_with=relative.store.location if relative else None,
    )
