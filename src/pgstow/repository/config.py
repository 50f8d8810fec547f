"""The repository's configuration: format version, id and chunker polynomial.

The polynomial decides where restic cuts files, and restic refuses a reducible one. pgstow cuts by table
pages and only has to provide it.
Source: restic doc/design.rst, "Repository Format"; github.com/restic/chunker polynomials.go.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from pgstow.core.errors import RepositoryDamaged, RepositoryError
from pgstow.repository import gojson

__all__ = ["RepositoryConfig", "is_irreducible", "random_polynomial"]

_VERSION = 2
_DEGREE = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    """What the file ``config`` says once decrypted."""

    id: str
    chunker_polynomial: int

    @classmethod
    def generate(cls, chunker_polynomial: int) -> RepositoryConfig:
        """Return the configuration of a new repository."""
        return cls(id=secrets.token_hex(32), chunker_polynomial=chunker_polynomial)

    def encode(self) -> bytes:
        """Return the JSON that is sealed, uncompressed, into ``config``."""
        return gojson.dumps(
            {"version": _VERSION, "id": self.id, "chunker_polynomial": f"{self.chunker_polynomial:x}"}
        )

    @classmethod
    def decode(cls, data: bytes) -> RepositoryConfig:
        """Return the configuration in ``data``; RepositoryError for format 1, RepositoryDamaged if it is none."""
        try:
            fields = json.loads(data)
            version, repository_id, polynomial = (
                int(fields["version"]),
                str(fields["id"]),
                int(fields["chunker_polynomial"], 16),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise RepositoryDamaged("the repository's config is not readable JSON") from exc
        if version != _VERSION:
            raise RepositoryError(
                f"repository has format {version}, pgstow needs format {_VERSION}",
                hint="restic migrate upgrade_repo_v2 upgrades a repository of format 1"
                if version < _VERSION
                else "a newer program made it; see whether a newer pgstow knows that format",
            )
        if not is_irreducible(polynomial):
            raise RepositoryDamaged("the repository's config holds a reducible chunker polynomial")
        return cls(id=repository_id, chunker_polynomial=polynomial)


def random_polynomial() -> int:
    """Return a random irreducible polynomial over GF(2) of degree 53; bit i is the coefficient of x^i."""
    while True:
        candidate = secrets.randbits(_DEGREE) | 1 << _DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Ben-Or's test: no factor of degree i, for i up to half the degree, divides x^(2^i) - x."""
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 2  # x
    for _ in range(degree // 2):
        power = _square(power, polynomial)
        if _gcd(polynomial, power ^ 2) != 1:
            return False
    return True


def _square(value: int, modulus: int) -> int:
    spread = int(f"{value:b}", 4)  # squaring over GF(2) puts a zero between the coefficients
    return _remainder(spread, modulus)


def _remainder(value: int, modulus: int) -> int:
    length = modulus.bit_length()
    while (excess := value.bit_length() - length) >= 0:
        value ^= modulus << excess
    return value


def _gcd(first: int, second: int) -> int:
    while second:
        first, second = second, _remainder(first, second)
    return first
