"""Secrets: references to them, what is refused as one that is written out, and that none is ever repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgstow.config.connections import connection_of
from pgstow.config.plain_secrets import channel_problem, connection_problem, environment_problem
from pgstow.config.references import Reference
from pgstow.core.errors import PgstowError, ProcessFailed, ToolMissing, UsageError
from support.settings_files import SMALL, look, told

SECRET = "hunter2Secret77"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://backup:{SECRET}@db.example/shop",
        f"postgresql://backup:{SECRET[:4]}${{REST}}@db.example/shop",
        f"postgresql://backup:a/b{SECRET}@db.example/shop",
        f"postgresql://backup:a#b{SECRET}@db.example/shop",
        f"postgresql://backup@db.example/shop?password={SECRET}",
        f"postgresql://db.example/shop?user=x&sslpassword={SECRET}",
        f"host=db.example password={SECRET}",
        f"host=db.example password = '{SECRET} x'",
        f"postgresql://${{USER}}:{SECRET}@db.example/shop",
    ],
)
def test_passwords_in_connection_strings(url: str) -> None:
    problem = connection_problem(url)
    assert problem is not None
    assert "holds a password: take it out" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://backup@db.example:5432/shop?sslmode=verify-full",
        "postgresql://backup:${PASSWORD}@db.example/shop",
        "postgresql://${USER}:${PASSWORD}@${HOST}:${PORT}/shop",
        "${DATABASE_URL}",
        "service=shop",
        "host=db.example user=x password=${PASSWORD}",
        "host=/run/postgresql dbname=shop passfile=/etc/pgpass",
        "shop",
    ],
)
def test_connection_strings_without_passwords(url: str) -> None:
    assert connection_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.slack.com/services/T0/B0/{SECRET}",
        f"slack://T0/B0/{SECRET}",
        f"mailtos://ops:{SECRET}@smtp.example.com",
        f"mailto://smtp.example.com?user=ops&pass={SECRET}",
        f"jsons://user:{SECRET}@hook.example/path",
        f"jsons://hook.example/path?token={SECRET}",
        f"tgram://123:{SECRET}/chat",
        f"https://hooks.slack.com/services/${{TEAM}}/B0/{SECRET}",
        f"ntfy://{SECRET}",
    ],
)
def test_secrets_in_channels(url: str) -> None:
    problem = channel_problem(url)
    assert problem is not None
    assert "secret" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "url",
    [
        "${SLACK_URL}",
        "slack://${TOKEN_A}/${TOKEN_B}/${TOKEN_C}",
        "https://hooks.slack.com/services/${SLACK_PATH}",
        "mailto://smtp.internal:25?to=ops@example.com",
        "mailtos://${MAIL_USER}:${MAIL_PASSWORD}@smtp.example.com?to=ops@example.com",
        "json://127.0.0.1:8080/alerts",
        "jsons://hook.example/path?+X-Token=${TOKEN}",
        "syslog://",
    ],
)
def test_channels_without_secrets(url: str) -> None:
    assert channel_problem(url) is None


@pytest.mark.parametrize(
    ("name", "value", "is_refused"),
    [
        ("AWS_SECRET_ACCESS_KEY", SECRET, True),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE", True),
        ("AWS_SESSION_TOKEN", SECRET, True),
        ("AZURE_STORAGE_ACCOUNT_KEY", SECRET, True),
        ("AWS_SECRET_ACCESS_KEY", "${KEY}", False),
        ("AWS_SECRET_ACCESS_KEY", f"{SECRET}${{KEY}}", True),
        ("HTTPS_PROXY", f"http://user:{SECRET}@proxy:3128", True),
        ("HTTPS_PROXY", "http://proxy:3128", False),
        ("AWS_REGION", "eu-central-1", False),
        ("AWS_ENDPOINT_URL", "https://s3.example", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/pgstow/google.json", False),
    ],
)
def test_secrets_in_the_environment_of_a_store(name: str, value: str, is_refused: bool) -> None:
    problem = environment_problem(name, value)
    assert (problem is not None) is is_refused
    assert SECRET not in (problem or "")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("postgresql://backup@db.example/shop", f"postgresql://u:{SECRET}@h/d", "3:10: databases.shop.url"),
        ("file:password", SECRET, "8:15: repositories.local.password"),
        ("${SLACK_URL}", f"https://hooks.slack.com/services/T0/B0/{SECRET}", "24:10: channels.slack"),
        ("kinds: [daily]", f"environment: {{AWS_SECRET_ACCESS_KEY: {SECRET}}}", "12:42: repositories.offsite.environment.AWS"),
        ("kinds: [daily]", f"passwrod: {SECRET}", "12:5: repositories.offsite.passwrod"),
        ("kinds: [daily]", f"{SECRET}: x", "12:5: repositories.offsite...."),
        ("s3://bucket/pgstow", f"s3://key:{SECRET}@bucket/x", "10:15: repositories.offsite.location"),
        ("0 2 * * *", SECRET, "15:15: plans.daily.schedule"),
        ("channels:\n  slack", f"state: postgresql://u:{SECRET}@h/d\nchannels:\n  slack", "23:8: state"),
        ("0 2 * * *", f"0 2 * * *\n    ping: https://user:{SECRET}@ping.example/x", "16:11: plans.daily.ping"),
        ("channels: [slack]", f"channels: [{SECRET}]", "22:16: contacts[0].channels[0]"),
    ],
)  # fmt: skip
def test_a_secret_is_refused_where_it_stands_and_not_repeated(old: str, new: str, place: str) -> None:
    assert old in SMALL
    errors = told(SMALL.replace(old, new, 1))
    assert any(error.startswith(place) for error in errors), errors
    assert SECRET not in "".join(errors)


def test_references(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"\ufeff  {SECRET}\n")
    environ = {"NAME": SECRET, "EMPTY": ""}
    assert Reference(where="x", file=file).resolve(environ).reveal() == SECRET
    assert Reference(where="x", text="a ${NAME} b").resolve(environ).reveal() == f"a {SECRET} b"
    command = Reference(where="x", command=("printf", rf"{SECRET}\nmore"))
    assert command.resolve(environ).reveal() == SECRET
    for reference, kind, message in (
        (Reference(where="x", text="${OTHER}"), UsageError, "x: the variable OTHER is not set"),
        (Reference(where="x", text="${EMPTY}"), UsageError, "x: what its variables hold is empty"),
        (Reference(where="x", file=tmp_path / "no"), UsageError, "cannot be read: No such file"),
        (Reference(where="x", file=Path("/dev/null")), UsageError, "x: file /dev/null is empty"),
        (Reference(where="x", command=("true",)), UsageError, "x: the output of true is empty"),
        (Reference(where="x", command=("false",)), ProcessFailed, "false"),
        (Reference(where="x", command=("no-such-program",)), ToolMissing, "not installed"),
    ):
        with pytest.raises(kind, match=message) as caught:
            reference.resolve(environ)
        assert SECRET not in str(caught.value)


def test_file_that_everybody_can_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    assert "can be read by every user" in (Reference(where="x", file=file).warning() or "")
    file.chmod(0o640)
    assert Reference(where="x", file=file).warning() is None
    assert Reference(where="x", file=tmp_path / "no").warning() is None
    assert Reference(where="x", text="${X}").warning() is None


def test_connection_of_a_database() -> None:
    text = SMALL.replace("db.example/shop", "${HOST}/shop\n    password: ${PASSWORD}")
    settings = look(text).settings
    assert settings is not None
    shop = settings.databases["shop"]
    conninfo = connection_of(shop, {"HOST": "db.example", "PASSWORD": SECRET})
    assert dict(conninfo.params) == {"user": "backup", "host": "db.example", "dbname": "shop"}
    assert conninfo.secrets["password"].reveal() == SECRET
    with pytest.raises(PgstowError, match="databases.shop.password: the variable PASSWORD is not set"):
        connection_of(shop, {"HOST": "db.example"})
    with pytest.raises(UsageError, match="databases.shop.url: the connection string cannot be parsed"):
        connection_of(shop, {"HOST": "[", "PASSWORD": "x"})
