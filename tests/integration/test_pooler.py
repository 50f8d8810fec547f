"""Poolers are known by what they do: session mode passes, transaction mode is refused, however busy it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest

from pgstow.core.errors import ConnectionFailed, PoolerRefused
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.pooler import Route, inspect_route, refuse_transaction_pooler
from pgstow.postgres.server import Cluster
from support.pgbouncer import pgbouncer


def test_direct_connection(cluster: Cluster) -> None:
    assert refuse_transaction_pooler(ConnInfo.parse(cluster.conninfo())) is Route.DIRECT


def test_session_pooler_passes(pg15: Cluster) -> None:
    with pgbouncer(pg15, "postgres", pool_mode="session") as pool:
        assert refuse_transaction_pooler(pool) is Route.SESSION_POOLER


@pytest.mark.parametrize("pool_mode", ["transaction", "statement"])
@pytest.mark.parametrize("round_robin", ["0", "1"])
@pytest.mark.parametrize("pool_size", ["1", "8"])
def test_transaction_pooler_is_refused(
    pg15: Cluster, pool_mode: str, round_robin: str, pool_size: str
) -> None:
    with (
        pgbouncer(
            pg15, "postgres", pool_mode=pool_mode, server_round_robin=round_robin, default_pool_size=pool_size
        ) as pool,
        pytest.raises(PoolerRefused, match="is a transaction pooler") as caught,
    ):
        refuse_transaction_pooler(pool)
    assert caught.value.hint == "connect to the server itself, or to a pool with pool_mode = session"
    assert caught.value.code == "pooler_refused"


def test_busy_transaction_pooler_is_refused(pg15: Cluster) -> None:
    with (
        pgbouncer(pg15, "postgres", pool_mode="transaction", default_pool_size="6") as pool,
        busy_clients(pool, 4),
        pytest.raises(PoolerRefused),
    ):
        refuse_transaction_pooler(pool)


def test_pool_whose_backends_are_all_in_use_is_told_apart_too(pg15: Cluster) -> None:
    """Other clients sit in transactions; the one backend that is left serves all three of ours."""
    with (
        pgbouncer(pg15, "postgres", pool_mode="transaction", default_pool_size="3") as pool,
        psycopg.connect(pool.connect_string()) as one,
        psycopg.connect(pool.connect_string()) as other,
    ):
        one.execute("SELECT 1")
        other.execute("SELECT 1")
        assert inspect_route(pool) is Route.TRANSACTION_POOLER


@pytest.mark.parametrize("host", ["aws-0-eu-central-1.pooler.supabase.com", "db.abcdefgh.supabase.co"])
def test_supabase_transaction_port_is_refused_with_the_address_to_use(host: str) -> None:
    with pytest.raises(PoolerRefused) as caught:
        refuse_transaction_pooler(
            ConnInfo.parse(f"postgresql://postgres.abcdefgh:secret@{host}:6543/postgres")
        )
    assert caught.value.hint is not None
    assert f"{host}:5432" in caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.hint} {caught.value.facts}"


def test_unreachable_server_is_a_connection_failure() -> None:
    with pytest.raises(ConnectionFailed):
        inspect_route(ConnInfo.parse("host=127.0.0.1 port=1 dbname=x user=x"))


@contextlib.contextmanager
def busy_clients(pool: ConnInfo, count: int) -> Iterator[None]:
    """Keep short transactions going on the pool."""
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(pool.connect_string(), autocommit=True, prepare_threshold=None) as client:
            while not stop.is_set():
                client.execute("SELECT pg_sleep(0.002)")

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
