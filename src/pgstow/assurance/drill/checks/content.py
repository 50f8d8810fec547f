"""Rows: those that the restored server gives back are those that the repository holds.

The restore itself has read every table back and compared it; here its findings are held against the manifest, so that a
table which nobody compared is seen as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pgstow.assurance.drill.checks.records import counted, failed, passed, skipped, summed_up, unknown
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.catalog.drills import CheckRecord
from pgstow.restore.report import ComparedTable

__all__ = ["check_content", "check_row_counts"]

_Name = tuple[str, str]

# Warnings of an import after which equal values may be printed in another way.
_MAY_EXPLAIN = frozenset({"zone", "floats", "money"})


def check_content(restored: Restored) -> Iterator[CheckRecord]:
    """Yield whether every row of every table is the one that was saved."""
    expected = _expected(restored)
    if not expected:
        yield skipped("content", "the backup holds no rows of tables")
        return
    compared = _compared(restored)
    remarks = [one.message for one in restored.manifest.warnings if one.code in _MAY_EXPLAIN]
    problems = [_different(one, remarks) for one in compared.values() if not one.is_equal]
    problems += [
        unknown("content", "the table's rows were not compared", subject=_joined(name))
        for name in expected
        if name not in compared
    ]
    rows = sum(one.rows for one in compared.values())
    good = passed(
        "content",
        f"{counted(len(compared), 'table')} with exactly the {counted(rows, 'row')} that the repository holds",
    )
    yield from summed_up(good, problems)


def check_row_counts(restored: Restored) -> Iterator[CheckRecord]:
    """Yield whether every table has as many rows as the manifest says."""
    expected = _expected(restored)
    if not expected:
        yield skipped("row_counts", "the backup holds no rows of tables")
        return
    compared = _compared(restored)
    owned = _owned_by_extensions(restored)
    problems = []
    for name, rows in expected.items():
        there = compared.get(name)
        if there is None:
            problems.append(unknown("row_counts", "the table's rows were not counted", subject=_joined(name)))
        elif there.rows != there.expected_rows or (name not in owned and there.expected_rows != rows):
            wanted = there.expected_rows if name in owned else rows
            problems.append(
                failed(
                    "row_counts",
                    f"the table has {there.rows} rows instead of {wanted}",
                    subject=_joined(name),
                    expected=str(wanted),
                    found=str(there.rows),
                )
            )
    good = passed(
        "row_counts", f"{counted(len(expected), 'table')} with as many rows as the backup's manifest says"
    )
    yield from summed_up(good, problems)


def _expected(restored: Restored) -> Mapping[_Name, int]:
    """Return the rows of each table; partitions that are loaded through their root count for the root."""
    rows: dict[_Name, int] = {}
    for record in restored.manifest.tables:
        if record.dump_id in restored.left_out:
            continue
        root = record.load_via_root
        name = (root.schema_, root.name) if root else (record.schema_, record.name)
        rows[name] = rows.get(name, 0) + record.rows
    return rows


def _owned_by_extensions(restored: Restored) -> set[_Name]:
    """Return tables that hold rows of their extension besides those of the backup."""
    return {(one.schema_, one.name) for one in restored.manifest.tables if one.extension_owned}


def _compared(restored: Restored) -> dict[_Name, ComparedTable]:
    return {(one.schema, one.name): one for one in restored.context.restored.compared}


def _different(one: ComparedTable, remarks: Sequence[str]) -> CheckRecord:
    name = _joined((one.schema, one.name))
    if one.rows == one.expected_rows:
        message = f"some of the table's {one.rows} rows hold other values than were saved"
        if remarks:
            message += f"; it may be this, which was known when the dump was imported: {'; '.join(remarks)}"
        return failed("content", message, subject=name)
    return failed(
        "content",
        "the table does not hold the rows that were saved",
        subject=name,
        expected=f"{one.expected_rows} rows",
        found=f"{one.rows} rows",
    )


def _joined(name: _Name) -> str:
    return ".".join(name)
