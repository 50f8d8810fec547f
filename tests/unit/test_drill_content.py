"""What a drill says of rows that differ."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgstow.assurance.drill.checks.content import check_content
from pgstow.assurance.drill.checks.restored import Restored
from pgstow.assurance.drill.context import CheckContext
from pgstow.catalog.manifest import Manifest, TableRecord, Warning_
from pgstow.postgres.conninfo import ConnInfo
from pgstow.restore.report import ComparedTable, RestoreReport, TargetIdentity
from support.archives import FolderFiles


class _Imported(FolderFiles):
    """A backup of one table with warnings."""

    warnings: tuple[Warning_, ...] = ()

    @property
    def manifest(self) -> Manifest:
        table = TableRecord(
            dump_id=2,
            member="archive/2.dat",
            oid=7,
            schema_="s",
            name="t",
            rows=3,
            size_bytes=9,
            read_by="import",
            seconds=0.1,
        )
        return super().manifest.model_copy(update={"tables": (table,), "warnings": self.warnings})


def _restored(*codes: str) -> Restored:
    files = _Imported(Path())
    files.warnings = tuple(Warning_(code=code, message=f"about {code}") for code in codes)
    target = TargetIdentity(
        host="", port=5432, database="d", database_oid=None, system_identifier=None, server_version="18.4",
        server_version_num=180004, user="u", is_superuser=True,
    )  # fmt: skip
    report = RestoreReport(
        backup_id="3e1f", backup_name="shop", snapshot_taken=datetime(2026, 1, 1, tzinfo=UTC), target=target,
        created_database=True, tables=(), rows=3, size_bytes=9, large_objects=0, objects=1, timings_s={},
        compared=(ComparedTable(schema="s", name="t", rows=3, expected_rows=3, is_equal=False),),
    )  # fmt: skip
    context = CheckContext(target=ConnInfo.parse("dbname=d"), files=files, restored=report)
    return Restored(context=context, installed={}, version_num=180004)


@pytest.mark.parametrize("code", ["zone", "floats", "money"])
def test_what_an_import_did_not_know_is_said_beside_a_difference(code: str) -> None:
    (record,) = check_content(_restored(code, "undated"))
    assert record.outcome == "fail"
    assert f"known when the dump was imported: about {code}" in record.message
    assert "undated" not in record.message


def test_nothing_is_said_where_nothing_was_unknown() -> None:
    (record,) = check_content(_restored("undated"))
    assert record.message == "some of the table's 3 rows hold other values than were saved"
