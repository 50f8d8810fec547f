"""Bundles as a folder or a zip file: written at once or not at all, and read as what a stranger may have made."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgstow.core.errors import PgstowError, UsageError
from pgstow.evidence.bundle import is_bundle_name

__all__ = ["Packed", "check_target", "read_bundle", "write_bundle"]

_MOST_FILES = 50_000
_LARGEST_BYTES = 256 << 20  # of one file
_MOST_BYTES = 512 << 20  # of all
_PIECE = 1 << 20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same bundle is the same file, whenever it is packed
_ENCRYPTED = 0x1
_SIZES_LATER = 0x8
_AFTERWARDS = (12, 16, 20, 24)  # bytes that sizes and check sum take after the content, in their four forms
_HEADER_BYTES, _LENGTHS_AT = (
    30,
    26,
)  # of a member: before its name; where the lengths of name and extra field stand
_END_BYTES = 22  # of a zip file, where there is no comment


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a folder or zip file holds. ``strange`` are names that no bundle has, told and not read."""

    files: Mapping[str, bytes]
    strange: tuple[str, ...] = ()


# -- writing


def check_target(target: Path) -> None:
    """UsageError if a bundle cannot be written there because something is there already."""
    if os.path.lexists(target):
        raise UsageError(
            f"{target} is there already", hint="name a folder or file that is not, and look at the old one"
        )


def write_bundle(files: Mapping[str, bytes], target: Path) -> None:
    """Write a bundle to a new folder, or to a new file if the name ends in .zip; durable on return, or not there.

    Raises UsageError when something is there already, PgstowError when it cannot be written.
    """
    check_target(target)
    try:
        if target.suffix.lower() == ".zip":
            _write_zip(files, target)
        else:
            _write_folder(files, target)
        _sync_folder(target.parent)
    except FileExistsError as exc:
        raise UsageError(f"{target} came into being meanwhile", hint="name another") from exc
    except OSError as exc:
        raise PgstowError(
            f"{target} cannot be written: {exc.strerror}", hint="nothing incomplete was left there"
        ) from exc


def _beside(target: Path) -> Path:
    """Return a name in the same folder under which nobody looks for a bundle."""
    return target.parent / f".{target.name}-{secrets.token_hex(8)}"


def _write_zip(files: Mapping[str, bytes], target: Path) -> None:
    temporary = _beside(target)
    with temporary.open("xb") as file:
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in sorted(files):
                    info = zipfile.ZipInfo(name, _LONG_AGO)
                    info.compress_type = zipfile.ZIP_DEFLATED
                    info.external_attr = 0o644 << 16
                    archive.writestr(info, files[name])
            file.flush()
            os.fsync(file.fileno())
            os.link(temporary, target)  # a rename would replace what came into being meanwhile
        finally:
            temporary.unlink()


def _write_folder(files: Mapping[str, bytes], target: Path) -> None:
    temporary = _beside(target)
    temporary.mkdir()
    try:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in {(temporary / name).parent for name in files} | {temporary}:
            _sync_folder(folder)
        if os.path.lexists(target):  # a rename would replace an empty folder
            raise FileExistsError
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # what is left of it has a name that no bundle has
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- reading


def read_bundle(source: Path) -> Packed:
    """Return what a folder or zip file holds, within bounds: nothing is unpacked to a disk, and no link is followed.

    Raises UsageError when there is no bundle, PgstowError when it cannot be read or is out of all proportion.
    """
    try:
        if source.is_dir():
            return _collected(_of_folder(source))
        if source.is_file():
            if source.stat().st_size > _MOST_BYTES:
                raise PgstowError(f"{source} is larger than {_MOST_BYTES >> 20} MiB")
            with zipfile.ZipFile(source) as archive:
                return _collected(itertools.chain(_of_zip(archive), _between(source, archive)))
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        NotImplementedError,
        EOFError,
        UnicodeError,
        struct.error,
    ) as exc:
        raise PgstowError(f"{source} is no zip file that can be read: {exc}") from exc
    except OSError as exc:
        raise PgstowError(f"{source} cannot be read: {exc.strerror or exc}") from exc
    raise UsageError(
        f"{source} is neither a folder nor a file", hint="name the bundle that pgstow evidence report made"
    )


def _collected(found: Iterator[tuple[str, bytes | None]]) -> Packed:
    files: dict[str, bytes] = {}
    strange: list[str] = []
    total = 0
    for count, (name, content) in enumerate(found):
        if count >= _MOST_FILES:
            raise PgstowError(f"it holds more than {_MOST_FILES} files")
        if content is None:
            strange.append(name)
            continue
        if name in files:
            raise PgstowError(f"it holds {name} twice")
        total += len(content)
        if total > _MOST_BYTES:
            raise PgstowError(f"it holds more than {_MOST_BYTES >> 20} MiB")
        files[name] = content
    return Packed(files=files, strange=tuple(sorted(strange)))


def _of_folder(root: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield every file by its name below ``root``, with None where no bundle has such a file."""
    todo = [("", root)]
    while todo:
        prefix, folder = todo.pop()
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False) and name == "drills":
                todo.append((f"{name}/", Path(entry.path)))
            elif is_bundle_name(name) and (content := _regular(Path(entry.path))) is not None:
                yield name, content
            else:
                yield name, None


def _regular(path: Path) -> bytes | None:
    """Return the bytes of a regular file; None for a link, a pipe or anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if path.is_symlink():
            return None
        raise exc from None
    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise PgstowError(f"{path.name} is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


def _of_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes | None]]:
    seen: set[str] = set()
    for info in archive.infolist():
        if info.filename == "drills/":  # some tools write folders, too
            continue
        if info.filename in seen:
            raise PgstowError(f"it holds {info.filename} twice")
        seen.add(info.filename)
        if not is_bundle_name(info.filename) or info.orig_filename != info.filename:
            yield info.orig_filename, None
            continue
        yield info.filename, _member(archive, info)


def _between(source: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, None]]:
    """Yield what a zip file has besides its members: other programs may show it, and nothing covers it.

    Members follow each other from the first byte on, the directory follows them and ends the file.
    """
    nexts = {0}  # where what follows may begin
    with source.open("rb") as file:
        for info in sorted(archive.infolist(), key=lambda each: each.header_offset):
            if info.header_offset not in nexts:
                yield f"bytes before {info.orig_filename}", None
            file.seek(info.header_offset + _LENGTHS_AT)
            name_and_extra = sum(struct.unpack("<HH", file.read(4)))
            end_at = info.header_offset + _HEADER_BYTES + name_and_extra + info.compress_size
            nexts = {end_at + each for each in (_AFTERWARDS if info.flag_bits & _SIZES_LATER else (0,))}
        file.seek(-_END_BYTES, os.SEEK_END)
        end = file.read(_END_BYTES)
    if archive.start_dir not in nexts:
        yield "bytes before the directory", None
    if archive.comment or not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0")):
        yield "bytes at the end", None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a member; what it says of its own size is not trusted."""
    if info.flag_bits & _ENCRYPTED:
        raise PgstowError(f"{info.filename} is encrypted")
    pieces, size = [], 0
    with archive.open(info) as member:
        while piece := member.read(_PIECE):
            size += len(piece)
            if size > _LARGEST_BYTES:
                raise PgstowError(f"{info.filename} is larger than {_LARGEST_BYTES >> 20} MiB")
            pieces.append(piece)
    return b"".join(pieces)
