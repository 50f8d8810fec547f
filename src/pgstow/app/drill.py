"""The use case: restore a backup where nobody works, check it, measure it, and take everything away again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pgstow.app.drill_records import keep_drill, publish_drill, publish_kept_drills
from pgstow.app.drill_request import DrillRequest
from pgstow.app.drill_run import DrillRun, DrillSubject
from pgstow.app.reading import reading
from pgstow.assurance.drill.selection import Chosen, choose
from pgstow.audit.anchoring import heads_listed
from pgstow.catalog.backups import find_backup, list_backups, load_readable_index
from pgstow.catalog.drills import AuditHead, DrillRecord, read_drills
from pgstow.core.errors import (
    Interrupted,
    PgstowError,
    RepositoryDamaged,
    RepositoryLocked,
    StateError,
    StoreError,
)
from pgstow.core.progress import Progress
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository

__all__ = ["Drilled", "drill", "drill_and_tell", "drill_dump"]

_MOST_HEADS = 100  # of the audit trail in a record: those that changed last

_Note = Callable[[str], object]

_NOTHING_IS_LEFT = "nothing of it was left"
_SOMETHING_IS_LEFT = "some of it could not be removed: the next one tries again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """A drill that has ended. ``unsaved`` is why its record is not in the repository, ``kept_in`` where it waits for that."""

    record: DrillRecord
    unsaved: PgstowError | None = None
    kept_in: Path | None = None


def drill(
    request: DrillRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> DrillRecord:
    """Carry out one drill and return its record, whether it passed or failed; see ``drill_and_tell()``."""
    return drill_and_tell(request, repository, tools, progress).record


def drill_and_tell(
    request: DrillRequest, repository: Repository, tools: Sequence[ClientTools], progress: Progress
) -> Drilled:
    """Carry out one drill: everything that it made is gone and its record is durable somewhere on return.

    Raises UsageError before anything began, BackupNotFound and the errors of the repository while the backup is looked up, and
    Interrupted after everything was cleaned up and recorded. Whatever else goes wrong is a drill that failed.
    """
    request.check()
    started = datetime.now(UTC)
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        progress.note(message)

    progress.phase("choosing the backup")
    with reading(repository, note) as check_lock:
        publish_kept_drills(repository, request.state_folder, progress.note)
        chosen = _choose(request, repository, note)
        load_readable_index(repository, note)

        def settle() -> None:
            check_lock()
            repository.load_index(damaged=[])  # somebody may have pruned until now

        subject = DrillSubject(
            backup=chosen.backup,
            selected=chosen.strategy if request.backup is None else "named",
            seed=chosen.seed,
            place=repository.store.location,
        )
        run = DrillRun(
            request.for_backups_of(chosen.backup.name),
            subject,
            repository,
            tools,
            progress,
            started=started,
            notes=notes,
            heads=_heads(repository, note),
            earlier=lambda: _readable_drills(repository),
            settle=settle,
        )
        record = run.carry_out()
        try:
            drilled = _saved(request, repository, record, progress)
        except Interrupted as exc:  # a second one ends the process at once
            _tell_what_is_left(exc, _saved(request, repository, record, progress))
            raise
    return _told(run, drilled)


def drill_dump(
    dump: str,
    request: DrillRequest,
    tools: Sequence[ClientTools],
    progress: Progress,
    *,
    environ: Mapping[str, str],
    stdin: IO[bytes] | None = None,
) -> Drilled:
    """Carry out a drill of a dump that somebody else made, without a repository: nothing is saved.

    Raises what an import raises; all else is as for ``drill_and_tell()``.
    """
    # What reads dumps takes a tenth of a second to load, which all other drills need not spend.
    from pgstow.app.import_dump import imported_for_drill  # noqa: PLC0415

    request.check()
    started = datetime.now(UTC)
    with imported_for_drill(
        dump, tools, progress, environ=environ, stdin=stdin, jobs=request.jobs
    ) as imported:
        repository, backup_id = imported
        (backup,) = [one for one in list_backups(repository) if one.id == backup_id]
        repository.load_index()
        subject = DrillSubject(backup=backup, selected="file", seed=None, place=dump)
        run = DrillRun(request, subject, repository, tools, progress, started=started, was_imported=True)
        drilled = Drilled(record=run.carry_out())
    return _told(run, drilled)


def _choose(request: DrillRequest, repository: Repository, note: _Note) -> Chosen:
    if request.backup is not None:
        return Chosen(backup=find_backup(repository, request.backup, note), strategy="latest")
    damaged: list[RepositoryDamaged] = []
    records = list_backups(repository, damaged=damaged)
    for exc in damaged:
        note(f"{exc.message}: which backup that was is unknown")
    if damaged and request.strategy == "latest":
        raise RepositoryDamaged(
            f"which backup is the latest cannot be told: {damaged[0].message}",
            hint="pgstow list shows the backups that are left: name one by its id, or run pgstow repo repair",
            **damaged[0].facts,
        )
    return choose(
        records,
        request.strategy,
        drills=_earlier(request, repository, note),
        database=request.database,
        kind=request.kind,
        seed=request.seed,
        partial_by_intent=request.partial_by_intent,
    )


def _heads(repository: Repository, note: _Note) -> tuple[AuditHead, ...]:
    """Return the heads of the audit trail, which the record takes where nobody who can write to the repository reaches them."""
    try:
        heads = heads_listed(repository, most=_MOST_HEADS)
    except StoreError as exc:
        note(f"the report has no heads of the audit trail: {exc.message}")
        return ()
    return tuple(
        AuditHead(repository=repository.id, chain=head.chain, number=head.number, digest=head.digest)
        for head in heads
    )


def _earlier(request: DrillRequest, repository: Repository, note: _Note) -> list[DrillRecord]:
    """Return the drills that were made, where they matter for the choice. One that cannot be read counts as never made."""
    if request.strategy != "rotate":
        return []
    damaged: list[RepositoryDamaged] = []
    drills = read_drills(repository, damaged=damaged)
    for exc in damaged:
        note(f"{exc.message}: it does not count for the choice")
    return drills


def _readable_drills(repository: Repository) -> list[DrillRecord]:
    """Return the drills that were made, for a forecast, which is of use and not needed: none where the store is in the way."""
    try:
        return read_drills(repository, damaged=[])
    except StoreError:
        return []


def _saved(request: DrillRequest, repository: Repository, record: DrillRecord, progress: Progress) -> Drilled:
    """Save the record in the repository, or else in the state folder: a drill is never lost silently."""
    progress.phase("saving the record")
    try:
        publish_drill(repository, record)
    except (StoreError, RepositoryLocked) as exc:
        if request.state_folder is None:
            return Drilled(record=record, unsaved=exc)
        try:
            return Drilled(
                record=record, unsaved=exc, kept_in=keep_drill(request.state_folder, repository.id, record)
            )
        except StateError as worse:
            progress.note(worse.message)
            return Drilled(record=record, unsaved=exc)
    return Drilled(record=record)


def _tell_what_is_left(exc: Interrupted, drilled: Drilled) -> None:
    """Say in an interruption what became of the drill, and for the record of the run which one it was."""
    record = drilled.record
    is_recorded = record.selected != "file" and (drilled.unsaved is None or drilled.kept_in is not None)
    where = (
        f"is recorded as {record.outcome}" if is_recorded else f"was {record.outcome} and is recorded nowhere"
    )
    exc.left_behind = (
        f"the drill {where}, and {_NOTHING_IS_LEFT if record.is_removed else _SOMETHING_IS_LEFT}"
    )
    exc.facts |= {"drill": record.id, "backup": record.backup_id}


def _told(run: DrillRun, drilled: Drilled) -> Drilled:
    """Return a drill that came to its end; raise what ended it before that, an interruption or a fault of our own."""
    if isinstance(run.ended_by, Interrupted):
        _tell_what_is_left(run.ended_by, drilled)
    if run.ended_by is not None:
        raise run.ended_by
    return drilled
