"""What the archive's statements and tags say about names.

Everything read here was written by pg_dump, which quotes every name that is not plain, so the few forms
that matter can be told apart exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgstow.postgres.archive import TocEntry
from pgstow.postgres.archive.entries import QUALIFIED_NAME, unquote
from pgstow.postgres.encodings import decoded

__all__ = [
    "altered_table",
    "described",
    "mentioned_roles",
    "rename_database",
    "split_name",
    "split_statements",
    "text",
]

# Strings, quoted names, punctuation and words of a statement made by pg_dump.
_TOKEN = re.compile(rb"""[eE]?'(?:[^']|'')*+'|"(?:[^"]|"")*+"|[,;()]|[^\s,;()'"]++""")
_NAME = rb'(?:"(?:[^"]|"")*+"|[^\s.,;()"]++)'
_POLICY_ROLES = re.compile(
    rb"CREATE POLICY %(n)s ON %(n)s(?:\.%(n)s)?(?: AS \w++)?(?: FOR \w++)? TO (?P<roles>%(n)s(?:, %(n)s)*+)"
    % {b"n": _NAME}
)
_MAPPING_ROLE = re.compile(rb"CREATE USER MAPPING FOR (%s) SERVER " % _NAME)
_ALTERED = re.compile(rb"\s*ALTER (?:FOREIGN )?TABLE (?:ONLY )?(?P<name>%b)[ \n]" % QUALIFIED_NAME)
_PARTS = re.compile(rb'"(?:[^"]|"")*+"|[^."]++')
_ACLS = {b"ACL", b"ACL LANGUAGE", b"DEFAULT ACL"}


def text(name: bytes | None, encoding: str) -> str:
    """Return a name of the archive for people, and for comparing with what a person typed."""
    return decoded(name or b"", encoding)


def described(entry: TocEntry, encoding: str) -> str:
    """Return an entry as people call it: ``table app.orders``, ``constraint app.orders orders_pkey``."""
    schema = f"{text(entry.namespace, encoding)}." if entry.namespace else ""
    return f"{text(entry.desc, encoding).lower()} {schema}{text(entry.tag, encoding)}"


def split_name(qualified: bytes) -> tuple[bytes | None, bytes]:
    """Return schema and name that a qualified, quoted name stands for."""
    *schema, name = (unquote(part) for part in _PARTS.findall(qualified))
    return (schema[0] if schema else None), name


def altered_table(entry: TocEntry) -> tuple[bytes | None, bytes] | None:
    """Return schema and name of the table that an entry's ALTER TABLE is about; None for other statements."""
    match = _ALTERED.match(entry.defn or b"")
    return split_name(match["name"]) if match else None


def mentioned_roles(entry: TocEntry) -> set[bytes]:
    """Return the roles that an entry's statement needs, other than its owner."""
    statement = entry.defn or b""
    if entry.desc in _ACLS:
        return set(_roles_of_privileges(statement))
    if entry.desc == b"POLICY":
        match = _POLICY_ROLES.match(statement)
        return {unquote(role) for role in re.findall(_NAME, match["roles"])} - {b"PUBLIC"} if match else set()
    if entry.desc == b"USER MAPPING":
        match = _MAPPING_ROLE.match(statement)
        # pg_dump writes public in small letters here; no role can have that name
        return {unquote(match[1])} - {b"PUBLIC", b"public"} if match else set()
    return set()


def _roles_of_privileges(statement: bytes) -> Iterator[bytes]:
    """Yield the roles in GRANT, REVOKE, ALTER DEFAULT PRIVILEGES and SET SESSION AUTHORIZATION.

    TO and FROM are reserved words: unquoted they are never names.
    """
    before: bytes = b""
    for token in _TOKEN.findall(statement):
        if before in {b"TO", b"FROM", b"ROLE", b"AUTHORIZATION"} and token not in {b"PUBLIC", b";"}:
            yield unquote(token)
        before = token


def rename_database(statements: bytes, new_name: bytes) -> bytes:
    """Return statements about a database as statements about another; ``new_name`` is quoted.

    Covers what pg_dump writes: ``ALTER DATABASE x``, ``IN DATABASE x``, ``ON DATABASE x``. A string literal is
    one token, so its text is never taken for a statement.
    """
    parts: list[bytes] = []
    before, end = b"", 0
    for match in _TOKEN.finditer(statements):
        parts += [statements[end : match.start()], new_name if before == b"DATABASE" else match[0]]
        before, end = match[0], match.end()
    return b"".join(parts) + statements[end:]


def split_statements(statements: bytes) -> list[bytes]:
    """Return the single statements, without their semicolons, of what pg_dump writes about a database."""
    found: list[bytes] = []
    begin = 0
    for match in _TOKEN.finditer(statements):
        if match[0] == b";":
            found.append(statements[begin : match.start()].strip())
            begin = match.end()
    rest = statements[begin:].strip()
    return [one for one in (*found, rest) if one and not one.startswith(b"--")]
