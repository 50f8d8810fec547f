"""Statements of a dump that need special care, in the forms that pg_dump and pg_dumpall write.

Each is recognised as a whole. What a superuser may run on behalf of a dump that nobody vouches for evaluates no
expression, calls no function of the dump's, and gives nobody rights that he could use while the dump is being run.

Source: PostgreSQL src/bin/pg_dump/pg_dump.c, pg_dumpall.c.
"""

from __future__ import annotations

import re

from pgstow.postgres.archive import unquote

__all__ = [
    "CLUSTER_WIDE",
    "COPY_ROWS",
    "CREATE_DATABASE",
    "CREATE_ROLE",
    "CREATE_SERVER",
    "EVENT_TRIGGER",
    "GRANT",
    "IS_COPY",
    "LEFT_OUT",
    "NAME_ANY",
    "OWNER_TO",
    "ROLE_SWITCH",
    "SCHEMA_GRANT",
    "database_options",
    "is_extension",
    "is_harmless",
    "is_inert",
    "may_be_kept",
    "plain",
    "roles_in",
]


def _form(pattern: bytes) -> re.Pattern[bytes]:
    """Return a pattern in which a space stands for any, {n} for a name, {q} for a qualified one, {s} for a string."""
    pattern = pattern.replace(b"{n}", NAME_ANY).replace(b"{q}", QUALIFIED_ANY).replace(b"{s}", STRING)
    return re.compile(pattern.replace(b" ", rb"\s+"), re.IGNORECASE | re.DOTALL)


NAME_ANY = rb'(?:[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+|"(?:[^"]|"")*+")'
QUALIFIED_ANY = rb"(?:%b(?:\.%b)?+)" % (NAME_ANY, NAME_ANY)
STRING = rb"(?:'(?:[^'\\]|'')*+')"

_KINDS = (
    rb"(?:FOREIGN |MATERIALIZED )?(?:TABLE|VIEW)|SEQUENCE|SCHEMA|TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|OPERATOR(?: CLASS| FAMILY)?"
    rb"|COLLATION|CONVERSION|TEXT SEARCH (?:DICTIONARY|CONFIGURATION)|FOREIGN DATA WRAPPER|SERVER|EVENT TRIGGER|PUBLICATION"
    rb"|STATISTICS|LARGE OBJECT|DATABASE|(?:PROCEDURAL )?LANGUAGE"
)
# Between kind and owner stand a name, an operator or a number, and perhaps types in parentheses: nothing to evaluate.
OWNER_TO = _form(
    rb"ALTER (?P<kind>%b) (?:ONLY )?(?:{q}|(?:{n}\.)?[-+*/<>=~!@#%%^&|`?]+|[0-9]+)\s*(?:\([^()';$]*\))?(?: USING {n})? OWNER TO (?P<owner>{n})"
    % _KINDS
)
_EXTENSION = _form(
    rb"CREATE EXTENSION (?:IF NOT EXISTS )?{n}(?: WITH)?(?: SCHEMA {n})?(?: VERSION (?:{n}|{s}))?"
)
_COMMENT = _form(rb"COMMENT ON [A-Z][^';$]* IS (?:{s}|NULL)")
_TRIGGERS = _form(rb"ALTER (?:FOREIGN )?TABLE (?:ONLY )?{q} (?:ENABLE|DISABLE) TRIGGER ALL")
_WRAPPER = _form(rb"CREATE FOREIGN DATA WRAPPER {n}")
_PUBLICATION = _form(rb"CREATE PUBLICATION {n} FOR ALL TABLES(?: WITH \([^();$]*\))?")
_SCHEMA_TABLES = _form(rb"ALTER PUBLICATION {n} ADD TABLES IN SCHEMA {n}")
_HARMLESS = (_COMMENT, _TRIGGERS, _WRAPPER, _PUBLICATION, _SCHEMA_TABLES)
GRANT = _form(rb"(?:GRANT|REVOKE) [^';$]* ON [^';$]* (?:TO|FROM) [^';$]*")
SCHEMA_GRANT = _form(rb"(?:GRANT|REVOKE) [^';$]* ON (?:SCHEMA|DATABASE) [^';$]*")
# After these nothing is there that a script of an extension could call by mistake.
_INERT = _form(
    rb"(?:SET|CREATE SCHEMA {n}|CREATE EXTENSION|COMMENT ON|ALTER SCHEMA|ALTER COLLATION|ALTER DATABASE)\b[^();]*"
    rb"|CREATE COLLATION {q} \([^();$]*\)|SELECT pg_catalog\.set_config\('search_path', {s}, false\)"
)

