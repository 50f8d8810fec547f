"""The use case: write down, signed and in every repository, what somebody states where no program can look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from pgstow.app.auditing import journal_of
from pgstow.app.opening import open_repository
from pgstow.app.who import who_of
from pgstow.audit.entries import AuditEntry
from pgstow.audit.journal import Journal
from pgstow.audit.writing import look, send, write
from pgstow.config.connections import credentials_of
from pgstow.config.settings import RepositorySettings, Settings
from pgstow.core.errors import Interrupted, PgstowError, UsageError
from pgstow.core.secrets import Secret
from pgstow.evidence.attestations import ATTEST, LATE_DAYS, STATEMENTS, entry_words

__all__ = ["AttestRequest", "Attested", "Stored", "attest"]

_LONGEST = 400  # characters of a name or a note: an entry holds no essays, and a file may be named beside it
_LARGEST_BYTES = 256 << 20  # of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestRequest:
    """``by`` did it on the day ``on`` or had it done; ``until``: the last day it may be relied on; ``file`` is hashed."""

    control: str
    by: str
    note: str
    on: date
    until: date | None = None
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of the entry in one repository. ``error`` None: it is there."""

    repository: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What was written down, and where."""

    words: Mapping[str, str]
    stored: tuple[Stored, ...]
    warnings: tuple[str, ...]


def attest(
    request: AttestRequest,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    now: datetime,
    note: Callable[[str], None],
    conceal: Callable[[str], None],
    scrub: Callable[[str], str],
) -> Attested:
    """Write the entry into every repository that can be opened; what one does not take then waits on this host.

    Unlike other entries this one is all that the command is for: that it is nowhere is an error.
    Raises UsageError, PgstowError.
    """
    given = _words(request, today=now.date())
    opening = {each.name: _credentials(each, environ, conceal) for each in settings.repositories.values()}
    # Once every password is known: no repository gets one, and all get the same.
    words = {key: scrub(text) for key, text in given.items()}
    draft = _draft(words, environ, now)
    found: list[Stored] = []
    warnings: list[str] = []
    for repository in settings.repositories.values():
        try:
            warnings += _store(draft, repository, opening[repository.name], journal_of(environ), note=note)
            found.append(Stored(repository=repository.name))
        except Interrupted:
            raise
        except PgstowError as exc:
            found.append(Stored(repository=repository.name, error=scrub(exc.message)))
    if not found:
        raise UsageError("the settings name no repository", hint="an attestation is kept in repositories")
    if all(each.error is not None for each in found):
        errors = "; ".join(f"{each.repository}: {each.error}" for each in found)
        raise PgstowError(
            f"no repository has taken the attestation: {errors}",
            hint="state it again when one can be reached",
        )
    return Attested(words=words, stored=tuple(found), warnings=tuple(dict.fromkeys(warnings)))


def _words(request: AttestRequest, *, today: date) -> dict[str, str]:
    if request.control not in STATEMENTS:
        raise UsageError(
            f"{request.control} is nothing that people attest",
            hint=f"these are: {', '.join(STATEMENTS)}; the others are measured",
        )
    for what, text in (("--by", request.by), ("--note", request.note)):
        if not text.strip():
            raise UsageError(f"{what} is empty", hint="say who states it, and what was done")
        if len(text) > _LONGEST:
            raise UsageError(f"{what} is longer than {_LONGEST} characters", hint="name a --file beside it")
        _refuse_unreadable(what, text)
    if request.file is not None:
        _refuse_unreadable("the name of the file", request.file.name)
    if request.on > today:
        raise UsageError(f"{request.on} is yet to come (today is {today} in UTC)")
    if today - request.on > timedelta(days=LATE_DAYS):
        raise UsageError(
            f"{request.on} is more than {LATE_DAYS} days ago",
            hint="what is written down so late counts for nothing",
        )
    _check_until(request, today)
    return entry_words(
        request.control,
        by=request.by.strip(),
        on=request.on,
        until=request.until,
        note=request.note.strip(),
        file=None if request.file is None else request.file.name,
        content=None if request.file is None else _content(request.file),
    )


def _refuse_unreadable(what: str, text: str) -> None:
    """Raise UsageError for bytes that are no text: no report could show them, so that the statement would count for nothing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8") from None


def _check_until(request: AttestRequest, today: date) -> None:
    if request.until is None:
        return
    if request.until < today:
        raise UsageError(f"{request.until} is over already")
    last = request.on + timedelta(days=STATEMENTS[request.control].days - 1)
    if request.until > last:
        raise UsageError(
            f"{request.control} of {request.on} may be relied on until {last}, not until {request.until}",
            hint="leave --until out for as long as the control allows",
        )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(content) > _LARGEST_BYTES:
        raise UsageError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


def _draft(words: Mapping[str, str], environ: Mapping[str, str], now: datetime) -> AuditEntry:
    who = who_of(environ)
    return AuditEntry(
        chain="",
        number=1,
        at=now,
        host=who.host,
        user=who.user,
        origin=who.origin,
        action=ATTEST,
        subjects=(words["control"],),
        result="done",
        facts={**who.facts, **words},
    )


_Credentials = tuple[Secret, Mapping[str, str]]


def _credentials(
    repository: RepositorySettings, environ: Mapping[str, str], conceal: Callable[[str], None]
) -> _Credentials | PgstowError:
    """Return what opens a repository, or why that cannot be had."""
    try:
        return credentials_of(repository, environ, conceal)
    except Interrupted:
        raise
    except PgstowError as exc:
        return exc


def _store(
    draft: AuditEntry,
    repository: RepositorySettings,
    credentials: _Credentials | PgstowError,
    journal: Journal,
    *,
    note: Callable[[str], None],
) -> tuple[str, ...]:
    """Return warnings; the entry is in the repository when this returns."""
    if isinstance(credentials, PgstowError):
        raise credentials
    password, own = credentials
    opened = open_repository(repository.location, password, own, on_retry=note)
    written = write(opened, journal, [draft], look(opened, journal, now=draft.at))
    send(opened, journal, written.unkept)
    return written.warnings
