"""Reading from repositories what an evidence report is judged by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pgstow.app.doctor_checks import NO_LONGER_MAINTAINED, SAFE_MINORS
from pgstow.app.opening import open_repository
from pgstow.catalog.backups import BackupFiles, BackupRecord, list_backups
from pgstow.catalog.drills import DrillRecord, read_drills
from pgstow.catalog.manifest import Manifest
from pgstow.config.connections import credentials_of
from pgstow.config.settings import RepositorySettings
from pgstow.core.errors import Interrupted, PgstowError, RepositoryDamaged, RepositoryError, StoreError
from pgstow.evidence import facts as evidence
from pgstow.monitor.facts import DatabaseFacts
from pgstow.repository import Repository
from pgstow.store.whereabouts import whereabouts

__all__ = [
    "Insides",
    "backup_facts",
    "drills_of",
    "is_release_known",
    "read_repository",
    "repository_facts",
    "server_outdated",
    "tier_facts",
]

_ENCRYPTION = "AES-256 in counter mode with Poly1305-AES, keys by scrypt (restic repository format)"
_MOST_MANIFESTS = 2000
_DRILL_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")  # it becomes the name of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Insides:
    """A repository that was read, or why it could not be. What is None was not to be had."""

    name: str
    location: str
    error: str | None = None
    id: str | None = None
    repository: Repository | None = None
    records: tuple[BackupRecord, ...] = ()
    unreadable: int = 0
    key_times: tuple[datetime, ...] | None = None
    keys_undated: int = 0
    key_ids: tuple[str, ...] | None = None
    drills: tuple[DrillRecord, ...] = ()
    drills_error: str | None = None
    drills_unreadable: int = 0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)  # holds secrets


def read_repository(
    settings: RepositorySettings,
    environ: Mapping[str, str],
    *,
    drills_since: datetime,
    note: Callable[[str], None],
    conceal: Callable[[str], None],
) -> Insides:
    """Return what is in a repository; one that cannot be opened, or a part that cannot be read, has an error in its place."""
    try:
        password, own = credentials_of(settings, environ, conceal)
        repository = open_repository(
            settings.location, password, own, on_retry=note, is_cached=True, without_config=True
        )
        damaged: list[RepositoryDamaged] = []
        records = list_backups(repository, damaged=damaged)
    except Interrupted:
        raise
    except PgstowError as exc:
        return Insides(name=settings.name, location=settings.location, error=exc.message)
    found = Insides(
        name=settings.name,
        location=repository.store.location,
        id=repository.id,
        repository=repository,
        records=tuple(records),
        unreadable=len(damaged),
        environ=own,
    )
    return _with_drills(_with_keys(found, repository, note), repository, drills_since)


def _with_keys(found: Insides, repository: Repository, note: Callable[[str], None]) -> Insides:
    try:
        keys = repository.key_files()
    except (StoreError, RepositoryError) as exc:
        note(f"repository {found.name}: its keys are unknown: {exc.message}")
        return found
    times = sorted(key.created for key in keys if key.created is not None)
    return replace(
        found,
        key_times=tuple(times),
        keys_undated=len(keys) - len(times),
        key_ids=tuple(key.id for key in keys if key.damage is None),
    )


def _with_drills(found: Insides, repository: Repository, since: datetime) -> Insides:
    damaged: list[RepositoryDamaged] = []
    try:
        records = read_drills(repository, since=since, damaged=damaged)
    except (StoreError, RepositoryError) as exc:
        return replace(found, drills_error=exc.message)
    named = [record for record in records if _DRILL_ID.fullmatch(record.id)]
    return replace(found, drills=tuple(named), drills_unreadable=len(damaged) + len(records) - len(named))


# -- from what was read to facts


def repository_facts(
    insides: Insides, *, known_since: datetime | None, overdue: int | None
) -> evidence.RepositoryFacts:
    """Return what a report says of a repository."""
    facts = evidence.RepositoryFacts(
        name=insides.name,
        location=insides.location,
        known_since=known_since,
        error=insides.error,
        unreadable=insides.unreadable,
        encryption=None if insides.repository is None else _ENCRYPTION,
        key_times=insides.key_times,
        keys_undated=insides.keys_undated,
        key_ids=insides.key_ids,
        overdue=overdue,
        drills_error=insides.drills_error,
        drills_unreadable=insides.drills_unreadable,
    )
    try:
        place = whereabouts(insides.location, insides.environ)
    except PgstowError:  # that it cannot be opened is told by its error
        return facts
    return facts.model_copy(
        update={
            "provider": place.provider,
            "transport": place.transport,
            "region": place.region,
            "account": place.account,
        }
    )


def tier_facts(read: Iterable[Insides], databases: Iterable[str]) -> Iterator[evidence.TierFacts]:
    """Yield how many backups of each kind there are of these databases, wherever they are."""
    wanted = set(databases)
    for insides in read:
        tiers: dict[tuple[str, str], list[datetime]] = {}
        for record in insides.records:
            if record.name in wanted and not record.is_damaged:
                tiers.setdefault((record.name, record.kind), []).append(record.time)
        for (database, kind), times in sorted(tiers.items()):
            yield evidence.TierFacts(
                repository=insides.name,
                database=database,
                kind=kind,
                backups=len(times),
                oldest=min(times),
                newest=max(times),
            )


def backup_facts(
    read: Sequence[Insides],
    databases: Iterable[DatabaseFacts],
    *,
    begin: datetime,
    until: datetime,
    note: Callable[[str], None],
) -> list[evidence.BackupFacts]:
    """Return the backups of a time and the last of each kind before it, oldest first, with what they say of themselves."""
    by_name = {database.name: database for database in databases}
    places: dict[str, list[Insides]] = {}
    records: dict[str, BackupRecord] = {}
    for insides in read:
        for record in insides.records:
            if record.name in by_name and record.time < until:
                # What a repair had to leave out in one repository is whole in another: that one counts.
                known = records.setdefault(record.id, record)
                if known.is_damaged and not record.is_damaged:
                    records[record.id], places[record.id] = record, []
                if record.is_damaged == records[record.id].is_damaged:
                    places.setdefault(record.id, []).append(insides)
    ordered = sorted(records.values(), key=lambda each: (each.time, each.id))
    wanted = _from(ordered, begin)
    manifests = _Manifests(note)
    found = []
    for record in reversed(wanted):  # the newest first: where there are too many, the oldest are not read
        database = by_name[record.name]
        manifest, error = manifests.read(record, places[record.id])
        found.append(
            evidence.BackupFacts(
                id=record.id,
                database=record.name,
                kind=record.kind,
                time=record.time,
                repositories=tuple(each.name for each in places[record.id]),
                is_whole=database.is_whole(record),
                counts_for_rpo=database.counts_for_rpo(record),
                is_damaged=record.is_damaged,
                manifest=manifest,
                manifest_error=error,
            )
        )
    return found[::-1]


def _from(ordered: Sequence[BackupRecord], begin: datetime) -> list[BackupRecord]:
    last = {
        (each.name, each.kind, each.is_partial): each
        for each in ordered
        if each.time < begin and not each.is_damaged
    }
    return [
        each
        for each in ordered
        if each.time >= begin or last.get((each.name, each.kind, each.is_partial)) is each
    ]


class _Manifests:
    """Reads manifests, as many as are reasonable."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._left = _MOST_MANIFESTS
        self._loaded: set[str] = set()

    def read(
        self, record: BackupRecord, places: Iterable[Insides]
    ) -> tuple[evidence.ManifestFacts | None, str | None]:
        """Return what a backup says of itself, from the first repository that can tell; else why none can."""
        if self._left <= 0:
            return None, f"only the newest {_MOST_MANIFESTS} are read"
        self._left -= 1
        error = None
        for place in places:
            assert place.repository is not None
            try:
                if place.name not in self._loaded:
                    place.repository.load_index(
                        damaged=[]
                    )  # what only a damaged file lists is unreadable below
                    self._loaded.add(place.name)
                return _manifest_facts(BackupFiles(place.repository, record).manifest), None
            except (RepositoryDamaged, StoreError) as exc:
                error = exc.message
                self._note(f"backup {record} in {place.name}: {exc.message}")
        return None, error


