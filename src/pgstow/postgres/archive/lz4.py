"""LZ4 frames, by the library that PostgreSQL's own packages bring along.

Source: lz4frame.h of liblz4 1.8 and newer.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

from pgstow.core.errors import ToolMissing

__all__ = ["Lz4Decoder", "Lz4Error"]

_NAMES = ("liblz4.so.1", "liblz4.1.dylib")
_VERSION = 100  # LZ4F_VERSION


class Lz4Error(Exception):
    """The bytes are no LZ4 frame."""


class Lz4Decoder:
    """Decodes one frame, with the attributes of the standard library's decompressors. Raises ToolMissing, Lz4Error."""

    def __init__(self) -> None:
        self._library = _library()
        self._context = ctypes.c_void_p()
        self._check(self._library.LZ4F_createDecompressionContext(ctypes.byref(self._context), _VERSION))
        self._waiting = b""
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def __del__(self) -> None:
        context = getattr(self, "_context", None)
        if context:
            self._library.LZ4F_freeDecompressionContext(context)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most ``max_length`` bytes of content; call again without data while ``needs_input`` is False."""
        source = self._waiting + data
        out = ctypes.create_string_buffer(max_length)
        written, read = ctypes.c_size_t(max_length), ctypes.c_size_t(len(source))
        left = self._check(
            self._library.LZ4F_decompress(
                self._context, out, ctypes.byref(written), source, ctypes.byref(read), None
            )
        )
        self._waiting = source[read.value :]
        if left == 0:
            self.eof, self.unused_data, self._waiting = True, self._waiting, b""
        self.needs_input = not self._waiting and written.value < max_length
        return ctypes.string_at(out, written.value)

    def _check(self, code: int) -> int:
        if self._library.LZ4F_isError(code):
            raise Lz4Error(self._library.LZ4F_getErrorName(code).decode())
        return code


@cache
def _library() -> ctypes.CDLL:
    for name in (*_NAMES, ctypes.util.find_library("lz4")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None and hasattr(library, "LZ4F_decompress"):
            return _declared(library)
    raise ToolMissing(
        "the dump is compressed with LZ4, and the library liblz4 is not installed",
        hint="install the package liblz4-1 (Debian, Ubuntu) or lz4 (others), or make the dump with another compression",
    )


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    sizes = ctypes.POINTER(size)
    library.LZ4F_isError.argtypes, library.LZ4F_isError.restype = [size], ctypes.c_uint
    library.LZ4F_getErrorName.argtypes, library.LZ4F_getErrorName.restype = [size], ctypes.c_char_p
    library.LZ4F_createDecompressionContext.argtypes = [ctypes.POINTER(pointer), ctypes.c_uint]
    library.LZ4F_createDecompressionContext.restype = size
    library.LZ4F_freeDecompressionContext.argtypes = [pointer]
    library.LZ4F_freeDecompressionContext.restype = size
    library.LZ4F_decompress.argtypes = [pointer, ctypes.c_char_p, sizes, ctypes.c_char_p, sizes, pointer]
    library.LZ4F_decompress.restype = size
    return library
