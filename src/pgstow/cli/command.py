"""The frame every command runs in: common options, errors, signals, exit codes."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pwd
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from pgstow.app.auditing import Access, current_access, journal_of, recording, who_of
from pgstow.app.opening import open_repository
from pgstow.audit.entries import Result
from pgstow.cli.audited import Exempt, audited
from pgstow.cli.output import Outcome, Output
from pgstow.cli.password_options import PasswordCommandOption, PasswordFileOption
from pgstow.cli.passwords import NEW_PASSWORD, REPOSITORY_PASSWORD, PasswordPurpose, read_password
from pgstow.cli.signals import interruptible
from pgstow.config.connections import environment_of
from pgstow.config.finding import find_settings_file, require_settings_file
from pgstow.config.problems import nearest, quoted
from pgstow.config.settings import RepositorySettings, Settings
from pgstow.core.errors import Interrupted, PgstowError, UsageError
from pgstow.core.progress import Progress
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.tools import ClientTools, find_tools
from pgstow.repository import Repository

__all__ = ["Invocation", "as_command"]

P = ParamSpec("P")

_BARE_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

_SECRET_VARIABLES = (
    "PGSTOW_PASSWORD",
    "PGSTOW_NEW_PASSWORD",
    "PGSTOW_FROM_PASSWORD",
    "PGSTOW_TO_PASSWORD",
    "PGSTOW_ALSO_PASSWORD",
    "PGSTOW_ADMIN_PASSPHRASE",
    "PGPASSWORD",
    "PGSSLPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_SEEN_BY_OTHERS = (
    "a password among the arguments can be read by other users until pgstow has hidden it; "
    "~/.pgpass, a service file or PGPASSWORD keep it out of their sight"
)

_REPOSITORY_PANEL = "Repository"
_SETTINGS_PANEL = "Settings"
_OUTPUT_PANEL = "Output"

RepoOption = Annotated[
    str | None,
    typer.Option(
        "--repo",
        metavar="LOCATION",
        help="Where the repository is: /path, file://, s3://bucket/prefix, gs://, az://, or its name in pgstow.yaml. "
        "Or PGSTOW_REPOSITORY.",
        rich_help_panel=_REPOSITORY_PANEL,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The settings. Or PGSTOW_CONFIG; else ./pgstow.yaml, ~/.config/pgstow/pgstow.yaml, /etc/pgstow/pgstow.yaml.",
        rich_help_panel=_SETTINGS_PANEL,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document on stdout, for errors too.", rich_help_panel=_OUTPUT_PANEL
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, notes or warnings.", rich_help_panel=_OUTPUT_PANEL)
]
NoProgressOption = Annotated[
    bool, typer.Option("--no-progress", help="No progress bars on a terminal.", rich_help_panel=_OUTPUT_PANEL)
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Progress as plain lines where there is no terminal.",
        rich_help_panel=_OUTPUT_PANEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What every command is given besides its own arguments."""

    output: Output
    environ: Mapping[str, str]
    given_location: str | None
    password_file: Path | None
    password_command: str | None
    config_file: Path | None = None
    named: RepositorySettings | None = None  # the repository of the settings that --repo names

    def settings(self) -> Settings:
        """Return what the settings file says, anew at every call.

        Raises UsageError when there is none, ConfigInvalid when it is wrong.
        """
        # Imported here because pydantic and the reader of YAML take a third of a second, which a backup without
        # settings should not pay.
        from pgstow.config.reading import read_settings  # noqa: PLC0415

        path = require_settings_file(self.config_file, self.environ)
        if self.output.is_verbose:
            self.output.note(f"settings from {path}")
        settings = read_settings(path)
        self.note_settings(path, path)
        return settings

    @staticmethod
    def note_settings(path: Path, copy: Path) -> None:
        """Note in the audit trail what the settings file at ``path`` says, or said when ``copy`` was made of it."""
        if (access := current_access()) is not None:
            with contextlib.suppress(OSError):  # gone since it was read
                access.used_settings(path.absolute(), hashlib.sha256(copy.read_bytes()).hexdigest())

    @property
    def location(self) -> str | None:
        """Where the repository is, if the user said so."""
        return self.given_location or self.environ.get("PGSTOW_REPOSITORY") or None

    def require_location(self) -> str:
        """Return where the repository is; UsageError when nothing says it."""
        if self.location is None:
            raise UsageError("no repository was given", hint=self._where_repositories_are())
        return self.location

    def _where_repositories_are(self) -> str:
        """Return how to say which repository; its names, where there are settings that can be read."""
        with contextlib.suppress(PgstowError):
            if find_settings_file(self.config_file, self.environ) is not None:
                names = " or ".join(f"--repo {name}" for name in self.settings().repositories)
                return f"give {names}, as the settings call them, or --repo LOCATION"
        return "give --repo LOCATION or set PGSTOW_REPOSITORY"

    def password(self) -> Secret:
        """Return the repository's password; UsageError when there is none."""
        if self.named is not None and self.password_file is None and self.password_command is None:
            secret = self.named.password.resolve(self.environ)
            self.output.conceal(secret.reveal())
            return secret
        return self.further_password(REPOSITORY_PASSWORD, self.password_file, self.password_command)

    def further_password(
        self, purpose: PasswordPurpose, file: Path | None, command: str | None, *, is_new: bool = False
    ) -> Secret:
        """Return the password for ``purpose``; one that ``is_new`` a person has to type twice."""
        secret = read_password(
            purpose,
            file=file,
            command=command,
            environ=self.environ,
            ask=self.output.asker(purpose.what, twice=is_new),
            warn=self.output.warn,
        )
        self.output.conceal(secret.reveal())
        return secret

    def new_password(self, file: Path | None, command: str | None) -> Secret:
        """Return the password that is to open the repository from now on."""
        return self.further_password(NEW_PASSWORD, file, command, is_new=True)

    def other_password(
        self, purpose: PasswordPurpose, file: Path | None, command: str | None, *, default: Secret
    ) -> Secret:
        """Return the password of a second repository; that of the first, the default, where none was given."""
        return (
            self.further_password(purpose, file, command)
            if self.is_password_given(purpose, file, command)
            else default
        )

    def is_password_given(self, purpose: PasswordPurpose, file: Path | None, command: str | None) -> bool:
        """Whether a flag or a variable gives the password for ``purpose``."""
        return bool(file or command or any(self.environ.get(name) for name in purpose.variables))

    def optional_password(self) -> Secret | None:
        """Return the repository's password if one was given; nobody is asked for it."""
        is_given = self.named is not None or self.is_password_given(
            REPOSITORY_PASSWORD, self.password_file, self.password_command
        )
        return self.password() if is_given else None

    def repository(
        self, progress: Progress, *, is_cached: bool = False, without_config: bool = False
    ) -> Repository:
        """Return the repository, open.

        ``is_cached`` is as in ``open_repository()``; ``without_config``, for those who only read, also one that lost
        its configuration.
        """
        repository = open_repository(
            self.require_location(),
            self.password(),
            self.environ,
            on_retry=progress.note,
            is_cached=is_cached,
            without_config=without_config,
        )
        if repository.config_problem is not None:
            progress.note(f"{repository.config_problem}: read without it; pgstow repo repair makes a new one")
        return repository

    def tools(self) -> list[ClientTools]:
        """Return PostgreSQL's client programs on this machine."""
        return find_tools(self.environ.get("PATH", os.defpath))

    @property
    def hostname(self) -> str:
        return socket.gethostname()

    @property
    def username(self) -> str:
        """The operating system's name of who runs this; its number where the system knows no name."""
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    def connection(self, text: str | None, *, variable: str, what: str) -> ConnInfo:
        """Return the connection parameters in ``text`` or in an environment variable."""
        text = text or self.environ.get(variable)
        if not text:
            raise UsageError(f"no {what} was given", hint=f"give a connection string or set {variable}")
        conninfo = ConnInfo.parse(text)
        public = set(conninfo.params.values())
        secrets = {secret.reveal() for secret in conninfo.secrets.values()}
        self.output.conceal(*secrets - public)
        return conninfo


