"""Searching for the secrets of the settings where none may stand: in plain text, in files and in arguments of programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pgstow.config.connections import connection_of
from pgstow.config.references import Reference
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.evidence import facts as evidence
from pgstow.state.folder import state_folder

__all__ = ["KnownSecrets", "known_secrets", "search_for_secrets", "secret_facts"]

_SHORTEST = 8  # a shorter one is in any text by chance
_PIECE = 1 << 20
_MOST_BYTES = 512 << 20  # of one place
_PROCESSES = Path("/proc")
# Variables of a store's environment that hold no secret, whatever they are taken from.
_PUBLIC = ("REGION", "ENDPOINT", "URL", "PROFILE", "ACCESS_KEY_ID", "ACCOUNT", "ACCOUNT_NAME", "FILE", "PATH")

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
            continue
        found |= dict.fromkeys(secrets)
    return KnownSecrets(tuple(map(_forms, found)), unknown)


def _values(settings: Settings, environ: Mapping[str, str]) -> Iterator[list[str] | None]:
    """Yield the secrets of each reference; None where they cannot be had."""
    for database in settings.databases.values():
        try:
            connection = connection_of(database, environ)
            yield [each.reveal() for each in connection.secrets.values()]
        except Interrupted:
            raise
        except PgstowError:
            yield None
    for reference in _references(settings):
        if reference.is_plain:
            continue
        try:
            yield [reference.resolve(environ).reveal()]
        except Interrupted:
            raise
        except PgstowError:
            yield None


def _references(settings: Settings) -> Iterator[Reference]:
    for repository in settings.repositories.values():
        yield repository.password
        yield from (each for name, each in repository.environment.items() if not name.endswith(_PUBLIC))
    for plan in settings.plans.values():
        yield from (each for each in (plan.ping, plan.drill.password) if each is not None)
    yield from (channel.url for channel in settings.channels.values())


def _forms(secret: str) -> frozenset[bytes]:
    """Return a secret as it stands in plain text, in a URL and in JSON."""
    texts = (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
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
            looked_at += 1
        except FileNotFoundError:
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
        yield (str(path), _pieces(path)) if path.is_file() else (f"{path} is no file that can be read", None)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _arguments(processes: Path) -> Iterator[_Thing]:
    if not processes.is_dir():
        yield "this system does not show the arguments of programs", None
        return
    for each in sorted(processes.iterdir()):
        if each.name.isdigit():
            yield f"process {each.name}", _pieces(each / "cmdline")


def _records(
    settings: Settings, environ: Mapping[str, str], records: Iterable[tuple[str, bytes]]
) -> Iterator[_Thing]:
    yield from ((name, [content]) for name, content in records)
    if settings.state is not None:
        yield "the state database is on a server, where it was not searched", None
    folder = state_folder(environ)
    yield from _files(sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))
