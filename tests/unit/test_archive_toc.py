"""Reading and writing the table of contents, whatever it holds and however it is broken."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import (
    Section,
    Toc,
    read_custom_toc,
    read_directory_toc,
    write_custom_archive,
    write_directory_toc,
)
from support.archives import VERSIONS, entry, header, tocs

SAMPLE = Toc(
    header=header(),
    entries=(
        entry(
            1, b"ENCODING", b"ENCODING", defn=b"SET client_encoding = 'UTF8';\n", drop_stmt=None, owner=None
        ),
        entry(2, b"STDSTRINGS", b"STDSTRINGS", defn=b"SET standard_conforming_strings = 'on';\n"),
        entry(
            3,
            b"SEARCHPATH",
            b"SEARCHPATH",
            defn=b"SELECT pg_catalog.set_config('search_path', 'it''s', false);\n",
        ),
        entry(200, b"TABLE", b"t", table_am=b"heap", relkind=114, dependencies=(7, 2**31 - 1)),
        entry(201, b"TABLE DATA", b"t", has_data=True, section=Section.DATA, file_name=b"201.dat"),
        entry(202, b"BLOBS", b"9", has_data=True, section=Section.DATA, file_name=b"blobs_202.toc"),
    ),
)


def custom_bytes(toc: Toc) -> bytes:
    """Return the custom archive of a TOC without data."""
    out = io.BytesIO()
    entries = tuple(replace(one, has_data=False) for one in toc.entries)
    write_custom_archive(replace(toc, entries=entries), lambda _: iter(()), lambda _: 0, out)
    return out.getvalue()


def read_custom_bytes(data: bytes) -> Toc:
    return read_custom_toc(io.BytesIO(data))


class Drip(io.RawIOBase):
    """A pipe that has one byte ready at a time, and counts what was taken from it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.taken = 0

    def read(self, _size: int = -1, /) -> bytes:
        piece = self._data[self.taken : self.taken + 1]
        self.taken += len(piece)
        return piece


@given(tocs())
def test_what_is_written_is_read_back(toc: Toc) -> None:
    data = write_directory_toc(toc)
    assert read_directory_toc(data) == toc
    assert write_directory_toc(read_directory_toc(data)) == data


@given(tocs())
def test_custom_archives_hold_the_same_entries(toc: Toc) -> None:
    got = read_custom_bytes(custom_bytes(toc))
    assert [replace(one, file_name=None, has_data=False) for one in toc.entries] == list(got.entries)
    assert got.header == replace(toc.header, format=1, compression=0)


def test_a_pipe_is_read_to_the_end_of_the_toc_and_no_further() -> None:
    data = custom_bytes(SAMPLE)
    pipe = Drip(data + b"rows and rows")
    assert read_custom_toc(cast("io.BufferedReader", pipe)) == read_custom_bytes(data)
    assert pipe.taken == len(data)


@pytest.mark.parametrize("read", [read_directory_toc, read_custom_bytes])
def test_truncation_at_every_point_is_noticed(read: Callable[[bytes], Toc]) -> None:
    data = write_directory_toc(SAMPLE) if read is read_directory_toc else custom_bytes(SAMPLE)
    read(data)
    for end in range(len(data)):
        with pytest.raises(ArchiveError):
            read(data[:end])


