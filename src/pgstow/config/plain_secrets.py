"""Secrets that stand in the settings file as plain text: recognized, refused, and never repeated.

Source for channels: the URL forms that apprise documents; those of chat services hold their token in host or path.
"""

from __future__ import annotations

import re

from pgstow.core.errors import UsageError
from pgstow.postgres.conninfo import ConnInfo

__all__ = [
    "REMEDY",
    "channel_problem",
    "connection_problem",
    "environment_problem",
    "is_reference",
    "password_problem",
    "ping_problem",
    "state_problem",
    "without_variables",
]

REMEDY = "write ${VARIABLE}, file:PATH or command: [PROGRAM, ARGUMENT]"

_CONNECTION_REMEDY = (
    "the connection string holds a password: take it out, and give it as password: ${VARIABLE}, file:PATH or"
    " command: [PROGRAM, ARGUMENT]"
)

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
# What stands for a password once variables are taken out of the text.
_URL_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*?:([^/?#\s]*)@")
_ODD_URL_PASSWORD = re.compile(r"://[^/?#\s:]*:(?![0-9]*[/?#])\S*@")  # a password with unescaped / or # in it
_PAIR = re.compile(r"(?:^|[\s?&])(?:ssl)?pass(?:word|wd)?\s*=\s*('[^']*'|[^\s&]*)", re.IGNORECASE)
# Forms of channels whose address alone is no secret; what they need beyond that is user and password.
_OPEN_CHANNELS = frozenset(
    ("mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms", "syslog", "rsyslog", "dbus")
)
_TOKEN_IN_QUERY = re.compile(
    r"[?&](?:[+:-])?[^=&]*(?:token|secret|key|auth|pass|sig)[^=&]*=([^&]*)", re.IGNORECASE
)
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASS|CREDENTIAL|SAS|CONNECTION_STRING", re.IGNORECASE)
# Names that look like secrets and are paths or choices.
_OPEN_NAMES = frozenset(
    (
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    )
)
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}")


def is_reference(text: str) -> bool:
    """Whether the whole text is one variable."""
    return _VARIABLE.fullmatch(text.strip()) is not None


def without_variables(text: str) -> str:
    """Return ``text`` with its well-formed ``${VARIABLE}`` taken out."""
    return _VARIABLE.sub("", text)


def password_problem(text: str) -> str | None:
    """Return what is wrong with the text of a password; None for a reference."""
    return None if is_reference(text) else f"a password cannot stand in the file: {REMEDY}"


def connection_problem(text: str) -> str | None:
    """Return what is wrong with a connection string: a password that stands in it, or that it is none."""
    bare = without_variables(text).strip()
    if not bare:
        return None
    try:
        has_secrets = bool(ConnInfo.parse(bare).secrets)
    except UsageError:
        has_secrets = _holds_password(text)
        if not has_secrets:
            return "is no connection string: postgresql://USER@HOST:PORT/DATABASE, key=value pairs, or service=NAME"
    return _CONNECTION_REMEDY if has_secrets or _holds_password(text) else None


def state_problem(text: str) -> str | None:
    """Return what is wrong with the address of the state database."""
    if is_reference(text):
        return None
    if not re.match(r"postgres(?:ql)?://", text):
        return "is no address of a PostgreSQL database: postgresql://USER@HOST:PORT/DATABASE"
    if connection_problem(text):
        return f"the address holds a password: {REMEDY}; a variable may also stand for the password alone"
    return None


def channel_problem(text: str) -> str | None:
    """Return what is wrong with the URL of a channel: a token or password that stands in it."""
    scheme, found, rest = text.partition("://")
    if not found:
        return (
            None
            if _VARIABLE.search(text)
            else "is no URL of a channel, such as slack://, mailtos:// or jsons://"
        )
    bare = without_variables(rest)
    query = any(not is_reference(token) and token for token in _TOKEN_IN_QUERY.findall(text))
    if _holds_password(text) or query or _ACCESS_KEY.search(text):
        return f"the URL holds a secret: {REMEDY}; a variable may also stand for a part of it"
    if scheme.lower() in _OPEN_CHANNELS or _VARIABLE.search(rest):
        hooks = "/services/" in rest and len(bare.rsplit("/", 1)[-1]) > len("services")
        return f"the webhook's URL holds its secret: {REMEDY}" if hooks else None
    return f"the URL of this kind of channel is a secret as a whole: {REMEDY}"


def ping_problem(text: str) -> str | None:
    """Return what is wrong with the URL of a dead man's switch."""
    if not is_reference(text) and not re.match(r"https?://", text):
        return "is no URL: https://..."
    return f"the URL holds a secret: {REMEDY}" if _holds_password(text) else None


def environment_problem(name: str, text: str) -> str | None:
    """Return what is wrong with the value of a variable: a key or password that stands in it."""
    if is_reference(text):
        return None
    if _ACCESS_KEY.search(text) or _holds_password(text):
        return f"the value holds a secret: {REMEDY}"
    if _SECRET_NAME.search(name) and name.upper() not in _OPEN_NAMES:
        return f"a key or password cannot stand in the file: {REMEDY}"
    return None


def _holds_password(text: str) -> bool:
    bare = without_variables(text)
    passwords = [*_URL_PASSWORD.findall(bare), *(value.strip("'") for value in _PAIR.findall(bare))]
    return any(passwords) or (not _URL_PASSWORD.search(bare) and _ODD_URL_PASSWORD.search(bare) is not None)
