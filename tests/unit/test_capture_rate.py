"""The token bucket behind --limit-rate, on a clock of our own."""

from __future__ import annotations

import pytest

from pgstow.capture.rate import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_average_stays_at_the_limit() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock=clock, wait=clock.wait)
    for _ in range(50):
        limit.spend(100)
    assert clock.now == pytest.approx(105.0)


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock=clock, wait=clock.wait)
    limit.spend(1000)
    clock.now += 3600
    before = clock.now
    limit.spend(2000)
    assert clock.now - before == pytest.approx(2.0)


def test_no_limit_never_waits() -> None:
    clock = Clock()
    RateLimit(None, clock=clock, wait=clock.wait).spend(10**12)
    assert clock.now == 100.0
