"""Trees: the folders of a snapshot, as canonical JSON.

A tree is ``{"nodes":[...]}`` and a newline. Equal folders must be equal bytes, and restic's ``rewrite``
refuses a tree it would have written otherwise: fields in the order of restic's Node, zero values left
out where Go leaves them out, names quoted by strconv.Quote and strictly ascending by their bytes.
Source: restic internal/data/node.go, internal/data/tree.go.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgstow.repository import gojson
from pgstow.repository.ids import ID_BYTES, BlobId, BlobIds

__all__ = [
    "DirNode",
    "FileNode",
    "Node",
    "OtherNode",
    "TreeError",
    "decode_tree",
    "encode_tree",
    "is_canonical",
    "without_nodes",
]

_FILE_MODE = 0o600
_DIR_MODE = 0x80000000 | 0o700  # Go marks a directory with bit 31


class TreeError(Exception):
    """The bytes are no tree. Callers say which blob they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNode:
    """A file: its bytes are the blobs of ``content`` one after the other."""

    name: str
    size_bytes: int
    content: Sequence[BlobId]
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DirNode:
    """A folder, whose nodes are in the tree ``subtree``."""

    name: str
    subtree: BlobId
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherNode:
    """A symlink, device, socket or whatever else restic saved; pgstow makes none."""

    name: str
    kind: str
    modified: datetime


Node = FileNode | DirNode | OtherNode


def encode_tree(nodes: Iterable[FileNode | DirNode]) -> bytes:
    """Return the canonical JSON of a folder; ValueError for names no folder can hold, or hold together."""
    out = bytearray(b'{"nodes":[')
    for position, node in enumerate(_sorted(nodes)):
        out += b"," if position else b""
        _append_node(out, node)
    out += b"]}\n"
    return bytes(out)


def _sorted(nodes: Iterable[FileNode | DirNode]) -> list[FileNode | DirNode]:
    by_name: dict[bytes, FileNode | DirNode] = {}
    for node in nodes:
        name = _name_bytes(node.name)
        if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
            raise ValueError(f"{node.name!r} cannot be a file name")
        if name in by_name:
            raise ValueError(f"two nodes are named {node.name!r}")
        by_name[name] = node
    return [by_name[name] for name in sorted(by_name)]


def _name_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _append_node(out: bytearray, node: FileNode | DirNode) -> None:
    moment = gojson.format_time(node.modified)
    is_file = isinstance(node, FileNode)
    fields: dict[str, Any] = {
        "name": gojson.quote(node.name),
        "type": "file" if is_file else "dir",
        "mode": _FILE_MODE if is_file else _DIR_MODE,
        "mtime": moment,
        "atime": moment,
        "ctime": moment,
        "uid": 0,
        "gid": 0,
    }
    if isinstance(node, FileNode) and node.size_bytes:
        fields["size"] = node.size_bytes
    out += gojson.dumps(fields)[:-1]
    if isinstance(node, DirNode):
        out += b',"content":null,"subtree":"%s"}' % node.subtree.hex().encode()
    else:
        out += b',"content":['
        _append_ids(out, BlobIds.of(node.content))
        out += b"]}"


_IDS_AT_ONCE = 4096
_ID_STEP = len('"",') + 2 * ID_BYTES


def _append_ids(out: bytearray, ids: BlobIds) -> None:
    packed = memoryview(ids.packed)
    for start in range(0, len(packed), _IDS_AT_ONCE * ID_BYTES):
        out += b"," if start else b""
        out += _quote_ids(packed[start : start + _IDS_AT_ONCE * ID_BYTES])


def _quote_ids(packed: memoryview) -> bytes:
    return b'"%s"' % packed.hex(",", ID_BYTES).replace(",", '","').encode()


def decode_tree(data: bytes) -> list[Node]:
    """Return the nodes of a tree, whoever wrote it; TreeError if it is none."""
    return [_node(fields) for fields in _parse(data)]


def _node(fields: dict[str, Any]) -> Node:
    try:
        name = gojson.unquote(fields["name"])
        modified = gojson.parse_time(fields["mtime"])
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise ValueError(f"{name!r} cannot be a file name")
        match fields["type"]:
            case "file":
                content = fields["content"]
                ids = content if isinstance(content, BlobIds) else BlobIds.of(map(_id, content or ()))
                return FileNode(
                    name=name, size_bytes=int(fields.get("size", 0)), content=ids, modified=modified
                )
            case "dir":
                return DirNode(name=name, subtree=_id(fields["subtree"]), modified=modified)
            case kind:
                return OtherNode(name=name, kind=str(kind), modified=modified)
    except (ValueError, KeyError, TypeError) as exc:
        raise TreeError(f"a node is malformed: {exc}") from exc


def _id(text: str) -> BlobId:
    decoded = bytes.fromhex(text)
    if len(decoded) != ID_BYTES:
        raise ValueError(f"{text!r} is not an id")
    return decoded


_CONTENT = b'"content":['