@pytest.mark.parametrize("read", [read_directory_toc, read_custom_bytes])
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.none() | st.integers(0, 10_000),
)
def test_any_damage_raises_archive_error_or_parses(
    read: Callable[[bytes], Toc], edits: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(write_directory_toc(SAMPLE) if read is read_directory_toc else custom_bytes(SAMPLE))
    for place, value in edits:
        data[place % len(data)] = value
    try:
        toc = read(bytes(data[:cut]))
    except ArchiveError:
        return
    if read is read_directory_toc:  # nothing was guessed: it stands for exactly these bytes
        assert write_directory_toc(toc) == data


@given(st.binary(max_size=300))
@example(b"")
@example(b"PGDMP")
@example(b"PGDMP\x01\x10\x00\x04\x08\x03\x00" + b"\x00\xff\xff\xff\x7f" * 12)
def test_noise_is_no_archive(data: bytes) -> None:
    for read in (read_directory_toc, read_custom_bytes):
        with pytest.raises(ArchiveError):
            read(data)
        with pytest.raises(ArchiveError):
            read(b"PGDMP\x01\x10\x00\x04\x08\x01\x00" + data[:50])


@pytest.mark.parametrize("size", [2**30, 2**30 + 1, 2**31 - 1])
def test_a_claimed_length_reserves_no_memory(size: int) -> None:
    data = write_directory_toc(SAMPLE)
    at = data.index(b"shop") - 4
    broken = data[:at] + size.to_bytes(4, "little") + data[at + 4 :]
    custom = broken[:10] + b"\x01" + broken[11:]
    tracemalloc.start()
    try:
        for read, given_bytes in ((read_directory_toc, broken), (read_custom_bytes, custom)):
            with pytest.raises(ArchiveError):
                read(given_bytes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_claimed_number_of_entries_reserves_no_memory() -> None:
    empty = write_directory_toc(Toc(header=header(), entries=()))
    with pytest.raises(ArchiveError, match="ends in the middle"):
        read_directory_toc(empty[:-4] + b"\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (6, 17, r"version 1\.17"),
        (6, 11, r"version 1\.11"),
        (5, 2, r"version 2\.16"),
        (8, 8, "integers of 8"),
        (9, 4, "offsets of 4"),
        (10, 1, "format number 1"),
        (0, 0x70, "not a pg_dump archive"),
    ],
)
def test_archives_that_cannot_be_read_say_why(place: int, value: int, message: str) -> None:
    data = bytearray(write_directory_toc(SAMPLE))
    data[place] = value
    with pytest.raises(ArchiveError, match=message) as caught:
        read_directory_toc(bytes(data))
    if "version" in message:
        assert caught.value.hint


def test_bytes_behind_the_toc_are_noticed() -> None:
    with pytest.raises(ArchiveError, match="1 bytes follow"):
        read_directory_toc(write_directory_toc(SAMPLE) + b"\0")


def test_a_string_that_pg_restore_would_read_otherwise_is_noticed() -> None:
    hidden = entry(5, defn=b"CREATE TABLE t ();\0 and more")
    with pytest.raises(ArchiveError, match="a string with a zero byte"):
        read_directory_toc(write_directory_toc(Toc(header=header(), entries=(hidden,))))


def test_a_table_of_contents_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstow.postgres.archive.reading._MAX_TOC_BYTES", 1 << 18)
    data = custom_bytes(Toc(header=header(), entries=tuple(entry(n) for n in range(1, 5000))))
    stream = io.BytesIO(data)
    with pytest.raises(ArchiveError, match="is longer than any that pg_dump makes"):
        read_custom_toc(stream)
    assert stream.tell() < len(data) / 2


def test_an_id_used_twice_is_noticed() -> None:
    with pytest.raises(ArchiveError, match="two entries with the id 5"):
        read_directory_toc(write_directory_toc(Toc(header=header(), entries=(entry(5), entry(5)))))


@pytest.mark.parametrize("version", VERSIONS)
def test_directory_form_names_the_members_as_pg_dump_does(version: tuple[int, int, int]) -> None:
    toc = Toc(header=header(version, format=1, compression=3), entries=SAMPLE.entries)
    toc = Toc(header=toc.header, entries=tuple(replace(one, file_name=None) for one in toc.entries))
    made = toc.as_directory()
    assert (made.header.format, made.header.compression) == (3, 0)
    blobs = b"blobs_202.toc" if version == (1, 16, 0) else b"blobs.toc"
    assert [one.file_name for one in made.entries] == [b"", b"", b"", b"", b"201.dat", blobs]


def test_session_settings() -> None:
    assert SAMPLE.encoding == "UTF8"
    assert SAMPLE.has_standard_strings
    assert SAMPLE.search_path == b"it's"
    with pytest.raises(ArchiveError, match="does not state its ENCODING"):
        _ = Toc(header=header(), entries=SAMPLE.entries[1:]).encoding


def test_a_selection_keeps_the_session_settings() -> None:
    chosen = SAMPLE.select(lambda one: one.dump_id == 201)
    assert [one.dump_id for one in chosen.entries] == [1, 2, 3, 201]
    assert [one.dump_id for one in SAMPLE.without_data().entries] == [1, 2, 3, 200]


def test_creation_time() -> None:
    moment = header().created_local
    assert moment is not None
    assert moment.isoformat() == "2026-11-20T03:02:01"
    assert header(created=(0, 0, 0, 32, 12, 10**9, 0)).created_local is None
