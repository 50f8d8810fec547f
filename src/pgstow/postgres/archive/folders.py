"""Reading directory archives, also those that stand in a tar file, made by ``pg_dump -Ft`` or by tar.

Nothing in an archive is taken for a path: a member is known by the few names that pg_dump gives.

Source: PostgreSQL pg_backup_directory.c, pg_backup_tar.c; POSIX.1-1988 ustar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.codecs import PieceReader, decompressed
from pgstow.postgres.archive.custom import blob_lines
from pgstow.postgres.archive.reading import read_directory_toc
from pgstow.postgres.archive.toc import Toc

__all__ = ["DirectoryArchive", "OpenFile", "TarArchive", "is_tar"]

OpenFile = Callable[[str], Iterator[bytes] | None]  # None: there is no such file

_SUFFIXES = ("", ".gz", ".zst", ".lz4")
_MEMBER = re.compile(
    r"([0-9]+\.dat|blobs(?:_[0-9]+)?\.toc|blob_[0-9]+\.dat|toc\.dat|restore\.sql)(\.gz|\.zst|\.lz4)?"
)
_LISTED = re.compile(r"[0-9]+\.dat|blobs(?:_[0-9]+)?\.toc")
_CODECS = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}
_MAX_TOC_BYTES = 1 << 30
_BLOCK_BYTES = 512
_FILES, _FOLDER = (b"0", b"\0"), b"5"
_TAR_MAGIC = b"ustar"
_NAME_A_DUMP = (
    "name the file or folder that pg_dump wrote; a folder of several dumps has to be taken one by one"
)


class DirectoryArchive:
    """A directory archive whose files ``open_file`` gives, by name. Raises ArchiveError."""

    format = "directory"

    def __init__(self, open_file: OpenFile) -> None:
        self._open = open_file
        self.compression: str | None = None
        data = open_file("toc.dat")
        if data is None:
            raise ArchiveError(
                "the folder holds no toc.dat, so it is no dump of pg_dump -Fd", hint=_NAME_A_DUMP
            )
        self._toc = read_directory_toc(whole(data, "toc.dat"))
        self.toc: Toc = self._toc.as_directory()

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the data of every entry by its name, and every large object as ``blob_OID.dat``."""
        for entry, canonical in zip(self._toc.entries, self.toc.entries, strict=True):
            if not entry.has_data:
                continue
            name = (entry.file_name or b"").decode("ascii", "backslashreplace")
            if not _LISTED.fullmatch(name):
                raise ArchiveError(f"{entry} has data but its member is called {name!r}")
            if entry.desc != b"BLOBS":
                yield (canonical.file_name or b"").decode(), self._member(name)
                continue
            for oid, blob in blob_lines(whole(self._member(name), name), name):
                yield f"blob_{oid}.dat", self._member(blob)

    def _member(self, name: str) -> Iterator[bytes]:
        for suffix in _SUFFIXES:
            pieces = self._open(name + suffix)
            if pieces is not None:
                if not suffix:
                    return pieces
                self.compression = _CODECS[suffix]
                return decompressed(_CODECS[suffix], pieces, what=name + suffix)
        raise ArchiveError(
            f"{name} is missing from the dump", hint="copy the whole folder again, or make a new dump"
        )


class TarArchive:
    """A directory archive in a tar file, in whatever order its files come. Raises ArchiveError.

    ``toc`` is known once ``members()`` has come to its end.
    """

    format = "tar"

    def __init__(self, stream: PieceReader) -> None:
        self._stream = stream
        self._raw_toc: Toc | None = None
        self.compression: str | None = None

    @property
    def toc(self) -> Toc:
        if self._raw_toc is None:
            raise ArchiveError(
                "the tar file holds no toc.dat, so it is no dump of pg_dump", hint=_NAME_A_DUMP
            )
        return self._raw_toc.as_directory()

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the data of every entry by its name, and every large object as ``blob_OID.dat``."""
        seen: set[str] = set()
        for path, pieces in tar_files(self._stream):
            match = _MEMBER.fullmatch(path.rpartition("/")[2])
            if match is None:
                raise ArchiveError(f"the tar file holds {path!r}, which pg_dump puts into no dump")
            name, suffix = match[1], match[2]
            if name in seen:
                raise ArchiveError(f"the tar file holds {name} twice")
            seen.add(name)
            if suffix:
                self.compression = _CODECS[suffix]
                pieces = decompressed(_CODECS[suffix], pieces, what=match[0])  # noqa: PLW2901
            if name == "toc.dat":
                self._raw_toc = read_directory_toc(whole(pieces, name))
            elif name == "restore.sql" or name.endswith(".toc"):  # the script for psql; lists say nothing new
                for _ in pieces:
                    pass
            else:
                yield name, pieces


def whole(pieces: Iterator[bytes], name: str) -> bytes:
    """Return a small file whole; ArchiveError if it is too long to be one."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > _MAX_TOC_BYTES:
            raise ArchiveError(f"{name} is longer than any that pg_dump makes")
    return b"".join(taken)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with ``head``, of 512 bytes at least, is a tar file."""
    return head[257:262] == _TAR_MAGIC


def tar_files(stream: PieceReader) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield name and content of each file in a tar file; what is left unread of one is skipped.

    Links, devices and extended headers raise ArchiveError: neither pg_dump nor tar, of pg_dump's names, makes any.
    """
    while any(header := b"".join(stream.exactly(_BLOCK_BYTES))):
        _check_header(header, stream)
        name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
        size = _number(header[124:136], stream)
        kind = header[156:157]
        if kind not in (*_FILES, _FOLDER):
            raise ArchiveError(f"the tar file holds {name!r}, which is neither a file nor a folder")
        content = stream.exactly(size)
        if kind != _FOLDER:
            yield name, content
        for _ in content:
            pass
        for _ in stream.exactly(-size % _BLOCK_BYTES):
            pass


def _check_header(header: bytes, stream: PieceReader) -> None:
    expected = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _number(header[148:156], stream) != expected or not is_tar(header):
        raise ArchiveError(
            f"the tar file is damaged before byte {stream.position:,}: that is no header of a file"
        )


def _number(field: bytes, stream: PieceReader) -> int:
    """Return a number in octal digits, or in binary where the first bit is set (GNU tar, pg_dump above 8 GiB)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ArchiveError(
            f"the tar file is damaged before byte {stream.position:,}: {digits!r} is no number"
        )
    return int(digits or b"0", 8)
