"""A text is told to be SQL by its first statement, or refused before a server is started for it."""

from __future__ import annotations

import pytest

from pgstow.postgres.script_beginning import begins_like_dump, foreign_database


@pytest.mark.parametrize(
    "head",
    [
        b"--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET statement_timeout = 0;\n",
        b"--\r\n-- PostgreSQL database cluster dump\r\n--\r\n\r\nSET x = 1;\r\n",
        b"\xef\xbb\xbfset client_encoding to 'UTF8';",
        b"/* made by hand */ ; create table t ();",
        b"/* outer /* inner */ still a comment */ SELECT 1;",
        b"\\connect shop\n",
        b"-- nothing but a remark",
        b"(SELECT 1);",
        b"DO $$BEGIN END$$;",
        b"-- " + b"x" * 70_000,
    ],
)
def test_sql(head: bytes) -> None:
    assert begins_like_dump(head)


@pytest.mark.parametrize(
    "head",
    [
        b"# pgstow\n\nBackups\n",
        b'{"a": 1}',
        b"id,name\n1,a\n",
        b"<html>",
        b"%PDF-1.4\n%\xe2\xe3",
        b"#!/bin/sh\nset -e\n",
        b"Selection of things",
    ],
)
def test_no_sql(head: bytes) -> None:
    assert not begins_like_dump(head)


@pytest.mark.parametrize(
    ("head", "of_whom"),
    [
        (b"-- MariaDB dump 10.19\n--\nSET x = 1;", "MySQL or MariaDB"),
        (b"/*!40101 SET NAMES utf8 */;\n", "MySQL or MariaDB"),
        (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;", "SQLite"),
        (b"USE [master]\nGO\n", "SQL Server"),
        (b"-- PostgreSQL database dump\nSET x = 1;", None),
    ],
)
def test_dumps_of_others(head: bytes, of_whom: str | None) -> None:
    assert foreign_database(head) == of_whom
    assert begins_like_dump(head) is (of_whom is None)
