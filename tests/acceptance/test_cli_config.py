"""The settings file through the installed command: checking and showing it, repositories by name, the wizard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.command import Pgstow
from support.s3 import S3Bucket
from support.settings_files import EXAMPLES, SMALL

DatabaseFactory = Callable[..., ConnInfo]

PASSWORD = "correct horse battery"
SECRET = "hunter2Secret77"


@pytest.fixture
def reconciliation(tmp_path: Path) -> Path:
    """The example for PostgreSQL in a container, with its secrets, and its repositories on this machine."""
    folder = tmp_path / "etc"
    shutil.copytree(next(path.parent for path in EXAMPLES if "reconciliation" in str(path)), folder)
    (folder / "secrets").mkdir(mode=0o700)
    for name, text in (
        ("repository-password", PASSWORD),
        ("database-password", SECRET),
        ("aws-access-key-id", "AKIATEST"),
        ("aws-secret-access-key", SECRET),
        ("slack-url", f"slack://T0/B0/{SECRET}"),
        ("mail-url", f"mailtos://u:{SECRET}@smtp.example"),
    ):
        path = folder / "secrets" / name
        path.write_text(text + "\n")
        path.chmod(0o600)
    file = folder / "pgstow.yaml"
    file.write_text(file.read_text().replace("location: /backups", "location: ../backups"))
    return file


def make_clients(source: ConnInfo) -> None:
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE clients (id int PRIMARY KEY, made_at timestamptz DEFAULT now())")
        connection.execute("INSERT INTO clients SELECT generate_series(1, 20)")
        connection.execute("CREATE TABLE wallet_ledger (id int, created_at timestamptz)")


def test_backup_into_a_repository_of_the_example(
    reconciliation: Path, pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    source = database(pg15)
    make_clients(source)
    pgstow = Pgstow({"PGSTOW_CONFIG": str(reconciliation), "PGSTOW_PASSWORD": "not this one"})
    assert pgstow("init", "--repo", "local").code == 0
    ended = pgstow("backup", source.connect_string(), "--repo", "local", "--name", "reconciliation", "--json")
    assert ended.code == 0, ended.stderr
    ended = pgstow("list", "--json", "--verbose", PGSTOW_REPOSITORY="local")
    assert [each["name"] for each in ended.json()["backups"]] == ["reconciliation"]
    assert f"settings from {reconciliation}" in ended.stderr
    assert (tmp_path / "backups" / "config").is_file()
    plain = Pgstow({"PGSTOW_PASSWORD": PASSWORD})
    assert len(plain("list", "--repo", tmp_path / "backups", "--json").json()["backups"]) == 1
    wrong = tmp_path / "wrong"
    wrong.write_text("incorrect donkey")
    wrong.chmod(0o600)
    assert pgstow("list", "--repo", "local", "--password-file", wrong).code == 12  # a flag wins over the file


def test_variables_of_a_repository_reach_its_store_and_no_message(
    tmp_path: Path, s3_bucket: S3Bucket
) -> None:
    key = tmp_path / "key"
    environ = dict(s3_bucket.environ)
    secret = environ.pop("AWS_SECRET_ACCESS_KEY")
    key.write_text(secret)
    key.chmod(0o600)
    entries = "".join(f"      {name}: ${{THE_{name}}}\n" for name in environ)
    file = tmp_path / "pgstow.yaml"
    file.write_text(
        "databases: {shop: {url: service=shop}}\nrepositories:\n  offsite:\n"
        f"    location: s3://{s3_bucket.name}/pgstow\n    password: ${{THE_PASSWORD}}\n    environment:\n"
        f"      AWS_SECRET_ACCESS_KEY: file:key\n{entries}"
    )
    given = {f"THE_{name}": value for name, value in environ.items()}
    pgstow = Pgstow({"PGSTOW_CONFIG": str(file), "THE_PASSWORD": PASSWORD, **given})
    ended = pgstow("init", "--repo", "offsite")
    assert ended.code == 0, ended.stderr
    assert pgstow("repo", "stats", "--repo", "offsite", "--json").json()["status"] == "done"
    key.unlink()
    ended = pgstow("list", "--repo", "offsite")
    assert ended.code == 2
    assert "repositories.offsite.environment.AWS_SECRET_ACCESS_KEY: " in ended.stderr


def test_words_that_are_no_repository(reconciliation: Path, tmp_path: Path) -> None:
    pgstow = Pgstow({"PGSTOW_CONFIG": str(reconciliation), "PGSTOW_PASSWORD": PASSWORD})
    ended = pgstow("init", "--repo", "locla")
    assert ended.code == 2
    assert 'the settings have no repository called "locla"; did you mean "local"?' in ended.stderr
    assert not Path("locla").exists()
    unnamed = pgstow("list")
    assert unnamed.code == 2
    assert "no repository was given\nHINT: give --repo local or --repo offsite, as" in unnamed.stderr
    assert pgstow("list", "--repo", tmp_path / "locla").code == 10  # a path is never a name
    script = f"cd {tmp_path}; mkdir local backups; {pgstow.command('list')[0]} list --repo"
    for word, code in (("local", 2), ("./local", 10), ("backups", 10)):
        assert (
            os.waitstatus_to_exitcode(os.system(f"{env_of(pgstow)} sh -c '{script} {word}' 2>/dev/null"))
            == code
        )


def env_of(pgstow: Pgstow) -> str:
    return "env -i " + " ".join(f"'{name}={value}'" for name, value in pgstow.environment({}).items())


def test_check(reconciliation: Path, tmp_path: Path) -> None:
    pgstow = Pgstow()
    ended = pgstow("config", "check", reconciliation, "--resolve")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == f"ok: {reconciliation}: 1 database, 2 repositories, 10 plans; 7 secrets found\n"
    secrets = reconciliation.parent / "secrets"
    was = (secrets / "slack-url").read_text()
    (secrets / "slack-url").write_text(SECRET)  # a token alone is no address
    ended = pgstow("config", "check", "--resolve", "--config", reconciliation)
    assert ended.code == 1
    assert "cannot be had: channels.slack: its address is not one that apprise understands" in ended.stdout
    assert SECRET not in ended.stdout
    (secrets / "slack-url").write_text(was)
    (secrets / "mail-url").chmod(0o644)
    (secrets / "slack-url").unlink()
    ended = pgstow("config", "check", "--resolve", "--config", reconciliation)
    assert ended.code == 1
    assert f"warning: channels.mail.url: {secrets}/mail-url can be read by every user" in ended.stdout
    assert f"cannot be had: channels.slack.url: {secrets}/slack-url cannot be read" in ended.stdout
    assert SECRET not in ended.stdout
    file = tmp_path / "wrong.yaml"
    file.write_text(SMALL.replace("file:password", SECRET).replace("[slack]", "[slakc]"))
    ended = pgstow("config", "check", file)
    assert ended.code == 1
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(
        f"{file}:8:15: repositories.local.password: a password cannot stand in the file"
    )
    assert lines[-1] == f"2 errors in {file}"
    assert SECRET not in ended.stdout + ended.stderr
    ended = pgstow("list", "--repo", "local", "--config", file)
    assert ended.code == 2
    assert f"{file}:8:15: repositories.local.password" in ended.stderr
    assert pgstow("config", "check", file, "--config", file).code == 2
    assert pgstow("config", "check", tmp_path / "nothing.yaml").code == 2
    assert "no settings file was found" in pgstow("config", "show").stderr


def test_show_resolves_nothing_and_is_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "pgstow.yaml"
    file.write_text(SMALL)
    ended = Pgstow()("config", "show", "--config", file, OFFSITE_PASSWORD=SECRET, SLACK_URL=SECRET)
    assert ended.code == 0
    assert SECRET not in ended.stdout
    assert "password: ${OFFSITE_PASSWORD}" in ended.stdout
    shown = tmp_path / "shown.yaml"
    shown.write_text(ended.stdout)
    assert Pgstow()("config", "check", shown).code == 0


def test_wizard(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> None:
    source = database(pg15, "market")
    make_clients(source)
    url = f"postgresql://{os.environ.get('USER', 'postgres')}:{SECRET}@/market?" + "&".join(
        f"{name}={value}" for name, value in source.params.items() if name in ("host", "port", "user")
    )
    file = tmp_path / "pgstow.yaml"
    wizard = ("init", "--wizard", url, "--output", file, "--repo", tmp_path / "repository")
    ended = Pgstow()(*wizard)
    assert ended.code == 0, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr + file.read_text()
    assert "critical, a guess: public.wallet_ledger" in ended.stdout
    assert not (tmp_path / "repository").exists()
    pgstow = Pgstow({"DATABASE_URL": source.connect_string()})
    assert pgstow("config", "check", file).code == 0
    assert pgstow("config", "check", "--resolve", file).code == 1
    (tmp_path / "repository-password").write_text(PASSWORD)
    (tmp_path / "repository-password").chmod(0o600)
    assert pgstow("config", "check", "--resolve", file).code == 0
    assert pgstow("init", "--repo", "local", "--config", file).code == 0
    before = file.read_bytes()
    ended = Pgstow()(*wizard)
    assert ended.code == 2
    assert f"{file} is there already" in ended.stderr
    assert file.read_bytes() == before
    assert Pgstow()("init", "--output", file).code == 2
    assert Pgstow()("init", "--wizard", url, "--from", "/x").code == 2
