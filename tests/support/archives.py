"""Archives made up for tests, and folders that stand in for a backup."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pgstow.catalog.manifest import GlobalsRecord, Manifest, ServerRecord, Totals
from pgstow.core.errors import RepositoryDamaged
from pgstow.postgres.archive import ArchiveHeader, Section, Toc, TocEntry, read_directory_toc
from pgstow.repository import FileNode

__all__ = ["VERSIONS", "FolderFiles", "entry", "header", "tocs"]

VERSIONS = ((1, 12, 0), (1, 13, 0), (1, 14, 0), (1, 15, 0), (1, 16, 0))

_NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)


def header(version: tuple[int, int, int] = (1, 16, 0), **changes: Any) -> ArchiveHeader:
    """Return the header of a directory archive."""
    given: dict[str, Any] = {
        "version": version,
        "format": 3,
        "compression": 0,
        "created": (1, 2, 3, 20, 10, 126, 0),
        "dbname": b"shop",
        "server_version": b"18.4",
        "pg_dump_version": b"18.4",
    }
    return ArchiveHeader(**{**given, **changes})


def entry(dump_id: int, desc: bytes = b"TABLE", tag: bytes = b"t", **changes: Any) -> TocEntry:
    """Return an entry of a directory archive; ``changes`` replace what is made up."""
    given: dict[str, Any] = {
        "dump_id": dump_id,
        "has_data": False,
        "catalog_oid": 1259,
        "oid": 16384 + dump_id,
        "tag": tag,
        "desc": desc,
        "section": Section.PRE_DATA,
        "defn": b"CREATE ...;\n",
        "drop_stmt": b"DROP ...;\n",
        "copy_stmt": None,
        "namespace": b"public",
        "tablespace": None,
        "table_am": None,
        "relkind": 0,
        "owner": b"postgres",
        "with_oids": False,
        "dependencies": (),
        "file_name": b"",
    }
    return TocEntry(**{**given, **changes})


def _strings(size: int) -> st.SearchStrategy[bytes]:
    """Return what C can hold as a string."""
    return st.binary(max_size=size).map(lambda text: text.replace(b"\0", b"0"))


_texts = st.none() | _strings(40)
_ids = st.integers(1, 2**31 - 1)
_oids = st.integers(0, 2**32 - 1)


@st.composite
def _entries(draw: st.DrawFn, dump_id: int, version: tuple[int, int, int]) -> TocEntry:
    has_data = draw(st.booleans())
    return entry(
        dump_id,
        desc=draw(st.sampled_from([b"TABLE DATA", b"BLOBS", b"TABLE", b"RULE"]) | _strings(12)),
        tag=draw(_strings(30)),
        has_data=has_data,
        catalog_oid=draw(_oids),
        oid=draw(_oids),
        section=draw(st.sampled_from(Section)),
        defn=draw(_texts),
        drop_stmt=draw(_texts),
        copy_stmt=draw(_texts),
        namespace=draw(_texts),
        tablespace=draw(_texts),
        table_am=draw(_texts) if version >= (1, 14, 0) else None,
        relkind=draw(st.integers(-128, 127)) if version >= (1, 16, 0) else 0,
        owner=draw(_texts),
        with_oids=draw(st.booleans()),
        dependencies=tuple(draw(st.lists(_ids, max_size=4))),
        file_name=draw(_strings(20)),
    )


@st.composite
def tocs(draw: st.DrawFn) -> Toc:
    """Return any TOC that an archive of any version can hold."""
    version = draw(st.sampled_from(VERSIONS))
    ids = draw(st.lists(_ids, max_size=6, unique=True))
    compression = st.integers(0, 3) if version >= (1, 15, 0) else st.integers(-1, 9)
    made = header(
        version,
        compression=draw(compression),
        created=tuple(draw(st.integers(-(2**31) + 1, 2**31 - 1)) for _ in range(7)),
        dbname=draw(_texts),
        server_version=draw(_texts),
        pg_dump_version=draw(_texts),
    )
    return Toc(header=made, entries=tuple(draw(_entries(dump_id, version)) for dump_id in ids))


class FolderFiles:
    """A folder that ``pg_dump -Fd`` made, in the place of a backup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest(self) -> Manifest:
        server = ServerRecord(
            system_identifier="7", version_num=180004, version="18.4", database="shop", database_oid=5,
            encoding="UTF8", collate="C", ctype="C", locale_provider="c", lsn=None, is_standby=False,
            postmaster_start=None, tls=None, host="localhost",
        )  # fmt: skip
        totals = Totals(
            tables=0, rows=0, size_bytes=0, new_blobs=0, new_bytes=0, stored_bytes=0, known_bytes=0
        )
        return Manifest(
            backup_id="3e1f", name="shop", kind="daily", is_partial=False, started=_NOW, snapshot_taken=_NOW,
            finished=_NOW, server=server, tools={}, settings={}, tables=(), globals=GlobalsRecord(is_captured=False),
            totals=totals,
        )  # fmt: skip

    @property
    def toc(self) -> Toc:
        return read_directory_toc(self.read("archive/toc.dat"))

    def _path(self, name: str) -> Path:
        return self.folder / name.removeprefix("archive/")

    def member(self, name: str) -> FileNode | None:
        path = self._path(name)
        if not path.exists():
            return None
        return FileNode(name=path.name, size_bytes=path.stat().st_size, content=(), modified=_NOW)

    def missing(self, name: str) -> str | None:
        return None if self.member(name) else f"no {name}"

    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        return ((len(piece), hashlib.sha256(piece).digest()) for piece in self.stream(name))

    def stream(self, name: str) -> Iterator[bytes]:
        path = self._path(name)
        if not path.exists():
            raise RepositoryDamaged(f"{name} is missing")
        with path.open("rb") as file:
            while piece := file.read(99_991):  # no multiple of any chunk size
                yield piece

    def read(self, name: str) -> bytes:
        return b"".join(self.stream(name))
