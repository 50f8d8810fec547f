"""Sealed bytes: what goes in comes out, and no flipped bit passes."""

from __future__ import annotations

import contextlib
import os

import pytest
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given
from hypothesis import strategies as st

from pgstow.repository.compression import CompressionError, compress, decompress, decompress_exactly
from pgstow.repository.crypto import SEAL_BYTES, MasterKey

KEY = MasterKey(bytes(range(64)))


@given(st.binary(max_size=2000))
def test_open_gives_back_what_was_sealed(plain: bytes) -> None:
    sealed = KEY.seal(plain)
    assert len(sealed) == len(plain) + SEAL_BYTES
    assert KEY.open(sealed) == plain


@given(st.binary(max_size=300), st.data())
def test_every_flipped_bit_is_noticed(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert KEY.open(sealed) is None


def test_every_single_bit_of_one_message() -> None:
    sealed = KEY.seal(b"1\tone\n2\ttwo\n")
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        assert KEY.open(flipped) is None, bit


@given(st.binary(max_size=100), st.data())
def test_truncated_and_extended_messages_are_noticed(plain: bytes, data: st.DataObject) -> None:
    sealed = KEY.seal(plain)
    assert KEY.open(sealed[: data.draw(st.integers(0, len(sealed) - 1))]) is None
    assert KEY.open(sealed + b"\0") is None


def test_another_key_opens_nothing() -> None:
    assert MasterKey.generate().open(KEY.seal(b"secret")) is None


def test_equal_plaintexts_are_sealed_differently() -> None:
    assert len({KEY.seal(b"the same") for _ in range(100)}) == 100


def test_the_mac_is_poly1305_aes() -> None:
    # The first example of Bernstein, "The Poly1305-AES message-authentication code", appendix B.
    r = bytes.fromhex("851fc40c3467ac0be05cc20404f3f700")
    k = bytes.fromhex("ec074c835580741701425b623235add6")
    nonce = bytes.fromhex("fb447350c4e868c52ac3275cf9d4327e")
    one_time = MasterKey(bytes(32) + k + r)._mac_key(nonce)
    assert Poly1305.generate_tag(one_time, bytes.fromhex("f3f6")).hex() == "f4c633c3044fc145f84f335cb81953de"


def test_keys_do_not_print_themselves() -> None:
    assert repr(KEY) == "MasterKey(...)"
    with pytest.raises(ValueError, match="64 bytes"):
        MasterKey(b"short")


@given(st.binary(max_size=5000))
def test_compression_round_trip(data: bytes) -> None:
    assert decompress_exactly(compress(data), len(data)) == data


@given(st.binary(min_size=1, max_size=500), st.data())
def test_damaged_frames_raise_only_our_error(data: bytes, draw: st.DataObject) -> None:
    frame = bytearray(compress(data))
    position = draw.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(CompressionError):
        decompress(bytes(frame), limit_bytes=1 << 20)


def test_frames_of_another_length_are_refused() -> None:
    frame = compress(bytes(1 << 20))
    for expected in ((1 << 20) - 1, (1 << 20) + 1, 0):
        with pytest.raises(CompressionError):
            decompress_exactly(frame, expected)
    with pytest.raises(CompressionError, match="longer"):
        decompress(frame, limit_bytes=1000)
    with pytest.raises(CompressionError, match="ends early"):
        decompress(frame[:-1], limit_bytes=1 << 21)
    with pytest.raises(CompressionError, match="follow"):
        decompress(frame + b"x", limit_bytes=1 << 21)


def test_a_bomb_does_not_fill_memory() -> None:
    bomb = compress(bytes(256 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(CompressionError, match="longer"):
        decompress(bomb, limit_bytes=1000)


def test_memoryviews_are_sealed_in_place() -> None:
    plain = os.urandom(1000)
    buffer = bytearray(3000)
    KEY.seal_into(memoryview(plain), memoryview(buffer)[100 : 100 + 1000 + SEAL_BYTES])
    assert buffer[:100] == bytes(100)
    assert buffer[1132:] == bytes(3000 - 1132)
    assert KEY.open(memoryview(buffer)[100:1132]) == plain
