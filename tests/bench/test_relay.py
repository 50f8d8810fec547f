"""Counting what a server sends."""

from __future__ import annotations

import psycopg

from bench.relay import Relay
from pgstow.postgres.server import Cluster


def test_only_what_comes_from_the_server_is_counted(pg15: Cluster) -> None:
    with Relay(pg15) as relay:
        with psycopg.connect(relay.source(pg15.conninfo())) as connection:
            connection.execute("SELECT repeat('x', 3000000)").fetchone()
            assert 3_000_000 < relay.taken() < 3_010_000
            connection.execute("SELECT length(%s)", ("y" * 1_000_000,)).fetchone()
            assert 0 < relay.taken() < 10_000
        assert relay.taken() < 1000


def test_connections_side_by_side_are_counted_together(pg15: Cluster) -> None:
    with Relay(pg15) as relay:
        source = relay.source(pg15.conninfo())
        with psycopg.connect(source) as one, psycopg.connect(source) as other:
            relay.taken()
            for connection in (one, other):
                connection.execute("SELECT repeat('x', 1000000)").fetchone()
        assert 2_000_000 < relay.taken() < 2_010_000
