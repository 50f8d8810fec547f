"""Reading foreign archives: what is compressed, cut off, out of order or malicious, and how rows are cut."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import lzma
import random
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.app.import_dump import import_dump
from pgstow.app.import_request import ImportRequest
from pgstow.capture.row_cutting import RowCutter
from pgstow.capture.written_zone import WrittenZone
from pgstow.catalog.backups import list_backups
from pgstow.core.errors import ArchiveError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import (
    PIECE_BYTES,
    TABLE_DATA_TRAILER,
    PieceReader,
    TarArchive,
    Toc,
    decompressed,
    write_directory_toc,
)
from pgstow.postgres.archive.lz4 import _library
from support.archives import entry, header
from support.backups import memory_repository

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _lz4(data: bytes) -> bytes:
    """Compress with the library itself."""
    library = _library()
    library.LZ4F_compressFrameBound.restype = library.LZ4F_compressFrame.restype = ctypes.c_size_t
    bound = library.LZ4F_compressFrameBound(ctypes.c_size_t(len(data)), None)
    out = ctypes.create_string_buffer(bound)
    size = library.LZ4F_compressFrame(out, ctypes.c_size_t(bound), data, ctypes.c_size_t(len(data)), None)
    return out.raw[:size]


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "lz4": _lz4,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
_ROWS = b"".join(b"%d\tsome text %d\n" % (i, i * i) for i in range(20_000))


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("codec", _COMPRESSORS)
def test_content_comes_back_from_any_codec_in_any_pieces_also_of_several_frames(codec: str) -> None:
    packed = _COMPRESSORS[codec](_ROWS) + _COMPRESSORS[codec](b"more\n")
    for size in (1_000, 70_001, len(packed)):
        pieces = list(decompressed(codec, _pieces(packed, size), what="it"))
        assert b"".join(pieces) == _ROWS + b"more\n"


@pytest.mark.parametrize("codec", _COMPRESSORS)
def test_what_expands_without_measure_comes_in_small_pieces(codec: str) -> None:
    packed = _COMPRESSORS[codec](bytes(40 << 20))
    assert max(map(len, decompressed(codec, iter([packed]), what="it"))) <= PIECE_BYTES


@pytest.mark.parametrize("codec", _COMPRESSORS)
def test_a_cut_or_changed_stream_is_an_error(codec: str) -> None:
    packed = _COMPRESSORS[codec](_ROWS)
    for cut in (len(packed) - 1, len(packed) // 2, 7):
        with pytest.raises(ArchiveError, match="cut off"):
            list(decompressed(codec, iter([packed[:cut]]), what="it"))
    if codec in ("lz4", "zstd"):  # whose frames need not have checksums
        return
    changed = bytearray(packed)
    changed[len(packed) // 2] ^= 0x10
    with pytest.raises(ArchiveError, match=r"damaged|cut off"):
        list(decompressed(codec, iter([bytes(changed)]), what="it"))


# -- rows


def _cut(rows: bytes, piece: int) -> tuple[list[bytes], int]:
    cutter = RowCutter("t")
    blobs = [blob for part in _pieces(rows + TABLE_DATA_TRAILER, piece) for blob in cutter.add(part)]
    return [*blobs, *cutter.finish()], cutter.rows


@given(
    st.lists(st.binary(max_size=30).map(lambda row: row.replace(b"\n", b"")), max_size=40), st.integers(1, 50)
)
def test_rows_are_the_same_however_they_arrive(rows: list[bytes], piece: int) -> None:
    data = b"".join(row + b"\n" for row in rows)
    blobs, count = _cut(data, piece)
    assert b"".join(blobs) == data
    assert count == len(rows)
    assert all(blob.endswith(b"\n") for blob in blobs)


def test_rows_that_change_move_few_cuts() -> None:
    chance = random.Random(7)
    rows = [b"%d\t%s\n" % (i, chance.randbytes(60).hex().encode()) for i in range(90_000)]
    before, _ = _cut(b"".join(rows), 99_991)
    del rows[40_000:40_010]
    rows[100:100] = [b"new\n"] * 3
    after, _ = _cut(b"".join(rows), 1 << 20)
    assert 6 < len(before) < 40
    assert len(set(after) - set(before)) <= 4


@pytest.mark.parametrize("end", [b"", b"\\.\n\n", b"\\.\n\n\nx", b"1\tx"])
def test_rows_without_their_end_are_cut_off(end: bytes) -> None:
    cutter = RowCutter("t")
    with pytest.raises(ArchiveError, match="rows of t are cut off"):
        list(cutter.add(b"1\tone\n" + end)) + list(cutter.finish())


def test_what_has_no_rows_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few megabytes of gzip may hold a terabyte of zeros."""
    monkeypatch.setattr("pgstow.capture.row_cutting._LONGEST_ROW_BYTES", 3 << 20)
    cutter = RowCutter("t")
    for piece in (b"1\n", *[bytes(PIECE_BYTES)] * 3):
        list(cutter.add(piece))
    with pytest.raises(ArchiveError, match="row 2 of t is longer than 1 GiB"):
        list(cutter.add(bytes(PIECE_BYTES)))
    cutter = RowCutter("t")
    for piece in [bytes(PIECE_BYTES - 1) + b"\n"] * 10:
        list(cutter.add(piece))
    assert cutter.rows == 9


