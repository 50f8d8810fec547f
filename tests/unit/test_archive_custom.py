"""Custom archives: framing, positions, and members that are not what they were said to be."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import (
    Section,
    Toc,
    member_names,
    read_custom_toc,
    write_custom_archive,
)
from support.archives import entry, header

CHUNK = 1 << 18


class Members:
    """Members in memory, handed out in pieces of a given length."""

    def __init__(self, files: dict[str, bytes], piece: int = 1000) -> None:
        self.files = files
        self.piece = piece

    def open(self, name: str) -> Iterator[bytes]:
        data = self.files[name]
        for start in range(0, len(data), self.piece):
            yield data[start : start + self.piece]

    def size(self, name: str) -> int:
        return len(self.files[name])


def toc_of(*names: tuple[int, bytes, bytes]) -> Toc:
    """Return a TOC whose entries have data: (id, desc, file name)."""
    made = (
        entry(dump_id, desc, has_data=True, section=Section.DATA, file_name=name)
        for dump_id, desc, name in names
    )
    return Toc(header=header(), entries=(entry(1), *made))


def write(toc: Toc, members: Members) -> bytes:
    out = io.BytesIO()
    write_custom_archive(toc, members.open, members.size, out)
    return out.getvalue()


def read_integer(stream: io.BytesIO) -> int:
    sign, raw = stream.read(1), stream.read(4)
    return int.from_bytes(raw, "little") * (-1 if sign == b"\x01" else 1)


def read_chunks(stream: io.BytesIO) -> bytes:
    parts = []
    while size := read_integer(stream):
        assert 0 < size <= CHUNK
        parts.append(stream.read(size))
    return b"".join(parts)


def positions(data: bytes, toc: Toc) -> dict[int, int]:
    """Return where the archive says the data of each entry lies, by reading the tails of its entries."""
    found = {}
    for one in toc.entries:
        tail = data.index(b"\x00\x05\x00\x00\x00false\x01\x01\x00\x00\x00", data.index(b"%d" % one.oid)) + 15
        state, position = data[tail], int.from_bytes(data[tail + 1 : tail + 9], "little")
        assert state == (2 if one.has_data else 3)
        found[one.dump_id] = position
    return found


def read_data(data: bytes, toc: Toc) -> dict[int, object]:
    """Return the data of each entry, found through its position."""
    found: dict[int, object] = {}
    for dump_id, position in positions(data, toc).items():
        if not position:
            continue
        stream = io.BytesIO(data)
        stream.seek(position)
        kind = stream.read(1)
        assert read_integer(stream) == dump_id
        if kind == b"\x01":
            found[dump_id] = read_chunks(stream)
        else:
            assert kind == b"\x03"
            objects = {}
            while oid := read_integer(stream):
                objects[oid % 2**32] = read_chunks(stream)
            found[dump_id] = objects
    return found


@given(
    sizes=st.lists(st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), min_size=1, max_size=3),
    piece=st.sampled_from([7919, CHUNK, CHUNK * 2 + 1]),
)
def test_data_is_found_at_its_position(sizes: list[int], piece: int) -> None:
    files = {f"{10 + i}.dat": bytes([65 + i]) * size for i, size in enumerate(sizes)}
    toc = toc_of(*((10 + i, b"TABLE DATA", b"%d.dat" % (10 + i)) for i in range(len(sizes))))
    data = write(toc, Members(files, piece))
    assert read_data(data, toc) == {10 + i: files[f"{10 + i}.dat"] for i in range(len(sizes))}


def test_large_objects_keep_oid_and_order() -> None:
    files = {
        "blobs_5.toc": b"77 blob_77.dat\n4294967295 blob_4294967295.dat\n2147483648 blob_2147483648.dat\n",
        "blob_77.dat": b"x" * 5000,
        "blob_4294967295.dat": b"",
        "blob_2147483648.dat": b"yy",
    }
    toc = toc_of((5, b"BLOBS", b"blobs_5.toc"))
    members = Members(files)
    assert member_names(toc, members.open, members.size) == tuple(files)
    got = read_data(write(toc, members), toc)[5]
    assert got == {77: b"x" * 5000, 4294967295: b"", 2147483648: b"yy"}
    assert list(got) == [77, 4294967295, 2147483648]


def test_toc_reads_back_as_the_directory_it_came_from() -> None:
    toc = toc_of((10, b"TABLE DATA", b"10.dat"), (11, b"BLOBS", b"blobs_11.toc"))
    data = write(toc, Members({"10.dat": b"1\n\\.\n\n\n", "blobs_11.toc": b""}))
    assert read_custom_toc(io.BytesIO(data)).as_directory() == toc


@pytest.mark.parametrize("said", [0, 9, 11, CHUNK + 11])
def test_a_member_of_another_size_is_noticed(said: int) -> None:
    members = Members({"10.dat": b"0123456789"}, piece=4)
    toc = toc_of((10, b"TABLE DATA", b"10.dat"))
    with pytest.raises(ArchiveError, match=r"10\.dat is"):
        write_custom_archive(toc, members.open, lambda _: said, io.BytesIO())


@pytest.mark.parametrize(
    "name", [b"", b"../10.dat", b"/etc/passwd", b"10.dat\n", b"10.dat.gz", b"\xff", None]
)
def test_entries_cannot_name_other_files(name: bytes | None) -> None:
    toc = toc_of((10, b"TABLE DATA", b"10.dat"))
    toc = replace(toc, entries=(*toc.entries[:1], replace(toc.entries[1], file_name=name)))
    with pytest.raises(ArchiveError, match="its member is called"):
        write(toc, Members({}))


@pytest.mark.parametrize(
    "line",
    [
        b"77",
        b"0 blob_0.dat",
        b"77 ../blob_77.dat",
        b"77 blob_77.dat x",
        b"4294967296 blob_1.dat",
        b"\n",
        b"-1 blob_1.dat",
    ],
)
def test_lists_of_large_objects_cannot_name_other_things(line: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"blobs_5\.toc holds"):
        write(toc_of((5, b"BLOBS", b"blobs_5.toc")), Members({"blobs_5.toc": line + b"\n"}))