EVENT_TRIGGER = _form(
    rb"(?:CREATE EVENT TRIGGER {n}\s+ON {n}(?:\s+WHEN TAG IN \([^();$]*\))?\s+EXECUTE (?:FUNCTION|PROCEDURE) {q}\(\)"
    rb"|ALTER EVENT TRIGGER {n} (?:ENABLE|DISABLE|ENABLE REPLICA|ENABLE ALWAYS|OWNER TO {n})|COMMENT ON EVENT TRIGGER {n} IS {s})"
)
CREATE_SERVER = _form(rb"CREATE SERVER {n}[^;]* FOREIGN DATA WRAPPER (?P<wrapper>{n}).*")
CREATE_ROLE = _form(rb"CREATE (?:ROLE|USER|GROUP) (?P<name>{n})(?: .*)?")
CREATE_DATABASE = _form(
    rb"CREATE DATABASE (?P<name>{n})(?P<options>(?: (?:WITH )?[A-Z_]+\s*=\s*(?:{s}|{n}|[0-9]+))*)"
)
# What pg_dumpall writes of the whole server, besides roles and databases.
CLUSTER_WIDE = _form(
    rb"(?:(?:ALTER|DROP) (?:ROLE|USER|GROUP) .*|(?:CREATE|ALTER|DROP) TABLESPACE .*"
    rb"|(?:GRANT|REVOKE) (?:(?:ADMIN|INHERIT|SET) OPTION FOR )?{n}(?:,\s*{n})* (?:TO|FROM) {n}.*|(?:GRANT|REVOKE) [A-Z, ]+ ON (?:TABLESPACE|PARAMETER) .*"
    rb"|COMMENT ON (?:ROLE|TABLESPACE) .*|SECURITY LABEL (?:FOR {n} )?ON (?:ROLE|TABLESPACE) .*|DROP DATABASE .*)"
)
# Whoever reads such statements later must see the same end of each: strings and quoted names are the only ones in which a
# semicolon may stand.
_OF_GLOBALS = re.compile(
    rb"""(?:[eE]'(?:[^'\\]|''|\\.)*+'|'(?:[^'\\]|'')*+'|"(?:[^"]|"")*+"|-(?!-)|/(?!\*)|[^'"$;\\/-])*+""",
    re.DOTALL,
)
# What would reach out to other servers, or needs what a throwaway server has not.
LEFT_OUT = _form(rb"(?:CREATE|ALTER|COMMENT ON) SUBSCRIPTION .*|SECURITY LABEL .*")
ROLE_SWITCH = _form(rb"(?:SET SESSION AUTHORIZATION (?P<role>{n}|{s})|RESET SESSION AUTHORIZATION)")
# Rows of a table, as pg_dump writes it: no condition, no option, nothing that would be evaluated.
COPY_ROWS = _form(rb"COPY (?P<table>{q})(?: \({n}(?:, ?{n})*\))? FROM STDIN")
IS_COPY = re.compile(rb"COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)

_GRANTED = _form(
    rb"(?:GRANT|REVOKE) [^';]* ON [^';]* (?:TO|FROM) (?P<roles>{n}(?:,\s*{n})*)(?: WITH GRANT OPTION| CASCADE)?(?: GRANTED BY {n})?"
)
_DEFAULTS = _form(
    rb"ALTER DEFAULT PRIVILEGES FOR (?:ROLE|USER) (?P<role>{n})[^';]* (?:TO|FROM) (?P<roles>{n})[^';]*"
)
_POLICY = _form(rb"CREATE POLICY {n} ON {q}[^';]*? TO (?P<roles>{n}(?:,\s*{n})*)(?: .*)?")
_MAPPING = _form(rb"CREATE USER MAPPING FOR (?P<roles>{n}) .*")
_NOT_ROLES = frozenset({b"public", b"current_user", b"current_role", b"session_user", b"user"})
_OPTION = _form(rb"([A-Z_]+)\s*=\s*({s}|{n}|[0-9]+)")


def is_extension(statement: bytes) -> bool:
    """Whether a statement installs an extension, and does nothing else."""
    return _EXTENSION.fullmatch(statement) is not None


def may_be_kept(statement: bytes) -> bool:
    """Whether a statement about roles or tablespaces can stand among others in a globals.sql."""
    return _OF_GLOBALS.fullmatch(statement) is not None


def is_inert(statement: bytes) -> bool:
    """Whether a statement makes nothing that could be called, not even by mistake."""
    return any(form.fullmatch(statement) for form in (_INERT, _COMMENT, _EXTENSION))


def is_harmless(statement: bytes) -> bool:
    """Whether a superuser may run a statement that its author may not: nothing of the author's is run by it."""
    return any(form.fullmatch(statement) for form in _HARMLESS)


def roles_in(statement: bytes) -> set[bytes]:
    """Return the roles, without quotes, that must exist for a statement, as far as its form tells."""
    found: set[bytes] = set()
    if (match := OWNER_TO.fullmatch(statement)) is not None:
        found.add(match["owner"])
    for form in (_GRANTED, _DEFAULTS, _POLICY, _MAPPING):
        if (match := form.fullmatch(statement)) is not None:
            found.update(re.findall(NAME_ANY, match["roles"]))
            found.update([match["role"]] if form is _DEFAULTS else [])
    return {plain(name) for name in found if name.lower() not in _NOT_ROLES}


def plain(name: bytes) -> bytes:
    """Return the name that the server makes of a name as it is written, or of a string."""
    if name.startswith(b"'"):
        return name[1:-1].replace(b"''", b"'")
    return unquote(name) if name.startswith(b'"') else name.lower()


def database_options(options: bytes) -> dict[str, str]:
    """Return what CREATE DATABASE says, by its keywords in capitals."""
    return {
        key.decode().upper(): plain(value).decode("utf-8", "backslashreplace")
        if not value.startswith(b"'")
        else value[1:-1].replace(b"''", b"'").decode("utf-8", "backslashreplace")
        for key, value in _OPTION.findall(options)
    }
