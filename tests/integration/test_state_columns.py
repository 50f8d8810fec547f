"""A state database that an older version made: what came later is added, and the older version goes on beside."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.state.database import StateDatabase, open_state
from pgstow.state.runs import RunRecord, Runs

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def record(run_id: str, drill_id: str | None = None) -> RunRecord:
    return RunRecord(
        id=run_id, plan="drill", job="drill", kind="drill", database="shop", due=None, started=NOW, host="h",
        drill_id=drill_id, tables={"public.t": (1, 2)},
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], StateDatabase]]:
    """Open the same state database again and again, as the hosts of a fleet do."""
    url = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("pg15")
        source: ConnInfo = request.getfixturevalue("database")(cluster)
        given = source.params
        url = Secret(
            f"postgresql://{given['user']}@/{given['dbname']}?host={given['host']}&port={given['port']}"
        )
    with contextlib.ExitStack() as stack:

        def open_one() -> StateDatabase:
            state = open_state(url, {"PGSTOW_STATE_DIR": str(tmp_path / "state")})
            stack.callback(state.close)
            return state

        yield open_one


def made_older(state: StateDatabase) -> None:
    with state.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE runs DROP COLUMN drill_id")


def columns(state: StateDatabase) -> list[str]:
    with state.begin() as connection:
        return [column["name"] for column in sa.inspect(connection).get_columns("runs")]


def test_a_column_that_came_later_is_added(opened: Callable[[], StateDatabase]) -> None:
    older = opened()
    Runs(older).save(record("r1"))
    made_older(older)
    assert "drill_id" not in columns(older)
    newer = opened()
    assert columns(newer).count("drill_id") == 1
    Runs(newer).save(record("r2", drill_id="d2"))
    assert {each.id: each.drill_id for each in Runs(opened()).find()} == {"r1": None, "r2": "d2"}
    known = [name for name in columns(newer) if name not in ("id", "drill_id")]
    with older.begin() as connection:  # what an older version writes: the columns that it knows
        connection.exec_driver_sql(
            f"INSERT INTO runs (id, {', '.join(known)}) SELECT 'r3', {', '.join(known)} FROM runs WHERE id = 'r1'"
        )
    assert Runs(newer).get("r3") == record("r3")


def test_hosts_that_come_at_the_same_time_add_it_once(opened: Callable[[], StateDatabase]) -> None:
    made_older(opened())
    failures: list[Exception] = []

    def come() -> None:
        try:
            opened()
        except Exception as exc:  # noqa: BLE001  a thread's failure is the test's
            failures.append(exc)

    hosts = [threading.Thread(target=come) for _ in range(4)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert failures == []
    assert columns(opened()).count("drill_id") == 1


def test_what_is_there_already_is_left_alone(opened: Callable[[], StateDatabase]) -> None:
    first = opened()
    Runs(first).save(record("r1", drill_id="d1"))
    before = columns(first)
    assert columns(opened()) == before
    assert Runs(first).get("r1") == record("r1", drill_id="d1")
