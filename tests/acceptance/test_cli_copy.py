"""``pgstow repo copy``, ``repo rekey``, ``init --from`` and ``keys`` as a user meets them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest

from pgstow.cli.output import Output
from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.repositories import copy_text, init_repository, random_bytes, save_backup
from support.restic import PASSWORD
from support.waiting import PATIENCE_S

OTHER = "another horse"
FILES = {"3456.dat": [copy_text(2000, 1)], "large": [random_bytes(900_000, seed) for seed in range(3)]}


@pytest.fixture
def source(tmp_path: Path) -> Repository:
    repository = init_repository(LocalStore(tmp_path / "source"))
    save_backup(repository, FILES, run="beef-1")
    return repository


@pytest.fixture
def target(tmp_path: Path) -> Repository:
    return init_repository(LocalStore(tmp_path / "target"), OTHER)


@pytest.fixture
def pgstow(source: Repository, tmp_path: Path) -> Pgstow:
    return Pgstow({"PGSTOW_REPOSITORY": str(tmp_path / "source"), "PGSTOW_PASSWORD": PASSWORD})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "other password"
    path.write_text(f"{OTHER}\n")
    path.chmod(0o600)
    return path


def test_passwords_of_both_sides(pgstow: Pgstow, target: Repository, secret: Path) -> None:
    copy = ("repo", "copy", "--to", target.store.location)
    ended = pgstow(*copy, "--to-password-file", secret)
    assert (ended.code, ended.stderr) == (0, "")
    assert "copied backup beef-1 of shop" in ended.stdout
    for environ in (
        {"PGSTOW_TO_PASSWORD": OTHER},
        {"PGSTOW_TO_PASSWORD_FILE": str(secret)},
        {"PGSTOW_TO_PASSWORD_COMMAND": f"cat '{secret}'"},
    ):
        ended = pgstow(*copy, **environ)
        assert (ended.code, ended.stderr) == (0, "")
        assert "1 were there already" in ended.stdout
    assert pgstow(*copy, "--to-password-command", f"echo {OTHER}").code == 0


def test_wrong_password_says_of_which_repository(pgstow: Pgstow, target: Repository, tmp_path: Path) -> None:
    copy = ("repo", "copy", "--to", target.store.location)
    ended = pgstow(*copy)  # the source's, as none was given
    assert ended.code == 12
    assert f"target: the password opens none of 1 key files at {tmp_path}/target" in ended.stderr
    assert "--to-password-file" in ended.stderr
    ended = pgstow(*copy, PGSTOW_PASSWORD="mistyped one", PGSTOW_TO_PASSWORD=OTHER)
    assert ended.code == 12
    assert f"the password opens none of 1 key files at {tmp_path}/source" in ended.stderr
    ended = pgstow("init", "--repo", tmp_path / "new", "--from", tmp_path / "target")
    assert ended.code == 12
    assert f"--from: the password opens none of 1 key files at {tmp_path}/target" in ended.stderr
    assert "--from-password-file" in ended.stderr
    assert not (tmp_path / "new").exists()


def test_missing_target_and_missing_option(pgstow: Pgstow, tmp_path: Path) -> None:
    ended = pgstow("repo", "copy", "--to", tmp_path / "nowhere")
    assert ended.code == 10
    assert f"HINT: pgstow init --repo {tmp_path}/nowhere --from {tmp_path}/source" in ended.stderr
    assert not (tmp_path / "nowhere").exists()
    ended = pgstow("repo", "copy")
    assert ended.code == 2
    assert "--to" in ended.stderr
    ended = pgstow("repo", "copy", "--to", tmp_path / "source")
    assert ended.code == 2
    assert "same repository" in ended.stderr


def test_init_from_warns_that_one_password_opens_both(pgstow: Pgstow, tmp_path: Path) -> None:
    location = tmp_path / "new"
    environ = {"PGSTOW_PASSWORD": OTHER, "PGSTOW_FROM_PASSWORD": PASSWORD}
    ended = pgstow("init", "--repo", location, "--from", tmp_path / "source", **environ)
    assert ended.code == 0
    assert "one leaked password" in ended.stdout
    ended = pgstow("repo", "copy", "--to", location, PGSTOW_TO_PASSWORD=OTHER)
    assert "moved as they are" in ended.stdout
    assert pgstow("list", "--repo", location, PGSTOW_PASSWORD=PASSWORD).code == 12
    assert pgstow("verify", "--repo", location, "--read-data", PGSTOW_PASSWORD=OTHER).code == 0


def test_rekey(pgstow: Pgstow, source: Repository, tmp_path: Path) -> None:
    location = str(tmp_path / "rekeyed")
    ended = pgstow("repo", "rekey", "--to", location, PGSTOW_NEW_PASSWORD=PASSWORD)
    assert ended.code == 2
    assert "the new password is the old one" in ended.stderr
    assert not Path(location).exists()
    for _ in range(2):
        ended = pgstow("repo", "rekey", "--to", location, PGSTOW_NEW_PASSWORD=OTHER)
        assert ended.code == 0, ended.stderr
        assert "delete it yourself" in ended.stdout
    ended = pgstow("repo", "rekey", "--to", location, PGSTOW_NEW_PASSWORD="a third horse")
    assert ended.code == 12
    assert "target: " in ended.stderr
    made = Repository.open(LocalStore(Path(location)), Secret(OTHER))
    assert not made.shares_key_with(source)
    shared = ("--repo", tmp_path / "shared", "--from", tmp_path / "source")
    assert pgstow("init", *shared, PGSTOW_PASSWORD=OTHER, PGSTOW_FROM_PASSWORD=PASSWORD).code == 0
    ended = pgstow("repo", "rekey", "--to", tmp_path / "shared", PGSTOW_NEW_PASSWORD=OTHER)
    assert ended.code == 2
    assert "same master key" in ended.stderr


def test_keys(pgstow: Pgstow, secret: Path, tmp_path: Path) -> None:
    assert pgstow("keys", "add", "--new-password-file", secret).code == 0
    listed = pgstow("keys", "list").stdout.splitlines()
    assert len(listed) == 3
    assert [line[0] for line in listed[1:]] == ["*", " "]
    in_use = listed[1].split()[1]
    ended = pgstow("keys", "remove", in_use)
    assert ended.code == 1
    assert "in use" in ended.stderr
    ended = pgstow("keys", "remove", in_use, PGSTOW_PASSWORD=OTHER)
    assert ended.code == 0
    assert "repo rekey" in ended.stdout
    assert pgstow("list").code == 12
    (tmp_path / "third").write_text("a third horse")
    (tmp_path / "third").chmod(0o600)
    change = ("keys", "passwd", "--new-password-command", f"cat {tmp_path}/third")
    ended = pgstow(*change, PGSTOW_PASSWORD=OTHER)
    assert (ended.code, ended.stderr) == (0, "")
    assert pgstow("list", PGSTOW_PASSWORD=OTHER).code == 12
    ended = pgstow("keys", "list", PGSTOW_PASSWORD="a third horse")
    assert ended.code == 0
    assert "horse" not in ended.stdout


def test_new_password_is_never_a_flags_value_and_must_come_from_somewhere(pgstow: Pgstow) -> None:
    assert pgstow("keys", "add", "--new-password", "visible").code == 2
    ended = pgstow("keys", "add")
    assert ended.code == 2
    assert "PGSTOW_NEW_PASSWORD_FILE" in ended.stderr


def test_person_types_a_new_password_twice() -> None:
    output = Output(command="keys add")
    for answers, expected in ((["one", "one"], "one"), (["one", "two"], None)):
        with (
            patch("sys.stdin.isatty", return_value=True),
            patch.object(type(output.stderr), "isatty", return_value=True, create=True),
            patch("getpass.getpass", side_effect=answers),
        ):
            ask = output.asker("new password", twice=True)
            assert ask is not None
            if expected:
                assert ask() == expected
            else:
                with pytest.raises(UsageError, match="differ"):
                    ask()


def test_interrupted_copy_goes_on(
    pgstow: Pgstow, source: Repository, target: Repository, secret: Path
) -> None:
    for number in range(2, 12):
        files = {"large": [random_bytes(900_000, number * 10 + piece) for piece in range(4)]}
        save_backup(source, files, run=f"beef-{number}")
    copy = ("repo", "copy", "--to", target.store.location, "--to-password-file", secret)
    with pgstow.start(*copy) as process:
        while process.poll() is None and not list(target.store.list("snapshots/")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    finished = len(list(target.store.list("snapshots/")))
    assert finished
    if finished < 11:  # else it was faster than the signal
        assert process.returncode == 130
        assert b"goes on from there" in stderr
        assert not list(target.store.list("locks/"))
    ended = pgstow(*copy)
    assert ended.code == 0, ended.stderr
    assert f"{finished} were there already" in ended.stdout
    assert len(Repository.open(target.store, Secret(OTHER)).snapshots()) == 11


def test_database_comes_back_from_a_copy(
    pgstow: Pgstow, pg15: Cluster, database: Callable[..., ConnInfo], tmp_path: Path
) -> None:
    source, restored = database(pg15), database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 30000) i")
    at_copy = {"PGSTOW_REPOSITORY": str(tmp_path / "copy")}
    steps: list[tuple[tuple[str | Path, ...], dict[str, str]]] = [
        (("backup", source.connect_string(), "--name", "shop"), {}),
        (("init",), at_copy),
        (("repo", "copy", "--to", tmp_path / "copy"), {}),
        (("restore", "shop@latest", "--to", restored.connect_string()), at_copy),
        (("backup", source.connect_string(), "--name", "shop"), at_copy),
        (("verify", "--read-data"), at_copy),
    ]
    for arguments, environ in steps:
        ended = pgstow(*arguments, **environ)
        assert ended.code == 0, ended.stderr
    digest = "SELECT count(*), md5(string_agg(i || m, ',' ORDER BY i)) FROM t"
    rows = []
    for each in (source, restored):
        with psycopg.connect(each.connect_string()) as connection:
            rows.append(connection.execute(digest).fetchone())
    assert rows[0] == rows[1]
    latest = pgstow("show", "latest", "--json", **at_copy).json()["manifest"]
    copied = [each["id"] for each in pgstow("list", "--json", **at_copy).json()["backups"]]
    assert latest["reuse"]["base"] in copied[:-1]  # a copy serves as a base like any backup