def _parse(data: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a tree's nodes; a list of ids becomes BlobIds without passing through JSON.

    A million ids as JSON strings would take 200 MB. The bytes ``"content":[`` cannot stand inside a JSON
    string, where each quote has a backslash before it.
    """
    lists: list[BlobIds] = []
    parts: list[bytes] = []
    position = 0
    while (start := data.find(_CONTENT, position)) >= 0:
        start += len(_CONTENT)
        end = data.find(b"]", start)
        ids = _read_ids(data, start, end)
        if ids is None:
            parts.append(data[position:start])
            position = start
        else:
            parts += (data[position : start - 1], b"%d" % len(lists))
            lists.append(ids)
            position = end + 1
    parts.append(data[position:])
    try:
        tree = json.loads(b"".join(parts))
        nodes = tree["nodes"]
        for node in nodes:
            if isinstance(node.get("content"), int):
                node["content"] = lists[node["content"]]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as exc:
        raise TreeError(f"not a tree: {exc}") from exc
    return nodes  # type: ignore[no-any-return]  # each is a dict: it had .get()


def _read_ids(data: bytes, start: int, end: int) -> BlobIds | None:
    """Return the ids between two positions, or None if they are not written exactly as restic does."""
    if start == end:
        return BlobIds()
    if end < 0 or (end - start + 1) % _ID_STEP:
        return None
    packed = bytearray()
    step = _IDS_AT_ONCE * _ID_STEP
    for chunk_start in range(start, end, step):
        chunk = data[chunk_start : min(chunk_start + step - 1, end)]
        try:
            part = bytes.fromhex(chunk.replace(b'"', b"").replace(b",", b"").decode("ascii"))
        except ValueError:
            return None
        if len(part) % ID_BYTES or _quote_ids(memoryview(part)) != chunk:
            return None
        packed += part
    return BlobIds(packed)


# Field order and "leave out when zero" of restic's Node.
_FIELDS = {
    "name": False,
    "type": False,
    "mode": True,
    "mtime": False,
    "atime": False,
    "ctime": False,
    "uid": False,
    "gid": False,
    "user": True,
    "group": True,
    "inode": True,
    "device_id": True,
    "size": True,
    "links": True,
    "linktarget": True,
    "linktarget_raw": True,
    "extended_attributes": True,
    "generic_attributes": True,
    "device": True,
    "content": False,
    "subtree": True,
    "error": True,
}
_NUMBERS = ("mode", "uid", "gid", "inode", "device_id", "size", "links", "device")
_ID = re.compile("[0-9a-f]{64}")


def is_canonical(data: bytes) -> bool:
    """Whether restic would write this tree with exactly these bytes; TreeError if it is none."""
    nodes = _parse(data)
    names = [_name_bytes(gojson.unquote(_text(node, "name"))) for node in nodes]
    if any(first >= second for first, second in itertools.pairwise(names)):
        return False
    out = bytearray(b'{"nodes":[')
    for position, node in enumerate(nodes):
        if not _has_canonical_values(node):
            return False
        out += b"," if position else b""
        _append_fields(out, node)
    out += b"]}\n"
    return out == data


def without_nodes(
    data: bytes, *, drop: Collection[str], replace: Mapping[str, BlobId], add: Iterable[DirNode] = ()
) -> bytes:
    """Return a tree without the nodes of some names, with other subfolders under others, and with folders added.

    Everything else that restic or pgstow wrote about the nodes stays. TreeError unless ``data`` is as restic writes it.
    """
    if not is_canonical(data):
        raise TreeError("the tree is not encoded as restic does")
    kept: list[tuple[bytes, bytes]] = []
    for node in _parse(data):
        name = gojson.unquote(_text(node, "name"))
        if name in drop:
            continue
        if name in replace:
            node["subtree"] = replace[name].hex()
        encoded = bytearray()
        _append_fields(encoded, node)
        kept.append((_name_bytes(name), bytes(encoded)))
    for folder in add:
        encoded = bytearray()
        _append_node(encoded, folder)
        kept.append((_name_bytes(folder.name), bytes(encoded)))
    kept.sort()
    return b'{"nodes":[%s]}\n' % b",".join(encoded for _, encoded in kept)


def _text(node: dict[str, Any], field: str) -> str:
    value = node.get(field)
    if not isinstance(value, str):
        raise TreeError(f"a node has no {field}")
    return value


def _has_canonical_values(node: dict[str, Any]) -> bool:
    """Whether values that have several spellings in JSON have Go's."""
    return (
        gojson.quoting_is_canonical(_text(node, "name"))
        and all(gojson.is_canonical_time(_text(node, field)) for field in ("mtime", "atime", "ctime"))
        and all(type(node.get(field, 0)) is int and node.get(field, 0) >= 0 for field in _NUMBERS)
        and isinstance(node.get("content"), BlobIds | None)
        and ("subtree" not in node or bool(_ID.fullmatch(_text(node, "subtree"))))
    )


def _append_fields(out: bytearray, node: dict[str, Any]) -> None:
    separator = b"{"
    for field, leave_out_zero in _FIELDS.items():
        value = node.get(field)
        if leave_out_zero and not value:
            continue
        out += b'%s"%s":' % (separator, field.encode())
        separator = b","
        if isinstance(value, BlobIds):
            out += b"["
            _append_ids(out, value)
            out += b"]"
        else:
            out += gojson.dumps(value)
    out += b"}"