def as_command(
    function: Callable[Concatenate[Invocation, P], Outcome],
    *,
    name: str,
    uses_repository: bool = True,
    uses_settings: bool = True,
    when_interrupted: str | None = None,
    had_secrets: bool = False,
) -> Callable[..., int]:
    """Return ``function`` as typer wants it: with the common options added, errors told, exit code returned.

    ``when_interrupted`` tells what an interruption leaves behind; ``had_secrets`` that the arguments held
    a password.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    common = _common_parameters(uses_repository=uses_repository, uses_settings=uses_settings)

    def command(**given: Any) -> int:
        invocation = _begin(name, {parameter.name: given.pop(parameter.name) for parameter in common})
        if had_secrets:
            invocation.output.warn(_SEEN_BY_OTHERS)

        def work() -> Outcome:
            prepared = with_named_repository(invocation) if uses_repository and uses_settings else invocation
            return function(prepared, **given)  # type: ignore[call-arg]

        access = _access(name, invocation, given)
        if had_secrets and access is not None:
            access.had_secrets()
        return _conduct(invocation.output, work, when_interrupted, access)

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__annotations__ = {}
    command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    return command


def _common_parameters(*, uses_repository: bool, uses_settings: bool) -> list[inspect.Parameter]:
    options: dict[str, tuple[Any, Any]] = {}
    if uses_repository:
        options |= {
            "repo": (RepoOption, None),
            "password_file": (PasswordFileOption, None),
            "password_command": (PasswordCommandOption, None),
        }
    if uses_settings:
        options["config"] = (ConfigOption, None)
    options |= {
        "json": (JsonOption, False),
        "quiet": (QuietOption, False),
        "no_progress": (NoProgressOption, False),
        "verbose": (VerboseOption, False),
    }
    return [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for key, (annotation, default) in options.items()
    ]


def _begin(name: str, common: Mapping[str, Any]) -> Invocation:
    environ = dict(os.environ)
    output = Output(
        command=name,
        as_json=common["json"],
        is_quiet=common["quiet"],
        is_verbose=common["verbose"],
        shows_progress=not common["no_progress"],
        debug=environ.get("PGSTOW_DEBUG") == "1",
    )
    output.conceal(*(environ[key] for key in _SECRET_VARIABLES if key in environ))
    return Invocation(
        output=output,
        environ=environ,
        given_location=common.get("repo"),
        password_file=common.get("password_file"),
        password_command=common.get("password_command"),
        config_file=common.get("config"),
    )


def with_named_repository(invocation: Invocation) -> Invocation:
    """Return the invocation with location and credentials of the repository that ``--repo`` names in the settings.

    Only a bare word can be such a name, and only where there are settings; anything else is returned as it is.
    Raises UsageError for a word that is neither a name in the settings nor a folder, or both of them.
    """
    word = invocation.location
    if word is None or not _BARE_WORD.fullmatch(word):
        return invocation
    if find_settings_file(invocation.config_file, invocation.environ) is None:
        return invocation
    known = invocation.settings().repositories
    repository = known.get(word)
    if Path(word).is_dir():
        if repository is None:
            return invocation
        raise UsageError(
            f"{word} is a repository of the settings and a folder here",
            hint=f"write ./{word} for the folder, or call from elsewhere",
        )
    if repository is None:
        raise UsageError(
            f"the settings have no repository called {quoted(word)}{nearest(word, known)}",
            hint=f"write ./{word} for a folder of that name; pgstow config show lists the repositories",
        )
    return replace(
        invocation,
        given_location=repository.location,
        environ=environment_of(repository, invocation.environ, invocation.output.conceal),
        named=repository,
    )


def _access(name: str, invocation: Invocation, given: Mapping[str, Any]) -> Access | None:
    """Return what records the command; None for one that is exempt."""
    what = audited(name)
    if isinstance(what, Exempt):
        return None
    return Access(
        what.action,
        who=who_of(invocation.environ),
        journal=journal_of(invocation.environ),
        is_destructive=what.is_destructive(given),
        facts=what.facts(given),
        scrub=invocation.output.scrub,
    )


def _conduct(
    output: Output, work: Callable[[], Outcome], when_interrupted: str | None, access: Access | None
) -> int:
    """Return the exit code of ``work``, having printed its outcome or its error.

    The audit entry is on this machine before anything is printed, and in the repository, if that can be, before the
    command ends.
    """
    try:
        with recording(access), interruptible():
            outcome = work()
        _record(output, access, outcome.status, outcome=outcome)
        code = outcome.exit_code if output.result(outcome) else 1
    except Interrupted as exc:
        _record(output, access, "interrupted", exc.code)
        output.error(exc, consequence=exc.left_behind or when_interrupted)
        code = exc.exit_code
    except PgstowError as exc:
        _record(output, access, "failed", exc.code)
        output.error(exc)
        code = exc.exit_code
    except BrokenPipeError:
        _record(output, access, "failed", "broken_pipe")
        output.error(PgstowError("the reader of standard output went away before everything was written"))
        code = 1
    except Exception as exc:  # noqa: BLE001  the last stop before a traceback
        _record(output, access, "failed", "internal")
        output.bug(exc)
        code = 1
    output.flush()
    if access is not None:
        _wait_with(access, access.settle)
        _warn_of_trail(output, access)
        output.flush()
    return code


def _wait_with(access: Access, wait: Callable[[], None]) -> None:
    """Wait for a store for the trail's sake; a signal ends that, and changes nothing about how the command ended."""
    try:
        with interruptible():
            wait()
    except Interrupted:
        access.hurry()
        wait()


def _record(
    output: Output,
    access: Access | None,
    result: Result,
    error_code: str | None = None,
    *,
    outcome: Outcome | None = None,
) -> None:
    """Write down how the command ended; what that could not do is part of what the command prints."""
    if access is None:
        return
    if (
        outcome is not None
        and isinstance(backup := outcome.document.get("backup"), Mapping)
        and "id" in backup
    ):
        access.says(subjects=[str(backup["id"])])
    _wait_with(access, access.wait_for_sight)
    access.finish(result, error_code)
    _warn_of_trail(output, access)


def _warn_of_trail(output: Output, access: Access) -> None:
    for message in access.warnings:
        if message not in output.audit_warnings:
            output.audit_warnings.append(output.scrub(message))
            output.warn(message)
    access.warnings.clear()
