"""Where a database is and how to reach it, without letting the password out."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgstow.core.errors import UsageError
from pgstow.core.secrets import Secret
from pgstow.postgres.workspace import working_folder

__all__ = ["ConnInfo"]

_SECRETS = ("password", "sslpassword")
# As libpq reads a URL: what comes before an @ are user and password, unless a slash comes first.
_URL = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?([^/?]*)(/[^?]*)?")


def _refuse_bare_signs(text: str) -> None:
    """Refuse a URL whose password holds @ or / as they are: libpq takes the rest of it for a host, which everybody may see."""
    found = _URL.match(text)
    if found is not None and "@" in f"{found[1]}{found[2] or ''}":
        raise UsageError(
            "the connection string has an @ where none can be",
            hint="in user, password and database write %40 for @, %2F for /, %3A for : and %25 for %",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnInfo:
    """libpq connection parameters. Its repr, str and errors never show a password.

    What is not given is filled in by libpq itself: service files, pgpass, PG* variables, defaults.
    """

    params: Mapping[str, str]
    secrets: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, text: str) -> ConnInfo:
        """Return the parameters in a libpq URL or ``key=value`` string (``service=NAME`` included).

        A bare word is a database name, as for psql. Raises UsageError; its text does not repeat the input.
        """
        if text and "=" not in text and "://" not in text:
            text = make_conninfo(dbname=text)
        _refuse_bare_signs(text)
        try:
            given = {key: str(value) for key, value in conninfo_to_dict(text).items() if value is not None}
        except psycopg.ProgrammingError as exc:
            raise UsageError(
                "the connection string cannot be parsed",
                hint="write postgresql://USER@HOST:PORT/DATABASE, key=value pairs, or service=NAME",
            ) from exc
        return cls(
            params=MappingProxyType({k: v for k, v in given.items() if k not in _SECRETS}),
            secrets=MappingProxyType({k: Secret(given[k]) for k in _SECRETS if given.get(k)}),
        )

    @property
    def dbname(self) -> str | None:
        """The database named in the connection string; None when libpq will fill it in."""
        return self.params.get("dbname")

    def with_database(self, name: str) -> ConnInfo:
        """Return the same server and role, another database."""
        return ConnInfo(params=MappingProxyType({**self.params, "dbname": name}), secrets=self.secrets)

    def with_place(self, **params: str) -> ConnInfo:
        """Return the same database and role at one particular server; ``params`` win over what the user said."""
        rest = {key: value for key, value in self.params.items() if key not in ("host", "hostaddr", "port")}
        return ConnInfo(params=MappingProxyType({**rest, **params}), secrets=self.secrets)

    def with_defaults(self, **params: str) -> ConnInfo:
        """Return the same place; ``params`` apply where the user said nothing."""
        return ConnInfo(params=MappingProxyType({**params, **self.params}), secrets=self.secrets)

    def with_settings(self, settings: Mapping[str, str]) -> ConnInfo:
        """Return the same place with ``settings`` given at connection time, after those that apply anyway.

        They win over the defaults of role and database. Some poolers refuse them.
        """
        given = self.params.get("options") or _default("options") or ""
        ours = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
        options = f"{given} {ours}".strip()
        return ConnInfo(params=MappingProxyType({**self.params, "options": options}), secrets=self.secrets)

    def connect_string(self) -> str:
        """Return the conninfo string with its secrets: for libpq's ears only."""
        return make_conninfo(
            "", **self.params, **{key: secret.reveal() for key, secret in self.secrets.items()}
        )

    def __str__(self) -> str:
        database = f"database {self.dbname}" if self.dbname else ""
        service = f"service {self.params['service']}" if "service" in self.params else ""
        host = self.params.get("host") or self.params.get("hostaddr") or ("" if service else "local socket")
        port = f":{self.params['port']}" if host and "port" in self.params else ""
        place = f"at {host}{port}" if host else ""
        what = ", ".join(
            each for each in (service, database or ("" if service else "database (default)")) if each
        )
        return f"{what} {place}".rstrip()

    def tool_argument(self) -> str:
        """Return what ``--dbname=`` of a libpq program has to say, which is nothing unless a service has its say.

        To libpq what a service file says counts more than PG* variables, and less than a connection string: by variables
        alone a program would go to the database, server and role of the service, and not to those that were asked for.
        """
        return make_conninfo("", **self.params) if self._service() is not None else ""

    def _service(self) -> str | None:
        """Return the service that libpq will look up, named here or by PGSERVICE."""
        return self.params.get("service") or _default("service")

    @contextlib.contextmanager
    def tool_env(self, **extra: str) -> Iterator[dict[str, str]]:
        """Yield the environment that makes a libpq program connect here; nothing goes on its command line.

        Parameters travel as PG* variables; the few that have none go through a private service file that
        lives as long as the block. ``extra`` (for instance ``PGTZ="UTC"``) is added. Where a service has its say,
        the program needs ``tool_argument()`` besides.
        """
        variables = {
            option.keyword.decode(): option.envvar.decode()
            for option in pq.Conninfo.get_defaults()
            if option.envvar
        }
        values = {**self.params, **{key: secret.reveal() for key, secret in self.secrets.items()}}
        env = {variables[key]: value for key, value in values.items() if key in variables}
        rest = {key: value for key, value in values.items() if key not in variables}
        env.update(extra)
        service = self._service()
        if service is not None:
            rest = {key: value for key, value in rest.items() if key in self.secrets}
        if not rest:
            yield env
            return
        if service is not None:
            raise UsageError(
                f"{', '.join(sorted(rest))} cannot be combined with service={service}",
                hint="move the parameter into the service file",
            )
        # Of mode 0700, and removed by the next one should we be killed: a password may stand in it.
        with working_folder(Path(tempfile.gettempdir()), lambda _: None, "connection") as folder:
            path = folder / "service.conf"
            path.write_text("[pgstow]\n" + "".join(f"{key}={value}\n" for key, value in rest.items()))
            yield {**env, "PGSERVICEFILE": str(path), "PGSERVICE": "pgstow"}


def _escaped(value: str) -> str:
    """Return a value as the server splits options: spaces and backslashes take a backslash."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def _default(keyword: str) -> str | None:
    """Return what libpq would use by itself: the PG* variable of a parameter, or None."""
    for option in pq.Conninfo.get_defaults():
        if option.keyword == keyword.encode():
            return option.val.decode() if option.val else None
    return None