def _manifest_facts(manifest: Manifest) -> evidence.ManifestFacts:
    server = manifest.server
    return evidence.ManifestFacts(
        tls=server.tls,
        via=server.via,
        imported_from=None if manifest.imported is None else manifest.imported.file,
        globals_captured=manifest.globals.is_captured,
        globals_missing=manifest.globals.missing,
        extensions=len(manifest.extensions),
        has_configuration=manifest.configuration is not None and manifest.configuration.is_complete,
        server_version=".".join(map(str, divmod(server.version_num, 10000))),
        outdated=server_outdated(server.version_num),
        is_release_known=is_release_known(server.version_num // 10000),
    )


def is_release_known(major: int) -> bool:
    """Whether this version of pgstow knows which releases of a major version are safe: not of those that came after it."""
    return major <= NO_LONGER_MAINTAINED or major in SAFE_MINORS


def server_outdated(version_num: int) -> str | None:
    """Return what is known against a server's release; None if nothing is."""
    major, minor = divmod(version_num, 10000)
    if major <= NO_LONGER_MAINTAINED:
        return f"PostgreSQL {major} no longer gets security fixes"
    safe = SAFE_MINORS.get(major)
    if safe is not None and minor < safe:
        return f"PostgreSQL {major}.{minor} has known security holes, which {major}.{safe} closes"
    return None


def drills_of(
    read: Iterable[Insides], databases: Iterable[str], *, before: datetime
) -> Iterator[tuple[str, DrillRecord]]:
    """Yield the drills of these databases with the repository they are kept in, each once, oldest first."""
    wanted = set(databases)
    found = [(insides.name, record) for insides in read for record in insides.drills]
    seen: set[str] = set()
    for name, record in sorted(found, key=lambda each: (each[1].started, each[1].id)):
        if record.backup_name in wanted and record.started < before and record.id not in seen:
            seen.add(record.id)
            yield name, record
