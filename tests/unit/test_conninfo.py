"""Connection parameters, and how little of them is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgstow.core.errors import ConnectionFailed, UsageError
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import connect

PASSWORD = "s3cr3t&wörd"
URL = "postgresql://alice:s3cr3t%26w%C3%B6rd@db.example:6000/shop?sslmode=verify-full"


@pytest.mark.parametrize(
    "text", [URL, f"host=db.example port=6000 user=alice dbname=shop password='{PASSWORD}'"]
)
def test_no_form_of_text_shows_the_password(text: str) -> None:
    conninfo = ConnInfo.parse(text)
    for shown in (str(conninfo), repr(conninfo), repr(conninfo.with_database("x")), f"{conninfo.params}"):
        assert PASSWORD not in shown
        assert "s3cr3t" not in shown
    assert conninfo.secrets["password"].reveal() == PASSWORD
    assert str(conninfo) == "database shop at db.example:6000"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("service=prod", "service prod"),
        ("service=prod dbname=shop", "service prod, database shop"),
        ("service=prod host=db.example port=6000", "service prod at db.example:6000"),
        ("dbname=shop", "database shop at local socket"),
        ("", "database (default) at local socket"),
    ],
)
def test_nothing_is_claimed_that_a_service_file_says(text: str, shown: str) -> None:
    assert str(ConnInfo.parse(text)) == shown


def test_bare_word_is_a_database() -> None:
    assert ConnInfo.parse("shop").dbname == "shop"
    assert ConnInfo.parse("").dbname is None


def test_what_cannot_be_parsed_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        ConnInfo.parse("postgresql://alice:hunter2@host:port:port/x?nonsense=1")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_parameters_travel_in_the_environment() -> None:
    with ConnInfo.parse(URL).tool_env(PGTZ="UTC") as env:
        assert env == {
            "PGHOST": "db.example",
            "PGPORT": "6000",
            "PGUSER": "alice",
            "PGDATABASE": "shop",
            "PGPASSWORD": PASSWORD,
            "PGSSLMODE": "verify-full",
            "PGTZ": "UTC",
        }


def test_parameters_without_a_variable_go_through_a_private_service_file() -> None:
    with ConnInfo.parse("dbname=shop sslpassword=keypass keepalives=1").tool_env() as env:
        path = Path(env["PGSERVICEFILE"])
        assert (
            path.read_text() == f"[{env['PGSERVICE']}]\nkeepalives=1\nsslpassword=keypass\n"
            or "keypass" in path.read_text()
        )
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_what_is_said_beside_a_service_reaches_programs_as_their_argument() -> None:
    """libpq believes a service file more than PG* variables; only a connection string counts more."""
    place = ConnInfo.parse(f"service=prod dbname=copy keepalives=1 password='{PASSWORD}'")
    assert place.tool_argument() == "service=prod dbname=copy keepalives=1"
    with place.tool_env() as env:
        assert env["PGPASSWORD"] == PASSWORD
        assert "PGSERVICEFILE" not in env


def test_a_service_of_the_environment_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    place = ConnInfo.parse("dbname=copy")
    assert not place.tool_argument()
    monkeypatch.setenv("PGSERVICE", "prod")
    assert place.tool_argument() == "dbname=copy"


def test_service_and_a_secret_without_a_variable_are_refused() -> None:
    with (
        pytest.raises(UsageError, match="sslpassword"),
        ConnInfo.parse("service=prod sslpassword=keypass").tool_env(),
    ):
        pass


def test_unreachable_server_is_told_with_a_remedy_and_without_the_password() -> None:
    conninfo = ConnInfo.parse(f"host=127.0.0.1 port=1 user=alice dbname=shop password='{PASSWORD}'")
    with pytest.raises(ConnectionFailed) as caught:
        connect(conninfo)
    assert "127.0.0.1:1" in caught.value.message
    assert caught.value.hint
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter@2@h/db",
        "postgres://u:hun/ter@2@h/db?sslmode=require",
        "postgresql://u:a?hun@ter@h/db",
    ],
)
def test_a_password_with_bare_signs_is_refused_and_no_part_of_it_becomes_a_host(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        ConnInfo.parse(url)
    assert "hun" not in f"{caught.value} {caught.value.hint}"
    assert "%40" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://u:a%40b@h:1,i:2/db?options=-c%20x%3Da@b", "h,i"),
        ("postgresql:///db?host=@socket", "@socket"),
        ("postgresql://u:a?b:c@[::1]:5432/db", "::1"),
        ("postgresql://u@%2Frun%2Fa%40b/db", "/run/a@b"),
        ("postgresql://u%40azure:p@h/db?user=a@b", "h"),
        ("postgresql://h?dbname=db", "h"),
        ("host=@socket dbname=db password=a@b/c@d", "@socket"),
    ],
)
def test_other_signs_stay_what_they_are(url: str, host: str) -> None:
    parsed = ConnInfo.parse(url)
    assert (parsed.dbname, parsed.params["host"]) == ("db", host)


def test_a_name_with_a_sign_is_a_name() -> None:
    assert ConnInfo.parse("postgresql://u:p@h/db%40x").dbname == "db@x"
