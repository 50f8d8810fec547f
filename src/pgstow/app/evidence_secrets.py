"""Searching for the secrets of the settings where none may stand: in plain text, in files and in arguments of programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pgstow.config.connections import connection_of, drill_server_of
from pgstow.config.references import Reference
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.secrets import Secret
from pgstow.evidence import facts as evidence
from pgstow.postgres.conninfo import ConnInfo
from pgstow.state.folder import state_folder

__all__ = ["KnownSecrets", "known_secrets", "search_for_secrets", "secret_facts"]

_SHORTEST = 8  # a shorter one is in any text by chance
_PIECE = 1 << 20
_MOST_BYTES = 512 << 20  # of one place
_PROCESSES = Path("/proc")
# Variables of a store's environment that hold no secret, whatever they are taken from.
_PUBLIC = (
    "REGION", "ENDPOINT", "URL", "URL_S3", "PROFILE", "ACCESS_KEY_ID", "ACCOUNT", "ACCOUNT_NAME", "CLIENT_ID", "TENANT_ID",
    "FILE", "PATH",
)  # fmt: skip

_Place = Literal["settings", "processes", "records", "logs"]


@dataclass(frozen=True, slots=True)
class KnownSecrets:
    """Every form in which a secret of the settings may stand in a text, by secret. Its repr shows none.

    ``unknown``: how many could not be had, or are too short to be searched for.
    """

    forms: tuple[frozenset[bytes], ...]
    unknown: int = 0

    def __repr__(self) -> str:
        return f"KnownSecrets({len(self.forms)} known, {self.unknown} unknown)"

    @property
    def longest(self) -> int:
        return max((len(form) for forms in self.forms for form in forms), default=1)

    def are_in(self, content: bytes) -> bool:
        return any(form in content for forms in self.forms for form in forms)


def known_secrets(
    settings: Settings, environ: Mapping[str, str], conceal: Callable[[str], None]
) -> KnownSecrets:
    """Return the secrets that the settings refer to, as far as they can be had here; ``conceal`` is told each."""
    found: dict[str, None] = {}
    unknown = 0
    for values in _values(settings, environ):
        secrets = [] if values is None else values
        for value in secrets:
            conceal(value)
        if values is None or any(len(value) < _SHORTEST for value in secrets):
            unknown += 1
        found |= dict.fromkeys(value for value in secrets if len(value) >= _SHORTEST)
    return KnownSecrets(tuple(map(_forms, found)), unknown)


def _values(settings: Settings, environ: Mapping[str, str]) -> Iterator[list[str] | None]:
    """Yield the secrets of each reference; None where they cannot be had."""
    for ask in _questions(settings, environ):
        try:
            yield _secrets_of(ask())
        except Interrupted:
            raise
        except PgstowError:
            yield None


def _questions(
    settings: Settings, environ: Mapping[str, str]
) -> Iterator[Callable[[], ConnInfo | Secret | None]]:
    """Yield what leads to the secrets of each database, server of drills, state database, and other reference."""
    for database in settings.databases.values():
        yield partial(connection_of, database, environ)
    for plan in settings.plans.values():
        yield partial(drill_server_of, plan.drill, environ)
    if settings.state is not None:
        yield partial(_parsed, settings.state, environ)
    for reference in _references(settings):
        if not reference.is_plain:
            yield partial(reference.resolve, environ)


def _parsed(url: Reference, environ: Mapping[str, str]) -> ConnInfo:
    return ConnInfo.parse(url.resolve(environ).reveal())


def _secrets_of(found: ConnInfo | Secret | None) -> list[str]:
    if found is None:
        return []
    return [each.reveal() for each in ([found] if isinstance(found, Secret) else found.secrets.values())]


def _references(settings: Settings) -> Iterator[Reference]:
    for repository in settings.repositories.values():
        yield repository.password
        yield from (each for name, each in repository.environment.items() if not name.endswith(_PUBLIC))
    yield from (plan.ping for plan in settings.plans.values() if plan.ping is not None)
    yield from (channel.url for channel in settings.channels.values())


def _forms(secret: str) -> frozenset[bytes]:
    """Return a secret as it stands in plain text, in a URL, in JSON, and in JSON within JSON, as audit entries hold it."""
    once = {json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)}
    twice = {json.dumps(text, ensure_ascii=is_ascii)[1:-1] for text in once for is_ascii in (True, False)}
    texts = {secret, quote(secret, safe=""), quote(secret), *once, *twice}
    return frozenset(text.encode() for text in texts)


def secret_facts(settings: Settings, known: KnownSecrets) -> evidence.SecretFacts:
    """Return how the secrets of the settings are kept; that none stands in plain text was seen when they were read."""
    references = [each for each in settings.references() if not each.is_plain]
    exposed = sum(each.warning() is not None for each in references)
    return evidence.SecretFacts(
        references=len(references),
        readable_by_others=exposed,
        known=len(known.forms),
        unknown=known.unknown,
    )


def search_for_secrets(
    known: KnownSecrets,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    records: Iterable[tuple[str, bytes]],
    logs: Sequence[Path],
    processes: Path = _PROCESSES,
) -> list[evidence.SearchFacts]:
    """Return where secrets stand: in the settings file, arguments of programs, what pgstow wrote (``records`` too), ``logs``."""
    found = [
        _search("settings", known, _files([settings.path])),
        _search("processes", known, _arguments(processes)),
        _search("records", known, _records(settings, environ, records)),
    ]
    return found + [_search("logs", known, _files([log])) for log in logs]


# A thing to search: its name, and its content in pieces, which overlap. None: it cannot be read, for the reason in the name.
_Thing = tuple[str, Iterable[bytes] | None]


def _search(place: _Place, known: KnownSecrets, things: Iterable[_Thing]) -> evidence.SearchFacts:
    looked_at, found_in, errors, left = 0, list[str](), list[str](), _MOST_BYTES
    for name, content in things:
        if content is None:
            errors.append(name)
            continue
        try:
            end = b""
            for piece in content:
                left -= len(piece)
                if known.are_in(end + piece):
                    found_in.append(name)
                    break
                end = piece[-known.longest :]
                if left < 0:
                    break
            looked_at += 1
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone since it was listed
        except OSError as exc:
            errors.append(f"{name}: {exc.strerror or type(exc).__name__}")
        if left < 0:
            errors.append(f"only the first {_MOST_BYTES >> 20} MiB were searched")
            break
    return evidence.SearchFacts(
        place=place, looked_at=looked_at, found_in=tuple(found_in), error="; ".join(errors[:3]) or None
    )


def _files(paths: Iterable[Path]) -> Iterator[_Thing]:
    for path in paths:
        is_file = os.path.isfile(path)  # noqa: PTH113  Path.is_file() raises where a folder may not be entered
        yield (str(path), _pieces(path)) if is_file else (f"{path} is no file that can be read", None)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _arguments(processes: Path) -> Iterator[_Thing]:
    if not processes.is_dir():
        yield "this system does not show the arguments of programs", None
        return
    if not (processes / "1").exists():  # mounted with hidepid
        yield "this system does not show the programs of other users", None
    for each in sorted(processes.iterdir()):
        if each.name.isdigit():
            yield f"process {each.name}", _pieces(each / "cmdline")


def _records(
    settings: Settings, environ: Mapping[str, str], records: Iterable[tuple[str, bytes]]
) -> Iterator[_Thing]:
    yield from ((name, [content]) for name, content in records)
    if settings.state is not None:
        yield "the state database is on a server, where it was not searched", None
    yield from _below(state_folder(environ), without=_secret_files(settings))


def _secret_files(settings: Settings) -> frozenset[Path]:
    """Return the files that hold a secret because the settings say so; who may read them is judged apart."""
    files = (each.file for each in settings.references())
    return frozenset(Path(os.path.realpath(file)) for file in files if file is not None)


def _below(folder: Path, *, without: frozenset[Path]) -> Iterator[_Thing]:
    """Yield every file in a folder and those in it; one that cannot be listed too, as what it is."""
    unlisted: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unlisted.append):
        folders.sort()
        paths = [Path(parent, name) for name in sorted(names)]
        yield from (
            (str(path), _pieces(path))
            for path in paths
            if path.is_file() and not path.is_symlink() and Path(os.path.realpath(path)) not in without
        )
    for exc in unlisted:
        if not isinstance(exc, FileNotFoundError):
            yield f"{exc.filename} cannot be listed: {exc.strerror}", None
