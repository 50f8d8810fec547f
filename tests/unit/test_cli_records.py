"""What a backup says of what it read."""

from __future__ import annotations

from pathlib import Path

from pgstow.catalog.manifest import LargeObjectsRecord, Manifest, ReuseRecord, TableRecord
from pgstow.cli.records import read_bytes, read_whole, read_whole_lines, reuse_text
from support.archives import FolderFiles

COMPARED = ReuseRecord(is_base=True, base="0123456789", is_full_read=False, checked_ranges=2)


def _table(name: str, size_bytes: int, why: str | None) -> TableRecord:
    return TableRecord(
        dump_id=size_bytes, member="archive/2.dat", oid=7, schema_="s", name=name, rows=3, size_bytes=size_bytes, read_by="copy",
        reuse_refused=why, seconds=0.1,
    )  # fmt: skip


def _manifest(*tables: TableRecord, reuse: ReuseRecord = COMPARED, reused_objects: int = 0) -> Manifest:
    return FolderFiles(Path()).manifest.model_copy(
        update={
            "tables": tables,
            "reuse": reuse,
            "large_objects": LargeObjectsRecord(count=9, reused=reused_objects, reused_bytes=reused_objects),
        }
    )


def test_tables_that_were_read_whole_are_named_the_largest_first() -> None:
    tables = [_table(f"t{number}", number * 2048, "it was rewritten") for number in range(1, 6)]
    tables[4] = _table("t\x1b5", 10240, "every page range changed")
    manifest = _manifest(*tables, _table("quiet", 99999, None))

    assert list(read_whole_lines(manifest)) == [
        "s.t\\x1b5, 10.0 KiB: every page range changed",
        "s.t4, 8.0 KiB: it was rewritten",
        "s.t3, 6.0 KiB: it was rewritten",
        "and 2 more tables, 6.0 KiB (pgstow show --all)",
    ]


def test_where_all_was_read_the_reason_is_said_once() -> None:
    refused = COMPARED.model_copy(update={"base": None, "refused": "the server was restarted"})
    full = COMPARED.model_copy(update={"is_full_read": True})
    for reuse in (refused, full):
        assert read_whole(_manifest(_table("t", 4096, "the server was restarted"), reuse=reuse)) == []
    assert reuse_text(_manifest(reuse=refused)) == "nothing: the server was restarted"


def test_large_objects_alone_may_be_what_was_reused() -> None:
    assert reuse_text(_manifest()) == "nothing: no page range could be taken over from backup 01234567"
    assert reuse_text(_manifest(reused_objects=7)).startswith("7 B unchanged since backup 01234567")


def test_nothing_was_read_of_a_table_that_was_taken_over_whole() -> None:
    whole = _table("t", 4096, None)
    assert read_bytes(whole) == 4091  # the rest marks the end
    assert read_bytes(whole.model_copy(update={"reused_bytes": 4091})) == 0
