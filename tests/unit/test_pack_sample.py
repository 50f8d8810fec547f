"""Shares of the packs: parts that are disjoint and whole together, and random ones."""

from __future__ import annotations

import hashlib

import pytest

from pgstow.assurance.sample import PackSample
from pgstow.assurance.verify import verify
from pgstow.core.errors import UsageError
from pgstow.store.memory import MemoryStore
from support.repositories import init_repository, open_repository, random_bytes, save_backup

PACKS = [hashlib.sha256(b"%d" % number).digest() for number in range(4000)]


@pytest.mark.parametrize("parts", [1, 3, 7, 256])
def test_every_pack_is_in_exactly_one_part(parts: int) -> None:
    samples = [PackSample.parse(f"{number}/{parts}") for number in range(1, parts + 1)]
    assert all(sum(pack in sample for sample in samples) == 1 for pack in PACKS)


def test_a_percentage_is_random_and_about_that_many() -> None:
    first, second = PackSample.parse("10%"), PackSample.parse("10%")
    chosen = {pack for pack in PACKS if pack in first}
    assert 200 < len(chosen) < 700
    assert chosen != {pack for pack in PACKS if pack in second}
    assert all(pack in PackSample.parse("100%") for pack in PACKS)


@pytest.mark.parametrize(
    "text", ["", "10", "0%", "101%", "-5%", "0/5", "6/5", "1/257", "1/0", "a/b", "1/2/3"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        PackSample.parse(text)


def test_only_the_sample_is_read() -> None:
    store = MemoryStore()
    repository = init_repository(store)
    for number in range(8):
        save_backup(repository, {"f": [random_bytes(100, number)]}, run=f"run-{number}")
    sizes = open_repository(store).pack_sizes()
    for sample in (PackSample.parse("1/2"), PackSample.parse("2/2")):
        read = verify(open_repository(store), read_data=True, sample=sample).read_bytes
        assert read == sum(size for pack, size in sizes.items() if pack in sample)
