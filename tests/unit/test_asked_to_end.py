"""Where errors become findings, being asked to end is none: it ends the command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from pgstow.app import audit, doctor
from pgstow.cli import config_check
from pgstow.core.errors import Interrupted
from pgstow.postgres import workspace
from pgstow.postgres.conninfo import ConnInfo
from pgstow.store import object_lock
from support.backups import PASSWORD, memory_repository


def interrupt(*_arguments: object, **_options: object) -> NoReturn:
    raise Interrupted("interrupted by SIGINT")


def test_doctor_while_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "refuse_transaction_pooler", interrupt)
    with pytest.raises(Interrupted):
        doctor.diagnose(ConnInfo.parse("dbname=shop"), tools=[], repository=None)


def test_doctor_while_it_opens_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor.RepositoryToCheck(store=memory_repository().store, folder=None, password=PASSWORD)
    monkeypatch.setattr(doctor.Repository, "open", interrupt)
    with pytest.raises(Interrupted):
        doctor.diagnose(ConnInfo.parse("dbname=shop"), tools=[], repository=there)


def test_config_check_while_a_program_is_asked_for_a_secret() -> None:
    reference, invocation = SimpleNamespace(resolve=interrupt), SimpleNamespace(output=None, environ={})
    with pytest.raises(Interrupted):
        config_check._trouble(*_any(reference, invocation))


def test_audit_verify_while_versions_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = SimpleNamespace(store=SimpleNamespace(location="s3://bucket"))
    monkeypatch.setattr(object_lock, "LockableBucket", interrupt)
    with pytest.raises(Interrupted):
        audit._kept_versions(*_any(repository, {}))


def test_what_others_left_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pgstow-drill-1-abc").mkdir()
    monkeypatch.setattr(workspace, "_abandoned", interrupt)
    with pytest.raises(Interrupted):
        workspace.remove_leftovers(tmp_path, print)


def _any(*values: object) -> tuple[Any, ...]:
    return values
