"""Passwords among the arguments: recognized in every form libpq takes, and nothing else touched."""

from __future__ import annotations

import pytest

from pgstow.cli.argv import redact


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("postgresql://alice:secret@host/db", "postgresql://alice:***@host/db"),
        (
            "postgres://alice:se:cr@et@host:5432/db?sslmode=require",
            "postgres://alice:***@host:5432/db?sslmode=require",
        ),
        ("postgresql://alice:p/w?x#y@host/db", "postgresql://alice:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("--to=postgresql://alice:secret@host/db", "--to=postgresql://alice:***@host/db"),
        (
            "postgresql://host/db?user=alice&password=secret&sslmode=require",
            "postgresql://host/db?user=alice&password=***",
        ),
        ("postgresql://host/db?sslpassword=secret", "postgresql://host/db?sslpassword=***"),
        ("host=h password=secret dbname=db", "host=h password=***"),
        ("host=h password = 'se cret' dbname=db", "host=h password =***"),
        ("password=secret", "password=***"),
        ("PASSWORD=secret", "PASSWORD=***"),
        ("host=h\npassword=secret", "host=h\npassword=***"),
        ("--to=password=secret host=h", "--to=password=***"),
    ],
)
def test_redact_blanks_passwords(argument: str, shown: str) -> None:
    assert redact(argument) == shown


@pytest.mark.parametrize(
    "argument",
    [
        "backup",
        "postgresql://alice@host/db",
        "postgresql://host:5432/db",
        "host=h dbname=db user=alice",
        "service=production",
        "s3://bucket/prefix",
        "--password-file=/etc/pgstow/password",
        "--password-command=pass show pgstow",
        "shop@2026-11-20T02:00",
        "/backups/of:shop",
        "",
    ],
)
def test_redact_leaves_everything_else_alone(argument: str) -> None:
    assert redact(argument) == argument
