"""The use case: make a repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pgstow.app.opening import make_repository
from pgstow.core.secrets import Secret
from pgstow.repository import Repository

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
    repository = make_repository(
        location,
        password,
        environ,
        kin=relative.kin if relative else None,
        hostname=hostname,
        username=username,
        on_retry=on_retry,
    )
    return InitReport(
        location=repository.store.location,
        repository_id=repository.id,
        shares_key_with=relative.store.location if relative else None,
    )
