"""The settings files of ``examples/``, used from the first check to a restore; folders stand for what is in S3."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstow.cli.application import run
from pgstow.cli.argv import Arguments
from pgstow.config.reading import read_settings
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.settings_files import EXAMPLES
from support.telling import Web, web_server

pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated:DeprecationWarning"
)  # by what apprise loads

DatabaseFactory = Callable[..., ConnInfo]

TABLES = {
    "marketplace-supabase": ("auth.users", "public.wallet_ledger", "public.bookings"),
    "reconciliation-docker": (
        "auth.users", "public.wallet_transactions", "public.accounting_entries", "public.clients",
        "public.connectors", "public.jobs", "public.user_clients", "public.schedules",
    ),
}  # fmt: skip
ROWS = 50


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as web:
        yield web


@pytest.fixture
def source(pg15: Cluster, database: DatabaseFactory, example: str) -> ConnInfo:
    """A database that holds what the example asks for, and a table that it says nothing of."""
    made: ConnInfo = database(pg15)
    with psycopg.connect(made.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA auth")
        for table in (*TABLES[example], "public.cars"):
            connection.execute(
                f"CREATE TABLE {table} AS SELECT i, now() AS created_at, now() AS updated_at, now() AS starts_at,"  # type: ignore[arg-type]
                " now() + interval '1 day' AS ends_at, i::numeric(12, 2) AS amount, i::numeric(12, 2) AS debit,"
                f" i::numeric(12, 2) AS credit FROM generate_series(1, {ROWS}) i"
            )
    return made


@pytest.fixture
def settings_file(
    example: str, source: ConnInfo, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The example as it is, but for places that this machine does not have."""
    (path,) = [path for path in EXAMPLES if path.parent.name == example]
    url = f"postgresql://{source.params['user']}@/{source.dbname}?host={source.params['host']}&port={source.params['port']}"
    text = path.read_text()
    text = re.sub(r"location: s3://\S+", "location: ./offsite", text)
    text = re.sub(r"location: /\S*", "location: ./local", text)
    text = text.replace("file:/etc/pgstow/password", "file:secrets/password")
    text = re.sub(r"url: postgresql://\S+\n +password: \S+", "url: ${DATABASE_URL}", text)
    copy = tmp_path / "pgstow.yaml"
    copy.write_text(text)
    hook = f"json://127.0.0.1:{web.port}/hook"
    secrets = {
        "password": "correct horse", "repository-password": "correct horse", "slack-url": hook, "mail-url": hook,
        "aws-access-key-id": "AKIATEST", "aws-secret-access-key": "of-nobody",
    }  # fmt: skip
    (tmp_path / "secrets").mkdir(mode=0o700)
    for name, secret in secrets.items():
        (tmp_path / "secrets" / name).write_text(secret)
        (tmp_path / "secrets" / name).chmod(0o600)
    variables = {
        "DATABASE_URL": url, "OFFSITE_KEY_ID": "AKIATEST", "OFFSITE_KEY_SECRET": "of-nobody", "SLACK_URL": hook,
        "MAIL_URL": hook, "HEALTHCHECK_DAILY": f"http://127.0.0.1:{web.port}/ping",
        "PGSTOW_CONFIG": str(copy), "PGSTOW_STATE_DIR": str(tmp_path / "state"),
        "PGSTOW_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return copy


@pytest.mark.parametrize("example", TABLES)
def test_from_the_file_to_a_restore(
    example: str, settings_file: Path, source: ConnInfo, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    def pgstow(*arguments: str, code: int = 0) -> Any:
        """Run a command in this process, which is as good as another here and ten times as fast; return its document."""
        ended = run(Arguments(texts=(*arguments, "--json"), had_secrets=False))
        said = capsys.readouterr()
        assert ended == code, f"{arguments}: {said.out}{said.err}"
        return json.loads(said.out)

    settings = read_settings(settings_file)
    (name,) = settings.databases
    assert not pgstow("config", "check", "--resolve")["warnings"]
    for repository in settings.repositories:
        pgstow("init", "--repo", repository)
    for plan in settings.plans.values():
        label = ("--label", "release 7") if plan.kind == "pre-deployment" else ()
        pgstow("run", plan.name, *label)

    assert [each["code"] for each in pgstow("status")["reasons"]] == [
        "alerts_unknown"
    ]  # until somebody looks
    alerts = pgstow("alerts", "check")
    assert alerts["alerts"] == alerts["deliveries"] == []
    found = pgstow("status")
    assert found["level"] == "ok", found["reasons"]
    kinds = {kind["kind"]: kind for kind in found["databases"][0]["kinds"]}
    for plan in settings.plans.values():
        if plan.job == "backup":
            holders = {each["repository"] for each in kinds[plan.kind]["destinations"] if each["newest"]}
            assert holders == set(plan.repositories) & {
                each.name
                for each in settings.repositories.values()
                if each.kinds is None or plan.kind in each.kinds
            }, plan.name
    pgstow("status", "--check")
    pgstow("checklist", "daily", code=3)  # sizes have nothing to be compared with yet
    pgstow("retention", "plan", "--repo", "local")
    assert [post.path for post in web.posts if post.path == "/hook"] == []

    pgstow("restore", f"{name}@latest", "--repo", "offsite", "--to", restored_as(source), "--create")
    with psycopg.connect(restored_as(source)) as connection:
        for table in (*TABLES[example], "public.cars"):
            counted = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
            assert counted == (ROWS,)


def restored_as(source: ConnInfo) -> str:
    """Return where the restore goes: a database beside the source, which is dropped with the server."""
    return f"host={source.params['host']} port={source.params['port']} user={source.params['user']} dbname={source.dbname}_restored"
