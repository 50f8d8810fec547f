"""Newest rows: the newest value of a table's time column is the one recorded under the backup's snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from pgstow.assurance.drill.checks.records import failed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.core.errors import ConnectionFailed, PostgresError
from pgstow.postgres.encodings import decoded, encoded
from pgstow.postgres.inventory import newest_value
from pgstow.postgres.raw import RawSession

__all__ = ["check_newest_rows"]


def check_newest_rows(restored: Restored, session: RawSession) -> Iterator[CheckRecord]:
    """Yield whether the newest rows are those that were recorded."""
    recorded = restored.manifest.newest_rows()
    gone = _other_tables(restored)
    recorded = {name: newest for name, newest in recorded.items() if name not in gone}
    if not recorded:
        yield skipped(
            "newest_rows",
            "the backup records no newest rows: no table of it has a time column in the settings",
        )
        return
    encoding = restored.toc.encoding
    problems = []
    for (schema, name), newest in recorded.items():
        subject = f"{schema}.{name}"
        try:
            table = encoded(schema, encoding), encoded(name, encoding)
            found = newest_value(session, table, encoded(newest.column, encoding))
        except ConnectionFailed:
            raise
        except (PostgresError, UnicodeEncodeError) as exc:
            problems.append(
                unknown("newest_rows", f"the newest {newest.column} is not known: {exc}", subject=subject)
            )
            continue
        there = None if found is None else decoded(found, encoding)
        if there != newest.value:
            problems.append(
                failed(
                    "newest_rows",
                    f"the newest {newest.column} is another one",
                    subject=subject,
                    expected=newest.value or "no row",
                    found=there or "no row",
                )
            )
    shown = ", ".join(
        f"{schema}.{name} up to {newest.value or 'nothing: it is empty'}"
        for (schema, name), newest in recorded.items()
    )
    yield from summed_up(passed("newest_rows", f"newest rows are those of the backup: {shown}"), problems)


def _other_tables(restored: Restored) -> set[tuple[str, str]]:
    """Return tables that do not hold the rows that were recorded of them: left out, saved in part, or spread anew."""
    names = {
        (one.schema_, one.name)
        for one in restored.manifest.tables
        if one.load_via_root or one.condition or one.extension_owned
    }
    return names | {
        (restored.text(one.namespace), restored.text(one.tag))
        for one in restored.toc.entries
        if one.desc in {b"TABLE", b"TABLE DATA"} and one.dump_id in restored.left_out
    }
