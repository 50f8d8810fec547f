"""By which rules a retention command decides: those of the settings or the default ones, with what its options change."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgstow.app.plan_retention import read_attempts
from pgstow.app.retention import RetentionRequest
from pgstow.catalog.backups import check_backup_name
from pgstow.cli.command import Invocation
from pgstow.config.finding import find_settings_file
from pgstow.config.settings import RepositorySettings, Settings
from pgstow.core.errors import UsageError
from pgstow.retention import AttemptHistory, RetentionPolicies, RetentionPolicy, RetentionRule

__all__ = ["GivenRules", "rules_from", "with_options"]

_KEEP = re.compile(r"([^=:]+)=(?:([0-9]{1,6})d?(?::([0-9]{1,6}))?|(forever))", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRules:
    """A policy and where it is from. ``settings`` is None for the default rules; ``changed`` is what options changed."""

    policy: RetentionPolicy
    settings: Settings | None = None
    repository: RepositorySettings | None = (
        None  # the one of the settings that is worked on, if it is one of them
    )
    changed: Sequence[str] = ()

    def request(self, invocation: Invocation, database: str | None) -> RetentionRequest:
        """Return what is to be planned by these rules, and by the history of runs where the settings have one."""

        def history() -> AttemptHistory:
            if self.settings is None:
                return AttemptHistory()
            return read_attempts(
                self.settings,
                invocation.environ,
                repository=None if self.repository is None else self.repository.name,
                conceal=invocation.output.conceal,
            )

        return RetentionRequest(policy=RetentionPolicies(default=self.policy), history=history, name=database)

    def __str__(self) -> str:
        own = (
            "the default rules" if self.settings is None else f"the rules of {self.settings.path.absolute()}"
        )
        return f"{own} with {', '.join(self.changed)}" if self.changed else own

    def document(self) -> dict[str, Any]:
        """Return them as they appear in JSON documents."""
        return {
            "from": "default" if self.settings is None else str(self.settings.path.absolute()),
            "changed": list(self.changed),
            "time_zone": self.policy.time_zone,
            "promotes": self.policy.promotes,
            "kinds": [
                {"kind": kind, "days": rule.days, "at_least": rule.at_least}
                for kind, rule in self.policy.rules.items()
            ],
        }


def rules_from(
    invocation: Invocation, keep: Sequence[str] | None, time_zone: str | None, *, no_promote: bool
) -> GivenRules:
    """Return the rules that hold for the repository, and what the options change of them."""
    settings, repository = _settings_of(invocation)
    policy = RetentionPolicy() if settings is None else settings.retention
    changed = [f"--keep {text.strip()}" for text in keep or ()]
    if time_zone is not None:
        changed.append(f"--time-zone {time_zone}")
    if no_promote:
        changed.append("--no-promote")
    return GivenRules(
        policy=with_options(policy, keep or (), time_zone, no_promote=no_promote),
        settings=settings,
        repository=repository,
        changed=changed,
    )


def with_options(
    policy: RetentionPolicy, keep: Sequence[str], time_zone: str | None, *, no_promote: bool
) -> RetentionPolicy:
    """Return a policy with what the options say in place of its own."""
    return RetentionPolicy(
        rules=_changed(policy.rules, keep),
        promotes=policy.promotes and not no_promote,
        time_zone=policy.time_zone if time_zone is None else time_zone,
    )


def _settings_of(invocation: Invocation) -> tuple[Settings | None, RepositorySettings | None]:
    """Return the settings that speak for the repository: those that were named, or that name it.

    A file that merely lies there says nothing of a repository that it does not have.
    """
    is_named = invocation.config_file is not None or bool(invocation.environ.get("PGSTOW_CONFIG"))
    if find_settings_file(invocation.config_file, invocation.environ) is None:
        return None, None
    settings = invocation.settings()
    repository = invocation.named or next(
        (one for one in settings.repositories.values() if _is_at(one, invocation.location)), None
    )
    return (settings, repository) if is_named or repository is not None else (None, None)


def _is_at(repository: RepositorySettings, location: str | None) -> bool:
    return location is not None and _plain(repository.location) == _plain(location)


def _plain(location: str) -> str:
    """Return what is the same however the location of a store is written."""
    path = location.removeprefix("file://")
    return path.rstrip("/") if "://" in path else os.path.realpath(os.path.expanduser(path))  # noqa: PTH111  never raises


def _changed(rules: Mapping[str, RetentionRule], keep: Sequence[str]) -> dict[str, RetentionRule]:
    """Return the rules with those of ``--keep`` over them."""
    changed = dict(rules)
    given: set[str] = set()
    for text in keep:
        match = _KEEP.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"--keep: {text!r} is no rule", hint="write it like daily=30, weekly=90:4 or dr=forever"
            )
        kind = check_backup_name(match[1], what="kind")
        if kind in given:
            raise UsageError(f"--keep: there are two rules for {kind}")
        given.add(kind)
        if match[4]:
            changed.pop(kind, None)
        else:
            changed[kind] = RetentionRule(days=int(match[2]), at_least=int(match[3] or 1))
    return changed
