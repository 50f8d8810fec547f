"""A machine whose clock jumps, days ahead and back, as processes of the real command.

A service is not tried so: under libfaketime threads that wait for each other with a timeout never wake up.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.service import Site

TOOLS = Path(__file__).parent.parent.parent / ".tools"
DatabaseFactory = Callable[..., ConnInfo]


@pytest.fixture
def faketime() -> str:
    """libfaketime as scripts/install-test-tools left it; its absence fails unless that script says why."""
    library = TOOLS / "faketime" / "libfaketimeMT.so.1"
    left_out = TOOLS / "unavailable"
    if not library.exists() and left_out.exists() and "libfaketime\t" in left_out.read_text():
        pytest.skip("libfaketime cannot be had on this machine")
    assert library.exists(), "scripts/install-test-tools fetches libfaketime"
    return str(library)


@pytest.fixture
def site(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> Site:
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE a AS SELECT i FROM generate_series(1, 10) i")
    return Site(folder=tmp_path, sources={"shop": source})


def days_of(site: Site) -> list[int]:
    """Return for which days backups were made, counted from today's due time."""
    return sorted((one.due - site.due).days for one in site.runs("done") if one.due is not None)


def test_cron_on_a_machine_whose_clock_jumps(site: Site, faketime: str) -> None:
    """No due time is run twice, and none is lost after a clock that was a month ahead."""

    def ask(ahead: str | None) -> None:
        clock = {"LD_PRELOAD": faketime, "FAKETIME": ahead} if ahead else {}
        ended = site.pgstow("run", "nightly", "--if-due", **clock)
        assert ended.code == 0, ended.stderr

    ask(None)  # the first question takes the plan down, and is for what comes from now on
    story: list[tuple[str | None, list[int]]] = [
        ("+1d", [1]),
        (None, [1]),
        ("+1d", [1]),
        ("+30d", [1, 30]),  # one run for all that was missed
        (None, [1, 30]),  # a clock that was wrong by a month is not believed any longer
        ("+1d", [1, 30]),
        ("+2d", [1, 2, 30]),
        ("+2d", [1, 2, 30]),
    ]
    for ahead, expected in story:
        ask(ahead)
        assert days_of(site) == expected, ahead
    assert len(site.backups()) == 3
