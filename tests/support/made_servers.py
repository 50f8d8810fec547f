"""Servers of tests that are copies of one that initdb made: a tenth of the work, and each with an identity of its own.

All processes of one test run share the originals. Servers with a port are made by initdb each, as it sets their
password; so are all in the tests that are about making servers (``with_initdb``).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

from pgstow.postgres.server import Cluster

__all__ = ["OriginalServers", "copy_servers", "with_initdb"]

_VARIABLE = "ORIGINAL_TEST_SERVERS"  # where the originals are
_IDENTIFIER_BYTES = 8
_PLACE_IN_CONTROL = 0  # of the system identifier; source: ControlFileData in src/include/catalog/pg_control.h
_PLACE_IN_WAL = 24  # source: XLogLongPageHeaderData in src/include/access/xlog_internal.h
_CRC_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected

_initdb: Callable[[Cluster], None] = Cluster._initdb


class OriginalServers:
    """The folder of the originals, for as long as the process lives that was started by hand."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgstow-tests-"))
        self._folder.chmod(0o711)
        os.environ[_VARIABLE] = str(self._folder)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def copy_servers() -> None:
    """Let servers of this process be copies from now on."""
    patch.object(Cluster, "_initdb", _copy).start()


@contextmanager
def with_initdb() -> Iterator[None]:
    """Make servers as the product makes them."""
    with patch.object(Cluster, "_initdb", _initdb):
        yield


def _copy(self: Cluster) -> None:
    if self.tcp is not None:
        _initdb(self)
        return
    key = repr((str(self.binaries.bin_dir), self.version, self._initdb_options, self._owner))
    original = Path(os.environ[_VARIABLE]) / sha256(key.encode()).hexdigest()[:16]
    with original.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not original.exists():
            _initdb(self)
            unfinished = original.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)  # of who could not copy it to its end
            _copy_folder(self.data_dir, unfinished)
            unfinished.rename(original)
            return
    _copy_folder(original, self.data_dir)
    _give_identity(self.data_dir)


def _copy_folder(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


def _give_identity(data_dir: Path) -> None:
    """Write another system identifier wherever the server looks for it."""
    identifier = (int(time.time()) << 32 | secrets.randbits(32)).to_bytes(_IDENTIFIER_BYTES, "little")
    control = data_dir / "global" / "pg_control"
    content = bytearray(control.read_bytes())
    end = _checked_end(content)
    content[_PLACE_IN_CONTROL : _PLACE_IN_CONTROL + _IDENTIFIER_BYTES] = identifier
    content[end : end + 4] = _crc(content[:end]).to_bytes(4, "little")
    _overwrite(control, 0, bytes(content))
    for segment in data_dir.glob("pg_wal/" + "[0-9A-F]" * 24):
        _overwrite(segment, _PLACE_IN_WAL, identifier)


def _checked_end(control: bytes | bytearray) -> int:
    """Return where the checksum of pg_control stands, right behind what it covers: releases differ in that."""
    crc = 0xFFFFFFFF
    for place in range(0, 512, 4):
        if place and (crc ^ 0xFFFFFFFF).to_bytes(4, "little") == control[place : place + 4]:
            return place
        crc = _continued(crc, control[place : place + 4])
    raise AssertionError("pg_control has no checksum where one is expected")


def _crc(data: bytes | bytearray) -> int:
    return _continued(0xFFFFFFFF, data) ^ 0xFFFFFFFF


def _continued(crc: int, data: bytes | bytearray) -> int:
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
    return crc


def _overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
