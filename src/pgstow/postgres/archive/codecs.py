"""Taking apart what was compressed, piece by piece.

Memory stays flat whatever the bytes expand to: a decoder is never asked for more than ``PIECE_BYTES`` at once.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive.lz4 import Lz4Decoder, Lz4Error

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

__all__ = ["PIECE_BYTES", "Codec", "PieceReader", "codec_of_file", "decompressed"]

PIECE_BYTES = 1 << 20
_XZ_MEMORY_BYTES = 128 << 20  # what "xz -9" needs, and more than enough for it
_GZIP_BITS, _ZLIB_BITS = 31, 15


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Deflate:
    """zlib's decoder, which gzip uses as well, with the attributes of the others."""

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


Codec = str  # gzip | zlib | zstd | lz4 | bzip2 | xz

_DECODERS: Mapping[Codec, Callable[[], _Decoder]] = MappingProxyType(
    {
        "gzip": lambda: _Deflate(_GZIP_BITS),
        "zlib": lambda: _Deflate(_ZLIB_BITS),
        "zstd": ZstdDecompressor,
        "lz4": Lz4Decoder,
        "bzip2": bz2.BZ2Decompressor,
        "xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES),
    }
)
_MAGIC: Mapping[bytes, Codec] = MappingProxyType(
    {
        b"\x1f\x8b": "gzip",
        b"\x28\xb5\x2f\xfd": "zstd",
        b"\x04\x22\x4d\x18": "lz4",
        b"BZh": "bzip2",
        b"\xfd7zXZ\x00": "xz",
    }
)
_ERRORS = (zlib.error, ZstdError, Lz4Error, lzma.LZMAError, OSError, ValueError)


def codec_of_file(head: bytes) -> Codec | None:
    """Return how a file that begins with ``head`` is compressed; None if it is not."""
    return next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)


def decompressed(codec: Codec, pieces: Iterator[bytes], *, what: str) -> Iterator[bytes]:
    """Yield the content in pieces of at most ``PIECE_BYTES``; several frames one after the other are one content.

    Raises ArchiveError, naming ``what``, for bytes that are damaged (their checksums count) or end too early.
    """
    decoder: _Decoder | None = None
    done = frames = 0
    for piece in pieces:
        data = piece
        while True:
            if decoder is None:
                data = data.lstrip(b"\0") if frames else data  # padding of a tape or a block device
                if not data:
                    break
                decoder = _DECODERS[codec]()
            try:
                out = decoder.decompress(data, PIECE_BYTES)
            except _ERRORS as exc:
                raise ArchiveError(
                    f"the {codec} data of {what} is damaged after {done:,} bytes of content: {exc}"
                ) from exc
            done += len(out)
            if out:
                yield out
            if decoder.eof:
                data, decoder, frames = decoder.unused_data, None, frames + 1
            elif decoder.needs_input:
                break
            else:
                data = b""
    if decoder is not None or not frames:
        raise ArchiveError(
            f"{what} is cut off: its {codec} data ends after {done:,} bytes of content",
            hint="copy the dump again, or make a new one",
        )


class PieceReader:
    """Reads an iterator of pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes], *, what: str) -> None:
        self._pieces = pieces
        self._left = b""
        self.what = what
        self.position = 0  # bytes that were handed out

    def read1(self, size: int) -> bytes:
        """Return some bytes, at most ``size``; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        taken, self._left = self._left[:size], self._left[size:]
        self.position += len(taken)
        return taken

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end. For small sizes."""
        taken = [self.read1(size)]
        while taken[-1] and (size := size - len(taken[-1])):
            taken.append(self.read1(size))
        return b"".join(taken)

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them there."""
        while len(self._left) < size and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        return self._left[:size]

    def pieces(self) -> Iterator[bytes]:
        """Yield all that is left."""
        while piece := self.read1(PIECE_BYTES):
            yield piece

    def exactly(self, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes in pieces; ArchiveError if there are fewer."""
        while size:
            piece = self.read1(min(size, PIECE_BYTES))
            if not piece:
                raise ArchiveError(
                    f"{self.what} is cut off after {self.position:,} bytes",
                    hint="copy the dump again, or make a new one",
                )
            size -= len(piece)
            yield piece
