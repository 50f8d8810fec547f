"""The checks of a restored database, as a list."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from pgstow.assurance.drill.checks.assertions import assertion_checks
from pgstow.assurance.drill.checks.constraints import check_constraints
from pgstow.assurance.drill.checks.content import check_content, check_row_counts
from pgstow.assurance.drill.checks.definitions import CODES as DEFINITIONS
from pgstow.assurance.drill.checks.definitions import check_definitions
from pgstow.assurance.drill.checks.indexes import (
    STRUCTURES,
    Structures,
    check_indexes,
    look_at_structures,
    structure_checks,
    told_of_structures,
)
from pgstow.assurance.drill.checks.large_objects import check_large_objects
from pgstow.assurance.drill.checks.newest import check_newest_rows
from pgstow.assurance.drill.checks.records import skipped, unknown
from pgstow.assurance.drill.checks.restored import Check, Restored
from pgstow.assurance.drill.checks.roles import check_roles
from pgstow.assurance.drill.checks.sequences import check_sequences
from pgstow.assurance.drill.checks.server import check_configuration, check_extensions, check_locale
from pgstow.assurance.drill.checks.views import check_materialized_views
from pgstow.assurance.drill.context import CheckContext
from pgstow.catalog.drills import CheckRecord
from pgstow.core.errors import Interrupted, PgstowError
from pgstow.core.progress import Progress
from pgstow.postgres.raw import RawSession, open_raw
from pgstow.postgres.session import CAPTURE_SETTINGS
from pgstow.postgres.target import installed_extensions
from pgstow.restore.extensions import needing_extensions
from pgstow.restore.workers import Workers

__all__ = ["CODES", "check_restored"]

# Every code there is, in the order of reports: none of them is silently left out.
CODES = (
    "content",
    "row_counts",
    "newest_rows",
    "sequences",
    "large_objects",
    "objects",
    "definitions",
    "constraints",
    "indexes",
    "amcheck",
    "tables",
    "materialized_views",
    "roles",
    "owners",
    "privileges",
    "extensions",
    "settings",
    "assertion",
)

_NOTHING_OF_THIS_KIND = "the backup holds nothing of this kind"
_NOTHING = {"assertion": "nobody has stated what must be true of this database"}

# In the order in which they are begun. pg_dump takes longest; the pages of indexes and tables come after all of these, for a
# server may die of what it finds in them.
_CHECKS = (
    Check(codes=DEFINITIONS, run=check_definitions),
    Check(codes=("newest_rows",), run=check_newest_rows),
    Check(codes=("sequences",), run=check_sequences),
    Check(codes=("large_objects",), run=check_large_objects),
    Check(codes=("constraints",), run=check_constraints),
    Check(codes=("indexes",), run=check_indexes),
    Check(codes=("materialized_views",), run=check_materialized_views),
    Check(codes=("roles",), run=check_roles),
    Check(codes=("extensions",), run=check_extensions),
    Check(codes=("settings",), run=check_locale),
    Check(codes=("settings",), run=check_configuration, subject="configuration"),
)


def check_restored(context: CheckContext, progress: Progress) -> tuple[CheckRecord, ...]:
    """Return what the restored database is found to be: for every code one record at least, in the order of ``CODES``.

    What cannot be found out is a record of its own, never an error. Raises ConnectionFailed if the server cannot be reached.
    """
    progress.phase("checking what was restored")
    restored, structures = _look(context)
    found = [*check_content(restored), *check_row_counts(restored)]
    asked, spent_s = _ask(
        restored,
        [
            *_CHECKS,
            *assertion_checks(restored),
            *sorted(structure_checks(structures), key=lambda check: -check.cost),
        ],
        progress,
    )
    of_pages = [record for record in asked if record.code in STRUCTURES]
    found += [record for record in asked if record.code not in STRUCTURES]
    found += _timed(list(told_of_structures(structures, of_pages)), spent_s)
    there = {record.code for record in found}
    found += [skipped(code, _NOTHING.get(code, _NOTHING_OF_THIS_KIND)) for code in CODES if code not in there]
    return tuple(sorted(found, key=lambda record: (CODES.index(record.code), record.subject or "")))


def _look(context: CheckContext) -> tuple[Restored, Structures]:
    """Return the database with what its checks need to know beforehand."""
    with contextlib.closing(_session(context)) as session:
        installed = {
            session.decode(name): facts.version for name, facts in installed_extensions(session).items()
        }
        version_num = session.connection.info.server_version
        structures = look_at_structures(session, is_throwaway=context.is_throwaway)
    return Restored(
        context=context,
        installed=installed,
        version_num=version_num,
        left_out=needing_extensions(context.files.toc, context.optional_extensions - installed.keys()).keys(),
    ), structures


def _session(context: CheckContext) -> RawSession:
    """Return a session that reads as the backup was read, so that values are printed in the same way."""
    recorded = context.files.manifest.settings
    settings = {name: recorded.get(name, value) for name, value in CAPTURE_SETTINGS.items()}
    settings["default_transaction_read_only"] = "off"  # a database may have it on, and amcheck must get in
    return open_raw(context.target, encoding=context.files.toc.encoding, settings=settings)


def _timed(records: Sequence[CheckRecord], spent_s: Mapping[str, float]) -> Iterator[CheckRecord]:
    """Yield the records, the first of each code with the time that all its checks took."""
    told: set[str] = set()
    for record in records:
        is_first = record.code not in told
        told.add(record.code)
        yield (
            record.model_copy(update={"seconds": round(spent_s.get(record.code, 0.0), 3)})
            if is_first
            else record
        )


def _ask(
    restored: Restored, checks: Sequence[Check], progress: Progress
) -> tuple[list[CheckRecord], dict[str, float]]:
    """Run the checks side by side, in this order; return their records, and the seconds by the first code of each."""
    found: list[CheckRecord] = []
    spent_s: dict[str, float] = {}
    guard = threading.Lock()

    def work(session: RawSession, check: Check) -> None:
        begun = time.monotonic()
        records = _records(restored, session, check)
        seconds = time.monotonic() - begun
        with guard:
            found.extend(_timed(records, {check.codes[0]: seconds}))
            spent_s[check.codes[0]] = spent_s.get(check.codes[0], 0.0) + seconds
        progress.advance(size_bytes=round(check.cost))

    progress.expect(size_bytes=round(sum(check.cost for check in checks)))
    with Workers[Check](restored.context.jobs, lambda: _session(restored.context)) as workers:
        workers.each(checks, work)
    return found, spent_s


def _records(restored: Restored, session: RawSession, check: Check) -> list[CheckRecord]:
    """Return what a check finds; what stops it makes its result unknown."""
    records: list[CheckRecord] = []
    try:
        records += check.run(restored, session)
    except Interrupted:
        raise
    except PgstowError as exc:
        known = {record.code for record in records}
        records += [
            unknown(code, f"this could not be checked: {exc.message}", subject=check.subject)
            for code in check.codes
            if code not in known
        ] or [
            unknown(
                check.codes[0], f"this could not be checked to the end: {exc.message}", subject=check.subject
            )
        ]
    return records
