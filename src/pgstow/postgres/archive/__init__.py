"""pg_dump archives: their table of contents, and archives made from it.

Terms, PostgreSQL's own:

- *entry*: one object of the table of contents (TOC), known by its *dump id*; some entries have data.
- *custom archive*: one file, header + TOC + data blocks (``pg_dump -Fc``).
- *directory archive*: ``toc.dat`` (header + TOC) and one *member* file for the data of each entry (``-Fd``).
- *section*: pre-data, data or post-data.

Strings of an archive are bytes in the archive's own encoding. Archive versions 1.12 to 1.16 (pg_dump 9.0
to 18) are read. An archive is untrusted input: whatever is wrong with it raises ArchiveError.
"""

from __future__ import annotations

from pgstow.postgres.archive.blocks import CustomArchive
from pgstow.postgres.archive.codecs import PIECE_BYTES, PieceReader, codec_of_file, decompressed
from pgstow.postgres.archive.custom import TABLE_DATA_TRAILER, Sink, member_names, write_custom_archive
from pgstow.postgres.archive.drops import drop_only
from pgstow.postgres.archive.entries import (
    copy_columns,
    copy_target,
    copy_target_parts,
    is_load_via_root,
    large_object_ids,
    list_file,
    split_columns,
    unquote,
)
from pgstow.postgres.archive.folders import DirectoryArchive, OpenFile, TarArchive, is_tar
from pgstow.postgres.archive.reading import MAGIC, read_custom_toc, read_directory_toc
from pgstow.postgres.archive.toc import ArchiveHeader, Section, Toc, TocEntry
from pgstow.postgres.archive.writing import write_directory_toc

__all__ = [
    "MAGIC",
    "PIECE_BYTES",
    "TABLE_DATA_TRAILER",
    "ArchiveHeader",
    "CustomArchive",
    "DirectoryArchive",
    "OpenFile",
    "PieceReader",
    "Section",
    "Sink",
    "TarArchive",
    "Toc",
    "TocEntry",
    "codec_of_file",
    "copy_columns",
    "copy_target",
    "copy_target_parts",
    "decompressed",
    "drop_only",
    "is_load_via_root",
    "is_tar",
    "large_object_ids",
    "list_file",
    "member_names",
    "read_custom_toc",
    "read_directory_toc",
    "split_columns",
    "unquote",
    "write_custom_archive",
    "write_directory_toc",
]
