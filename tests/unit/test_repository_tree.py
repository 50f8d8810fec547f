"""Trees: exact bytes, round trips, and what is not canonical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.repository import (
    DirNode,
    FileNode,
    Node,
    OtherNode,
    TreeError,
    decode_tree,
    encode_tree,
    is_canonical,
)
from support.repositories import MOMENT, NASTY_NAMES

BLOB = bytes(range(32))
FILE = FileNode(name="3456.dat", size_bytes=5, content=[BLOB, BLOB[::-1]], modified=MOMENT)
FOLDER = DirNode(name="archive", subtree=BLOB, modified=MOMENT)

NAMES = (
    st.text(min_size=1)
    .filter(lambda name: name not in (".", "..") and not set("/\0") & set(name))
    .map(lambda name: name.encode("utf-8", "replace").decode())
)
IDS = st.binary(min_size=32, max_size=32)
TIMES = st.datetimes(timezones=st.just(UTC))
FILES = st.builds(
    FileNode,
    name=NAMES,
    size_bytes=st.integers(0, 1 << 63),
    content=st.lists(IDS, max_size=5),
    modified=TIMES,
)
FOLDERS = st.builds(DirNode, name=NAMES, subtree=IDS, modified=TIMES)
NODES = st.lists(FILES | FOLDERS, max_size=6, unique_by=lambda node: node.name)


def test_the_bytes_are_restic_s() -> None:
    assert encode_tree([FILE, replace(FILE, name="empty", size_bytes=0, content=[]), FOLDER]).decode() == (
        '{"nodes":[{"name":"3456.dat","type":"file","mode":384,"mtime":"2026-11-20T02:00:00.12Z",'
        '"atime":"2026-11-20T02:00:00.12Z","ctime":"2026-11-20T02:00:00.12Z","uid":0,"gid":0,"size":5,'
        f'"content":["{BLOB.hex()}","{BLOB[::-1].hex()}"]}},'
        '{"name":"archive","type":"dir","mode":2147484096,"mtime":"2026-11-20T02:00:00.12Z",'
        '"atime":"2026-11-20T02:00:00.12Z","ctime":"2026-11-20T02:00:00.12Z","uid":0,"gid":0,'
        f'"content":null,"subtree":"{BLOB.hex()}"}},'
        '{"name":"empty","type":"file","mode":384,"mtime":"2026-11-20T02:00:00.12Z",'
        '"atime":"2026-11-20T02:00:00.12Z","ctime":"2026-11-20T02:00:00.12Z","uid":0,"gid":0,"content":[]}'
        "]}\n"
    )


def test_an_empty_folder() -> None:
    assert encode_tree([]) == b'{"nodes":[]}\n'
    assert decode_tree(b'{"nodes":[]}\n') == []
    assert is_canonical(b'{"nodes":[]}\n')


@given(NODES)
def test_round_trip_whatever_the_names(nodes: list[FileNode | DirNode]) -> None:
    data = encode_tree(nodes)
    assert decode_tree(data) == sorted(nodes, key=lambda node: node.name.encode())
    assert is_canonical(data)
    assert encode_tree(reversed(nodes)) == data


def test_hostile_names_come_back() -> None:
    data = encode_tree([replace(FILE, name=name) for name in NASTY_NAMES])
    assert b"\n" not in data[:-1]
    assert {node.name for node in decode_tree(data)} == set(NASTY_NAMES)


def test_names_are_ordered_by_their_bytes() -> None:
    names = ["b", "B", "\U0001f600", "\uffee", "é", "a\x7f", "aa", "a"]
    decoded = [node.name for node in decode_tree(encode_tree([replace(FILE, name=name) for name in names]))]
    assert decoded == ["B", "a", "aa", "a\x7f", "b", "é", "\uffee", "\U0001f600"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "/"])
def test_names_no_folder_can_hold(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        encode_tree([replace(FILE, name=name)])


def test_two_nodes_of_one_name() -> None:
    with pytest.raises(ValueError, match="two nodes"):
        encode_tree([FILE, replace(FOLDER, name=FILE.name)])


def test_a_long_file_round_trip() -> None:
    content = [number.to_bytes(32, "big") for number in range(20_000)]
    data = encode_tree([replace(FILE, content=content)])
    (node,) = decode_tree(data)
    assert isinstance(node, FileNode)
    assert node.content == content
    assert is_canonical(data)


@pytest.mark.parametrize(
    "mutate",
    [
        lambda text: text.replace('"nodes":[', '"nodes": ['),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace('"uid":0,"gid":0', '"gid":0,"uid":0'),
        lambda text: text.replace('"uid":0', '"uid":0.0'),
        lambda text: text.replace('"uid":0,', ""),
        lambda text: text.replace(".12Z", ".120Z", 1),
        lambda text: text.replace("00.12Z", "00.12+00:00", 1),
        lambda text: text.replace('"size":5,', '"size":5,"links":0,'),
        lambda text: text.replace('"size":5,', '"size":5,"unknown":1,'),
        lambda text: text.replace("3456.dat", "z.dat"),
        lambda text: text.replace("3456.dat", r"\u0033456.dat"),
        lambda text: text.replace("3456.dat", r"3\\x34"),
        lambda text: text.replace("3456.dat", "<"),
        lambda text: text.replace(BLOB.hex(), BLOB.hex().upper()),
        lambda text: text.replace(f'"{BLOB.hex()}",', f'"{BLOB.hex()}", '),
        lambda text: text.replace('"mode":384', '"mode":-1'),
    ],
)
def test_what_restic_would_write_otherwise_is_not_canonical(mutate: Callable[[str], str]) -> None:
    text = encode_tree([FILE, FOLDER]).decode()
    mutated = mutate(text)
    assert mutated != text
    assert not is_canonical(mutated.encode())


def test_nodes_of_restic_with_all_their_fields() -> None:
    text = (
        '{"nodes":[{"name":"link","type":"symlink","mode":134218239,"mtime":"2026-11-20T02:00:00.123456789+01:00",'
        '"atime":"2026-11-20T02:00:00Z","ctime":"2026-11-20T02:00:00Z","uid":1000,"gid":1000,"user":"tom","group":"tom",'
        '"inode":12,"device_id":99,"links":1,"linktarget":"a\\u003cb","extended_attributes":[{"name":"user.x","value":"eA=="}],'
        '"content":null}]}\n'
    )
    assert is_canonical(text.encode())
    (node,) = decode_tree(text.encode())
    assert node == OtherNode(
        name="link", kind="symlink", modified=datetime(2026, 11, 20, 1, 0, 0, 123456, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"nodes":[null]}',
        b'{"nodes":[1]}',
        b'{"nodes":{"a":1}}',
        b'{"nodes":[{"name":"x"}]}',
        b'{"nodes":[{"name":"x","type":"file","mtime":"never","content":[]}]}',
        b'{"nodes":[{"name":"a/b","type":"file","mtime":"2026-11-20T02:00:00Z","content":[]}]}',
        b'{"nodes":[{"name":"..","type":"file","mtime":"2026-11-20T02:00:00Z","content":[]}]}',
        b'{"nodes":[{"name":"x","type":"file","mtime":"2026-11-20T02:00:00Z","content":["ab"]}]}',
        b'{"nodes":[{"name":"x","type":"file","mtime":"2026-11-20T02:00:00Z","content":7}]}',
        b'{"nodes":[{"name":"x","type":"file","mtime":"2026-11-20T02:00:00Z","content":-1}]}',
        b'{"nodes":[{"name":"x","type":"dir","mtime":"2026-11-20T02:00:00Z","content":null}]}',
        b'{"nodes":[{"name":"x","type":"file","mtime":"2026-11-20T02:00:00Z","content":[',
    ],
)
def test_what_is_no_tree(data: bytes) -> None:
    with pytest.raises(TreeError):
        decode_tree(data)


@given(st.data())
def test_mutated_trees_raise_only_our_error(data: st.DataObject) -> None:
    tree = bytearray(encode_tree([FILE, FOLDER]))
    for _ in range(data.draw(st.integers(1, 3))):
        tree[data.draw(st.integers(0, len(tree) - 1))] = data.draw(st.integers(0, 255))
    nodes: list[Node] = []
    try:
        nodes = decode_tree(bytes(tree))
        is_canonical(bytes(tree))
    except TreeError:
        pass
    assert len(nodes) <= 2
