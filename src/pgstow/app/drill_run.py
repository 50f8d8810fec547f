"""One drill from its place to its record, whatever becomes of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pgstow
from pgstow.app.auditing import note_access
from pgstow.app.drill_findings import error_code, error_hint, left_out, restore_phases, table_proofs
from pgstow.app.drill_forecast import against_target, forecast_drill, forecast_text
from pgstow.app.drill_request import DrillRequest
from pgstow.app.foundation import foundation_for
from pgstow.assurance.drill.checking import check_restored
from pgstow.assurance.drill.context import CheckContext
from pgstow.assurance.drill.given_server import DatabaseOnServer
from pgstow.assurance.drill.place import Place
from pgstow.assurance.drill.throwaway import ThrowawayServer
from pgstow.catalog.backups import BackupFiles, BackupRecord
from pgstow.catalog.drills import AuditHead, CheckRecord, DrillRecord, Outcome, PhaseRecord, TableProof
from pgstow.catalog.manifest import Manifest
from pgstow.core.errors import DiskFull, Interrupted, PgstowError, ToolMissing
from pgstow.core.progress import Progress
from pgstow.postgres import target as target_sql
from pgstow.postgres.raw import open_raw
from pgstow.postgres.server import find_servers
from pgstow.postgres.tools import ClientTools, pick
from pgstow.repository import Repository
from pgstow.restore import engine
from pgstow.restore.foundation import Foundation
from pgstow.restore.guard import GUARD_SETTINGS, pick_pg_restore
from pgstow.restore.report import RestoreReport
from pgstow.restore.request import RestoreOptions

__all__ = ["DrillRun", "DrillSubject"]

_NOT_FOR_USE = "comparison"  # what a restore that nobody wants compared does not spend


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSubject:
    """What is restored: a backup, how it was chosen, and the place that it comes from, in words."""

    backup: BackupRecord
    selected: str
    seed: str | None
    place: str


@dataclass(slots=True)
class DrillRun:
    """A drill of one backup. ``carry_out()`` once; ``ended_by`` is then what else than its own result ended it."""

    request: DrillRequest
    subject: DrillSubject
    repository: Repository
    tools: Sequence[ClientTools]
    progress: Progress
    started: datetime
    notes: list[str] = field(default_factory=list)  # what was noted before the drill itself began
    heads: tuple[AuditHead, ...] = ()  # of the repository's audit trail
    was_imported: bool = False  # the time until now was spent on taking a dump in
    earlier: Callable[[], Sequence[DrillRecord]] = (
        tuple  # the drills that were made before, as far as they can be read
    )
    settle: Callable[[], None] = lambda: None  # called when nothing but reading was done, and may raise
    clock: Callable[[], float] = time.monotonic
    ended_by: BaseException | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _begun: float = 0.0
    _phases: list[PhaseRecord] = field(default_factory=list)
    _place: Place | None = None
    _foundation: Foundation | None = None
    _manifest: Manifest | None = None
    _manifest_sha256: str | None = None
    _report: RestoreReport | None = None
    _restored_s: float | None = None
    _proven_s: float | None = None
    _restored_bytes: int | None = None
    _checks: tuple[CheckRecord, ...] = ()
    _used: dict[str, str] = field(default_factory=dict)
    _error: PgstowError | None = None
    _is_removed: bool = True
    _warnings: list[str] = field(default_factory=list)

    def carry_out(self) -> DrillRecord:
        """Restore, check, remove; return the record. Raises nothing: an interruption and faults of our own are in ``ended_by``."""
        note_access(
            subjects=[self.subject.backup.id, self.subject.backup.name, self.id],
            drill=self.id,
            target=str(self.request.server) if self.request.server is not None else None,
        )
        # The drill began when its backup was looked for.
        self._begun = self.clock() - (datetime.now(UTC) - self.started).total_seconds()
        if self.was_imported:
            self._phases.append(PhaseRecord(name="import", begun_s=0.0, seconds=self._now()))
        try:
            self._restore_and_check()
        except Interrupted as exc:
            self._error = self.ended_by = exc
        except PgstowError as exc:
            self._error = self._place.explained(exc) if self._place is not None else exc
        except OSError as exc:
            self._error = self._of_this_machine(exc)
        except BaseException as exc:  # noqa: BLE001  it is recorded, and raised again by who called
            self._error = PgstowError(f"{type(exc).__name__}: {exc}")
            self.ended_by = exc
        try:
            self._clean_up()
        except Interrupted as exc:  # the second one would end the process at once
            self.ended_by = self.ended_by or exc
            self._clean_up()
        try:
            return self._record()
        except Interrupted as exc:
            self.ended_by = self.ended_by or exc
            return self._record()

    # -- the steps

    def _of_this_machine(self, exc: OSError) -> PgstowError:
        """Return the error that a file or folder of this machine is in the way, as a full disk is."""
        error = PgstowError(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}")
        if exc.errno == errno.ENOSPC:
            return DiskFull(
                f"the disk of {tempfile.gettempdir()} ran full: {error.message}",
                hint="set TMPDIR to a folder on a larger disk",
            )
        self.ended_by = exc
        return error

    def _restore_and_check(self) -> None:
        files = BackupFiles(self.repository, self.subject.backup)
        with self._phase("look-up", "reading what the backup holds"):
            self._manifest = files.manifest
            self._manifest_sha256 = hashlib.sha256(files.read("manifest.json")).hexdigest()
            self._foundation = foundation_for(self.repository, self.subject.backup, files, self.progress.note)
            self._tell_time(self._manifest)
            place = self._place = self._choose_place(files)
        with self._phase("server", "making a place to restore into"):
            place.make()
            self._used = self._tools_used(files, place)
        self._report = self._restore(files, place)
        with self._phase("checks"):
            context = CheckContext(
                target=place.target,
                files=files,
                restored=self._report,
                assertions=self.request.assertions,
                optional_extensions=self.request.optional_extensions,
                is_throwaway=place.kind == "throwaway",
                jobs=self.request.jobs,
                tools=self._dump_tools(place),
            )
            self._checks = check_restored(context, self.progress)
        self._proven_s = self._now()  # if they passed
        place.look_back()
        with contextlib.closing(
            open_raw(place.target, encoding=files.toc.encoding, settings=GUARD_SETTINGS)
        ) as session:
            self._restored_bytes = target_sql.database_bytes(session)

    def _tell_time(self, manifest: Manifest) -> None:
        """Say before anything is begun how long it will take, as far as earlier drills show it."""
        forecast = forecast_drill(self.earlier(), manifest, place=self._wanted_place)
        if forecast is None:
            return
        self.progress.note(forecast_text(forecast))
        feared = against_target(forecast, self.request.rto_target_s)
        if feared is not None:
            self.progress.note(feared)
            self._warnings.append(feared)

    def _choose_place(self, files: BackupFiles) -> Place:
        beneath = self._foundation.entries if self._foundation is not None else ()
        if self.request.server is not None:
            return DatabaseOnServer(
                files, self.request.server, drill_id=self.id, note=self.progress.note, beneath=beneath
            )
        return ThrowawayServer(
            files,
            find_servers(self.request.server_path),
            parent=Path(tempfile.gettempdir()),
            note=self.progress.note,
            beneath=beneath,
            jobs=self.request.jobs,
        )

    def _restore(self, files: BackupFiles, place: Place) -> RestoreReport:
        begun_s = self._now()
        options = RestoreOptions(
            compare=True,
            report_differences=True,
            optional_extensions=self.request.optional_extensions,
            jobs=self.request.jobs,
        )
        report = engine.restore(
            files,
            place.target,
            place.options(options),
            tools=self.tools,
            progress=self.progress,
            before_touching=self.settle,
            foundation=self._foundation,
        )
        self._phases += restore_phases(report, begun_s)
        self._restored_s = round(self._now() - report.timings_s.get(_NOT_FOR_USE, 0.0), 3)
        return report

    def _clean_up(self) -> None:
        """Remove everything; what cannot be removed is told, and does not hide what the drill found."""
        place = self._place
        if place is None:
            return
        with self._phase("clean-up", "removing everything that was made"):
            try:
                place.remove()
            except Interrupted:  # raised when everything was gone
                raise
            except Exception as exc:  # noqa: BLE001  whatever it is, what the drill found must not be lost with it
                self._is_removed = False
                self._warnings.append(
                    f"what was made for the drill could not be removed ({place.remains}), the next drill tries again: {exc}"
                )

    @contextlib.contextmanager
    def _phase(self, name: str, telling: str | None = None) -> Iterator[None]:
        """Time a phase; one without words tells by itself what it does. The first began with the drill."""
        begun_s = self._now() if self._phases else 0.0
        if telling is not None:
            self.progress.phase(telling)
        try:
            yield
        finally:
            self._phases.append(
                PhaseRecord(name=name, begun_s=begun_s, seconds=round(self._now() - begun_s, 3))
            )

    def _now(self) -> float:
        """Return the seconds since the drill began."""
        return round(self.clock() - self._begun, 3)

    def _tools_used(self, files: BackupFiles, place: Place) -> dict[str, str]:
        major = place.server_version_num // 10000
        pg_restore = pick_pg_restore(self.tools, files, major)
        return {"pgstow": pgstow.__version__, "pg_restore": pg_restore.text, "server": place.server}

    def _dump_tools(self, place: Place) -> ClientTools | None:
        try:
            return pick(self.tools, place.server_version_num)
        except ToolMissing:
            return None

    # -- what came of it

    def _record(self) -> DrillRecord:
        backup, manifest, place, report = self.subject.backup, self._manifest, self._place, self._report
        tables = table_proofs(report) if report is not None else ()
        snapshot_taken = manifest.snapshot_taken if manifest is not None else backup.time
        error = self.ended_by if isinstance(self.ended_by, PgstowError) else self._error
        outcome = self._outcome(tables)
        return DrillRecord(
            id=self.id,
            plan=self.request.plan,
            selected=self.subject.selected,
            seed=self.subject.seed,
            backup_id=backup.id,
            backup_name=backup.name,
            backup_kind=backup.kind,
            is_partial=backup.is_partial,
            snapshot_taken=snapshot_taken,
            source_version=manifest.server.version.partition(" on ")[0]
            if manifest is not None
            else "unknown",
            repository=self.subject.place,
            started=self.started,
            finished=datetime.now(UTC),
            host=self.request.host,
            by=self.request.username,
            place=place.kind if place is not None else self._wanted_place,
            server=place.server if place is not None else "none was started",
            is_isolated=place.is_isolated if place is not None else False,
            is_removed=self._is_removed,
            outcome=outcome,
            error_code=error_code(error),
            error=error.message if error is not None else None,
            hint=error_hint(error),
            restored_s=self._restored_s,
            proven_s=self._proven_s if outcome == "passed" else None,
            rto_target_s=self.request.rto_target_s,
            rpo_target_s=self.request.rpo_target_s,
            lost_s=round((self.started - snapshot_taken).total_seconds(), 3),
            rows=report.rows if report is not None else 0,
            size_bytes=report.size_bytes if report is not None else 0,
            restored_bytes=self._restored_bytes,
            phases=tuple(self._phases),
            tables=tables,
            checks=self._checks,
            tools=self._used or {"pgstow": pgstow.__version__},
            manifest_sha256=self._manifest_sha256,
            notes=self.request.notes,
            warnings=tuple(self._all_warnings()),
            heads=self.heads,
        )

    @property
    def _wanted_place(self) -> str:
        return "throwaway" if self.request.server is None else "database"

    def _outcome(self, tables: Sequence[TableProof]) -> Outcome:
        """Passed is what was restored, compared and checked, and with no check of weight that failed or is unknown."""
        if isinstance(self.ended_by, (Interrupted, KeyboardInterrupt)):
            return "interrupted"
        if self._error is not None or not self._checks:
            return "failed"
        is_sound = all(one.outcome in {"pass", "skipped"} for one in self._checks if one.severity == "error")
        return "passed" if is_sound and all(one.is_equal for one in tables) else "failed"

    def _all_warnings(self) -> Iterator[str]:
        yield from self.notes
        if self._manifest is not None:
            for warning in self._manifest.warnings:
                yield f"when the backup was made: {warning.message}"
        if self._place is not None:
            yield from self._place.warnings
        if self._report is not None:
            yield from self._report.warnings
            yield from left_out(self._report)
        yield from self._warnings
