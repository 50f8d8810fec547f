"""Pack headers and index files: round trips, and malformed input."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.core.errors import RepositoryDamaged
from pgstow.repository.crypto import SEAL_BYTES, MasterKey
from pgstow.repository.files import pack_name
from pgstow.repository.ids import BlobIds, BlobKind
from pgstow.repository.index import BlobIndex, Location, PackContents, encode_index, parse_index
from pgstow.repository.packs import (
    PackEntry,
    decode_header,
    encode_header,
    pack_size,
    read_header,
    split_pack,
)
from pgstow.store.memory import MemoryStore

KEY = MasterKey(bytes(range(64)))
IDS = st.binary(min_size=32, max_size=32)


@st.composite
def entry_lists(draw: st.DrawFn, max_size: int = 20) -> list[PackEntry]:
    entries: list[PackEntry] = []
    offset = 0
    for blob_id in draw(st.lists(IDS, max_size=max_size)):
        length = draw(st.integers(SEAL_BYTES, 1 << 20))
        plain = draw(st.one_of(st.just(0), st.integers(1, 1 << 23)))
        entries.append(PackEntry(draw(st.sampled_from(BlobKind)), blob_id, offset, length, plain))
        offset += length
    return entries


@given(entry_lists())
def test_header_round_trip(entries: list[PackEntry]) -> None:
    assert decode_header(encode_header(entries)) == entries


@given(st.binary(max_size=500))
def test_any_bytes_as_header(data: bytes) -> None:
    try:
        entries = decode_header(data)
    except ValueError:
        return
    assert encode_header(entries) == data


@given(entry_lists(), st.data())
def test_damaged_headers_are_noticed_or_different(entries: list[PackEntry], data: st.DataObject) -> None:
    header = bytearray(encode_header([*entries, PackEntry(BlobKind.DATA, bytes(32), 0, 99, 0)]))
    original = decode_header(bytes(header))
    header[data.draw(st.integers(0, len(header) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        assert decode_header(bytes(header)) != original


def build_pack(bodies: list[bytes]) -> tuple[str, bytes, list[PackEntry]]:
    entries: list[PackEntry] = []
    out = bytearray()
    for body in bodies:
        sealed = KEY.seal(body)
        entries.append(PackEntry(BlobKind.DATA, hashlib.sha256(body).digest(), len(out), len(sealed), 0))
        out += sealed
    header = KEY.seal(encode_header(entries))
    out += header + len(header).to_bytes(4, "little")
    return hashlib.sha256(out).hexdigest(), bytes(out), entries


@pytest.mark.parametrize("blobs", [0, 1, 3, 400])
def test_a_pack_tells_what_it_holds(blobs: int) -> None:
    pack_id, data, entries = build_pack([b"blob %d" % number for number in range(blobs)])
    store = MemoryStore()
    store.put(pack_name(pack_id), data)
    assert len(data) == pack_size(entries)
    assert split_pack(pack_id, data, KEY) == entries
    assert read_header(store, pack_id, len(data), KEY) == entries


def test_every_damaged_byte_of_the_header_is_noticed() -> None:
    pack_id, data, entries = build_pack([b"one", b"two"])
    for position in range(entries[-1].offset + entries[-1].length, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(RepositoryDamaged, match=pack_id):
            split_pack(pack_id, bytes(damaged), KEY)


def test_truncated_packs_are_noticed() -> None:
    pack_id, data, _ = build_pack([b"one", b"two"])
    for size in range(len(data)):
        with pytest.raises(RepositoryDamaged, match=pack_id):
            split_pack(pack_id, data[:size], KEY)


def test_bytes_that_no_entry_accounts_for_are_noticed() -> None:
    pack_id, data, _ = build_pack([b"one"])
    with pytest.raises(RepositoryDamaged, match="accounts for"):
        split_pack(pack_id, b"hidden" + data, KEY)


@given(st.lists(st.tuples(IDS, entry_lists(max_size=5)), max_size=5))
def test_index_file_round_trip(packs: list[tuple[bytes, list[PackEntry]]]) -> None:
    contents = [PackContents(pack_id, entries) for pack_id, entries in packs]
    data = encode_index(contents)
    assert list(parse_index(data, name="index/x")) == contents
    pretty = json.dumps({"supersedes": [], **json.loads(data)}, indent=1).encode()
    assert list(parse_index(pretty, name="index/x")) == contents


def test_the_encoding_is_restic_s() -> None:
    pack = PackContents(
        bytes(32),
        [
            PackEntry(BlobKind.DATA, b"\1" * 32, 0, 40, 100),
            PackEntry(BlobKind.DATA, b"\2" * 32, 40, 50, 0),
        ],
    )
    assert encode_index([pack]).decode() == (
        '{"packs":[{"id":"' + "00" * 32 + '","blobs":['
        '{"id":"' + "01" * 32 + '","type":"data","offset":0,"length":40,"uncompressed_length":100},'
        '{"id":"' + "02" * 32 + '","type":"data","offset":40,"length":50}]}]}\n'
    )


VALID = encode_index([PackContents(bytes(32), [PackEntry(BlobKind.TREE, b"\1" * 32, 0, 40, 100)])]).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"packs":[',
        '{"packs":[}',
        '{"packs":[{}]}',
        VALID[:-3],
        VALID + "x",
        VALID.replace('"tree"', '"twig"'),
        VALID.replace("01" * 32, "01"),
        VALID.replace("01" * 32, "zz" * 32),
        VALID.replace('"length":40', '"length":31'),
        VALID.replace('"length":40', '"length":4294967296'),
        VALID.replace('"offset":0', '"offset":-1'),
        VALID.replace('"offset":0', '"offset":"x"'),
        VALID.replace(":100", ":-5"),
    ],
)
def test_malformed_index_files_are_named(text: str) -> None:
    with pytest.raises(RepositoryDamaged, match="index/name"):
        list(parse_index(text.encode(), name="index/name"))


@given(st.data())
def test_mutated_index_files_raise_only_our_error(data: st.DataObject) -> None:
    text = bytearray(VALID.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RepositoryDamaged):
        list(parse_index(bytes(text), name="index/x"))


def test_the_index_keeps_kinds_apart_and_remembers_a_second_copy() -> None:
    index = BlobIndex()
    blob = b"\7" * 32
    index.add_pack(
        b"a" * 32, [PackEntry(BlobKind.DATA, blob, 0, 50, 0), PackEntry(BlobKind.TREE, blob, 50, 60, 9)]
    )
    index.add_pack(b"b" * 32, [PackEntry(BlobKind.DATA, blob, 5, 70, 80)])
    index.add_pack(b"b" * 32, [PackEntry(BlobKind.DATA, blob, 5, 70, 80)])
    assert len(index) == 2
    assert index.find(BlobKind.DATA, blob) == Location(b"a" * 32, 0, 50, 0)
    assert index.find(BlobKind.TREE, blob) == Location(b"a" * 32, 50, 60, 9)
    assert index.find_other(BlobKind.DATA, blob) == Location(b"b" * 32, 5, 70, 80)
    assert index.find_other(BlobKind.TREE, blob) is None
    assert index.find(BlobKind.DATA, b"\x08" * 32) is None
    assert not index.has(BlobKind.TREE, b"\x08" * 32)
    assert (index.find(BlobKind.DATA, blob) or Location(b"", 0, 0, 0)).size_bytes == 50 - SEAL_BYTES


@given(st.lists(IDS, max_size=20), st.data())
def test_packed_ids_behave_like_a_list(ids: list[bytes], data: st.DataObject) -> None:
    packed = BlobIds.of(ids)
    assert list(packed) == ids
    assert packed == ids
    assert packed == BlobIds(b"".join(ids))
    assert len(packed) == len(ids)
    start, stop = data.draw(st.integers(-25, 25)), data.draw(st.integers(-25, 25))
    assert packed[start:stop] == ids[start:stop]
    for position in range(-len(ids), len(ids)):
        assert packed[position] == ids[position]
    with pytest.raises(IndexError):
        packed[len(ids)]
    with pytest.raises(ValueError, match="whole number"):
        BlobIds(b"".join(ids) + b"x")
