"""Exports appear whole or not at all, and never replace anything."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from gzip import decompress
from pathlib import Path

import pytest

from pgstow.core.errors import (
    PgstowError,
    ProcessFailed,
    RepositoryDamaged,
    RestoreError,
    ToolMissing,
    UsageError,
)
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import Section, Toc, read_custom_toc, write_directory_toc
from pgstow.restore.export import ExportFormat, ExportReport, ExportRequest, export_backup
from support.archives import FolderFiles, entry, header

FILES = {
    "5.dat": b"1\tone\n" * 50_000 + b"\\.\n\n\n",
    "blobs_6.toc": b"77 blob_77.dat\n",
    "blob_77.dat": b"x" * 3000,
}
DIRECTORY, CUSTOM, PLAIN = ExportFormat.DIRECTORY, ExportFormat.CUSTOM, ExportFormat.PLAIN
FAILURES = [
    RepositoryDamaged("a blob is missing"),
    KeyboardInterrupt(),
    OSError(28, "No space left on device"),
]


@pytest.fixture
def backup(tmp_path: Path) -> FolderFiles:
    """A small directory archive in the place of a backup."""
    folder = tmp_path / "backup"
    folder.mkdir()
    entries = (
        entry(4),
        entry(5, b"TABLE DATA", has_data=True, section=Section.DATA, file_name=b"5.dat"),
        entry(6, b"BLOBS", has_data=True, section=Section.DATA, file_name=b"blobs_6.toc"),
    )
    (folder / "toc.dat").write_bytes(write_directory_toc(Toc(header=header(), entries=entries)))
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return FolderFiles(folder)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder to export into."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def program(folder: Path, script: str) -> Path:
    """Return a program in the place of pg_restore."""
    path = folder / "pg_restore"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class BreakingFiles(FolderFiles):
    """A backup whose large object cannot be read to its end."""

    def __init__(self, folder: Path, failure: BaseException) -> None:
        super().__init__(folder)
        self.failure = failure

    def stream(self, name: str) -> Iterator[bytes]:
        for piece in super().stream(name):
            yield piece
            if name == "archive/blob_77.dat":
                raise self.failure


class Counting(SilentProgress):
    """A progress that adds up."""

    def __init__(self) -> None:
        self.expected: int | None = None
        self.done = 0

    def expect(self, *, rows: int | None = None, size_bytes: int | None = None) -> None:
        assert rows is None
        self.expected = size_bytes

    def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
        assert rows == 0
        self.done += size_bytes


def export(
    files: FolderFiles,
    export_format: ExportFormat,
    output: Path | None,
    *,
    pg_restore: Path = Path("/nonexistent/pg_restore"),
    stdout: io.BytesIO | None = None,
    gzip: bool = False,
    progress: SilentProgress | None = None,
) -> ExportReport:
    return export_backup(
        files,
        ExportRequest(format=export_format, output=output, gzip=gzip),
        pg_restore=pg_restore,
        stdout=stdout or io.BytesIO(),
        progress=progress or SilentProgress(),
    )


def test_directory_holds_the_archive_and_nothing_else(backup: FolderFiles, place: Path) -> None:
    (backup.folder / "999.dat").write_bytes(b"not named by the archive")
    report = export(backup, DIRECTORY, place / "out")
    got = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
    assert got == {**FILES, "toc.dat": (backup.folder / "toc.dat").read_bytes()}
    assert (report.members, report.size_bytes) == (3, sum(map(len, got.values())))
    assert stat.S_IMODE((place / "out").stat().st_mode) == 0o700
    assert [path.name for path in place.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(backup: FolderFiles, place: Path) -> None:
    (place / "out").mkdir()
    export(backup, DIRECTORY, place / "out")
    assert (place / "out" / "toc.dat").exists()


def test_custom_archive_goes_to_a_file_or_to_standard_output(backup: FolderFiles, place: Path) -> None:
    stdout = io.BytesIO()
    to_file, to_stdout = export(backup, CUSTOM, place / "out"), export(backup, CUSTOM, None, stdout=stdout)
    data = (place / "out").read_bytes()
    assert stdout.getvalue() == data
    assert read_custom_toc(io.BytesIO(data)).as_directory() == backup.toc
    assert to_file.size_bytes == to_stdout.size_bytes == len(data)
    assert to_stdout.output is None


def test_progress_adds_up(backup: FolderFiles, place: Path) -> None:
    progress = Counting()
    export(backup, CUSTOM, place / "out", progress=progress)
    assert progress.done == progress.expected == sum(map(len, FILES.values()))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_nothing_is_left_after_a_failure(
    backup: FolderFiles, place: Path, tmp_path: Path, export_format: ExportFormat, failure: BaseException
) -> None:
    expected = RestoreError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        export(
            BreakingFiles(backup.folder, failure),
            export_format,
            place / "out",
            pg_restore=program(tmp_path, "exec cat"),
        )
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("cat; echo it went wrong >&2; exit 3", "it went wrong"),
        ("head -c 100 > /dev/null; echo no such archive >&2; exit 1", "no such archive"),
        ("head -c 1000; kill -9 $$", "signal 9"),
    ],
)
@pytest.mark.parametrize("gzip", [False, True])
def test_a_failing_pg_restore_fails_the_export(
    backup: FolderFiles, place: Path, tmp_path: Path, script: str, error: str, *, gzip: bool
) -> None:
    with pytest.raises(ProcessFailed, match=error):
        export(backup, PLAIN, place / "out.sql", pg_restore=program(tmp_path, script), gzip=gzip)
    assert not list(place.iterdir())


def test_a_part_of_a_compressed_export_does_not_look_whole(backup: FolderFiles, tmp_path: Path) -> None:
    whole, part = io.BytesIO(), io.BytesIO()
    export(backup, PLAIN, None, stdout=whole, gzip=True, pg_restore=program(tmp_path, "exec cat"))
    assert decompress(whole.getvalue()).startswith(b"PGDMP")
    with pytest.raises(ProcessFailed):
        export(backup, PLAIN, None, stdout=part, gzip=True, pg_restore=program(tmp_path, "cat; exit 1"))
    assert part.getvalue()
    with pytest.raises(EOFError):
        decompress(part.getvalue())


def test_a_missing_pg_restore_fails_the_export(backup: FolderFiles, place: Path) -> None:
    with pytest.raises(ToolMissing):
        export(backup, PLAIN, place / "out.sql")
    assert not list(place.iterdir())


def test_a_missing_member_is_noticed_before_anything_is_written(backup: FolderFiles, place: Path) -> None:
    (backup.folder / "blob_77.dat").unlink()
    stdout = io.BytesIO()
    with pytest.raises(RepositoryDamaged, match=r"has lost large objects.*blob_77\.dat"):
        export(backup, CUSTOM, None, stdout=stdout)
    assert not stdout.getvalue()


def test_a_reader_that_goes_away_is_said(backup: FolderFiles) -> None:
    class Closed(io.BytesIO):
        def write(self, _data: object, /) -> int:
            raise BrokenPipeError

    with pytest.raises(RestoreError, match="went away"):
        export(backup, CUSTOM, None, stdout=Closed())


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_nothing_is_overwritten(backup: FolderFiles, place: Path, export_format: ExportFormat) -> None:
    taken, full, link = place / "file", place / "folder", place / "link"
    taken.write_bytes(b"precious")
    full.mkdir()
    (full / "file").write_bytes(b"precious")
    link.symlink_to(place / "elsewhere")
    for output in (taken, full, link, place / "no such folder" / "out"):
        with pytest.raises(UsageError):
            export(backup, export_format, output)
    assert taken.read_bytes() == (full / "file").read_bytes() == b"precious"


def test_a_file_that_appears_meanwhile_is_not_overwritten(backup: FolderFiles, place: Path) -> None:
    class Intruding(Counting):
        def advance(self, *, rows: int = 0, size_bytes: int = 0) -> None:
            super().advance(rows=rows, size_bytes=size_bytes)
            (place / "out").write_bytes(b"precious")

    with pytest.raises(UsageError, match="exists"):
        export(backup, CUSTOM, place / "out", progress=Intruding())
    assert [(path.name, path.read_bytes()) for path in place.iterdir()] == [("out", b"precious")]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExportRequest(format=CUSTOM, output=None, gzip=True), "--gzip goes with --format plain"),
        (
            ExportRequest(format=DIRECTORY, output=Path("x"), data_only=True),
            "--data-only goes with --format plain",
        ),
        (ExportRequest(format=DIRECTORY, output=None), "cannot go to standard output"),
    ],
)
def test_requests_that_contradict_themselves(request_: ExportRequest, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        request_.check()
    assert caught.value.hint
    assert isinstance(caught.value, PgstowError)