# -- tar


def _toc(**changes: object) -> Toc:
    data = entry(
        2,
        b"TABLE DATA",
        has_data=True,
        copy_stmt=b"COPY public.t (id) FROM stdin;\n",
        file_name=b"2.dat",
        **changes,
    )
    encoding = entry(3, b"ENCODING", b"ENCODING", defn=b"SET client_encoding = 'UTF8';\n")
    return Toc(
        header=header((1, 14, 0), server_version=b"15.4", pg_dump_version=b"15.4"),
        entries=(entry(1), data, encoding),
    )


def _tar(files: dict[str, bytes], *, link: str | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link is not None:
            info = tarfile.TarInfo("3.dat")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return out.getvalue()


def _read(data: bytes) -> dict[str, bytes]:
    archive = TarArchive(PieceReader(_pieces(data, 700), what="dump.tar"))
    return {name: b"".join(pieces) for name, pieces in archive.members()} | {
        "toc": bytes(len(archive.toc.entries))
    }


_MEMBER = b"1\n" + TABLE_DATA_TRAILER


def test_a_tar_file_is_read_in_any_order() -> None:
    toc = write_directory_toc(_toc())
    assert _read(_tar({"2.dat": _MEMBER, "toc.dat": toc}))["2.dat"] == _MEMBER
    assert _read(_tar({"dump/toc.dat": toc, "dump/2.dat.gz": gzip.compress(_MEMBER)}))["2.dat"] == _MEMBER


@pytest.mark.parametrize(
    ("files", "link", "message"),
    [
        ({"../../etc/passwd": b"x"}, None, "which pg_dump puts into no dump"),
        ({"2.dat": b"", "a/2.dat": b""}, None, "2.dat twice"),
        ({"2.dat": b""}, "/etc/passwd", "neither a file nor a folder"),
        ({"2.dat": b""}, None, "no toc.dat"),
    ],
)
def test_a_tar_file_that_is_no_dump_is_refused(
    files: dict[str, bytes], link: str | None, message: str
) -> None:
    with pytest.raises(ArchiveError, match=message):
        _read(_tar(files, link=link))


def test_a_damaged_or_cut_tar_file_is_refused() -> None:
    whole = _tar({"toc.dat": write_directory_toc(_toc()), "2.dat": _MEMBER})
    with pytest.raises(ArchiveError, match="cut off after"):
        _read(whole[:700])
    changed = bytearray(whole)
    changed[130] ^= 1  # a digit of the size
    with pytest.raises(ArchiveError, match="damaged before byte"):
        _read(bytes(changed))


# -- what stands in no table of contents, and the other way round


def _import(data: bytes) -> None:
    repository = memory_repository()
    request = ImportRequest(dump="-", stdin=io.BytesIO(data))
    try:
        import_dump(request, repository, [], SilentProgress())
    finally:
        assert list_backups(repository) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"toc.dat": write_directory_toc(_toc())}, "rows of TABLE DATA public.t .* are missing"),
        (
            {"toc.dat": write_directory_toc(_toc()), "2.dat": _MEMBER, "9.dat": _MEMBER},
            "9.dat, which belongs to nothing",
        ),
        (
            {"toc.dat": write_directory_toc(_toc()), "2.dat": _MEMBER, "blob_5.dat": b"x"},
            "large object 5, which its table of contents does not name",
        ),
        ({"toc.dat": write_directory_toc(_toc()), "2.dat": b"1\n2"}, "2.dat are cut off"),
    ],
)
def test_an_incomplete_dump_leaves_no_backup(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        _import(_tar(files))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "stdin is empty"),
        (gzip.compress(b"", mtime=0), "stdin is empty"),
        (gzip.compress(gzip.compress(b"SELECT 1;", mtime=0), mtime=0), "compressed twice"),
        (b"\0\1\2" * 500, "is no dump that pg_dump"),
        (write_directory_toc(_toc()), "table of contents of a directory dump"),
        (b"PGDMP\x01\x63\x00\x04\x08\x01", "version 1.99"),
        ("SELECT 1;".encode("utf-16"), "in UTF-16, as PowerShell"),
    ],
)
def test_what_is_no_dump_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        _import(data)


# -- the zone that times were written in


def _rows_in(zone: str) -> bytes:
    moments = (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day, hours=day) for day in range(700))
    return b"".join(
        moment.astimezone(ZoneInfo(zone)).isoformat(" ").removesuffix(":00").encode() + b"\tx\n"
        for moment in moments
    )


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Calcutta", "Australia/LHI"]
)
def test_rows_tell_the_zone_they_were_written_in(zone: str) -> None:
    written = WrittenZone()
    written.look(_rows_in(zone), 0)
    assert written.zone == zone


def test_the_end_of_all_calendars_tells_a_zone_too() -> None:
    written = WrittenZone()
    written.look(b"1\t9999-12-31 23:59:59+05:30\n", 0)
    assert written.zone == "Asia/Calcutta"


def test_times_of_two_zones_tell_none() -> None:
    written = WrittenZone()
    written.look(_rows_in("Europe/Berlin") + _rows_in("Asia/Tokyo"), 0)
    assert written.zone is None
