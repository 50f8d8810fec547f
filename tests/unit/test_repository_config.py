"""The configuration and its polynomial."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.core.errors import RepositoryDamaged, RepositoryError
from pgstow.repository.config import RepositoryConfig, is_irreducible, random_polynomial


def multiply(first: int, second: int) -> int:
    product = 0
    while second:
        product ^= first if second & 1 else 0
        first, second = first << 1, second >> 1
    return product


def test_irreducible_polynomials_of_small_degree() -> None:
    # Irreducible means: not the product of two smaller ones. All of degree up to 9, by multiplication.
    reducible = {multiply(a, b) for a in range(2, 512) for b in range(2, 512)}
    for polynomial in range(2, 1024):
        assert is_irreducible(polynomial) == (polynomial not in reducible), bin(polynomial)


def test_the_polynomial_of_restic_s_documentation() -> None:
    assert is_irreducible(0x3DA3358B4DC173)
    assert not is_irreducible(0x3DA3358B4DC173 ^ 1)


@given(st.integers(2, 1 << 27), st.integers(2, 1 << 27))
def test_products_are_reducible(first: int, second: int) -> None:
    assert not is_irreducible(multiply(first, second))


def test_new_polynomials_are_random_and_of_degree_53() -> None:
    made = {random_polynomial() for _ in range(20)}
    assert len(made) == 20
    assert all(polynomial.bit_length() == 54 and is_irreducible(polynomial) for polynomial in made)


def test_round_trip() -> None:
    config = RepositoryConfig.generate(random_polynomial())
    assert RepositoryConfig.decode(config.encode()) == config
    fields = json.loads(config.encode())
    assert list(fields) == ["version", "id", "chunker_polynomial"]
    assert fields["version"] == 2
    assert len(bytes.fromhex(fields["id"])) == 32


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"nonsense", b'{"version":2,"id":"x","chunker_polynomial":"no"}'],
)
def test_anything_else_is_damage(data: bytes) -> None:
    with pytest.raises(RepositoryDamaged):
        RepositoryConfig.decode(data)


def test_a_reducible_polynomial_is_refused() -> None:
    with pytest.raises(RepositoryDamaged, match="reducible"):
        RepositoryConfig.decode(RepositoryConfig(id="x", chunker_polynomial=1 << 53).encode())


@pytest.mark.parametrize(("version", "remedy"), [(1, "upgrade_repo_v2"), (3, "newer pgstow")])
def test_other_formats_are_refused(version: int, remedy: str) -> None:
    data = (
        RepositoryConfig.generate(random_polynomial())
        .encode()
        .replace(b'"version":2', b'"version":%d' % version)
    )
    with pytest.raises(RepositoryError, match=f"format {version}") as caught:
        RepositoryConfig.decode(data)
    assert remedy in (caught.value.hint or "")
