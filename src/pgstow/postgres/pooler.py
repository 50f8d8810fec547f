"""Finding out whether a connection pooler stands between us and the server, and of which kind.

A *session pooler* gives one client one backend until it disconnects: fine. A *transaction pooler* gives
out a backend per transaction: settings, prepared statements and locks of a session land on other
clients' backends, so nothing that needs a session can be trusted. It is told apart by what it does, not by
what it calls itself: two clients that are connected at the same time share a backend, or one client moves
from backend to backend.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum

from pgstow.core.errors import PoolerRefused
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import Connection, connect, translated

__all__ = ["Route", "inspect_route", "is_supabase_host", "refuse_transaction_pooler"]

_CLIENTS = 3
_ROUNDS = 4

# Supabase serves its transaction pooler here and its session pooler on the same host at 5432.
# https://supabase.com/docs/guides/database/connecting-to-postgres
_SUPABASE_TRANSACTION_PORT = "6543"
_SUPABASE_DOMAINS = (".supabase.co", ".supabase.com")


class Route(StrEnum):
    """What stands between this client and the server."""

    DIRECT = "direct"
    SESSION_POOLER = "session pooler"
    TRANSACTION_POOLER = "transaction pooler"


def is_supabase_host(host: str) -> bool:
    """Whether a host name is one of Supabase's."""
    return host.endswith(_SUPABASE_DOMAINS)


def refuse_transaction_pooler(conninfo: ConnInfo) -> Route:
    """Return how the server is reached; PoolerRefused, with the address to use, for a transaction pooler.

    Raises ConnectionFailed when there is no connection at all.
    """
    route, host = _look(conninfo)
    if route is Route.TRANSACTION_POOLER:
        raise PoolerRefused(
            f"{conninfo} is a transaction pooler: it cannot keep one session for the length of a backup",
            hint=_advice(host),
            host=host,
        )
    return route


def inspect_route(conninfo: ConnInfo) -> Route:
    """Return how the server behind ``conninfo`` is reached, by watching what a few connections get.

    Opens three connections, runs read-only statements, changes nothing. Raises ConnectionFailed.
    """
    return _look(conninfo)[0]


def _look(conninfo: ConnInfo) -> tuple[Route, str]:
    """Return the route and the host, as libpq resolved it from parameters, services and variables."""
    given_host = conninfo.params.get("host", "")
    if _is_supabase_transaction_pooler(given_host, conninfo.params.get("port", "")):
        return Route.TRANSACTION_POOLER, given_host  # certain from the address: leave its pool alone
    with contextlib.ExitStack() as stack, translated("looking for a connection pooler"):
        clients = [stack.enter_context(contextlib.closing(connect(conninfo))) for _ in range(_CLIENTS)]
        host, port = clients[0].info.host, str(clients[0].info.port)
        if _is_supabase_transaction_pooler(host, port):
            return Route.TRANSACTION_POOLER, host
        return _route(clients), host


def _route(clients: list[Connection]) -> Route:
    seen = [_backend(client) for client in clients]
    if len(set(seen)) < len(seen):
        return Route.TRANSACTION_POOLER
    for _ in range(_ROUNDS):
        # Backwards: a pool that hands out the most recently returned backend shows itself at once.
        again = [_backend(client) for client in reversed(clients)][::-1]
        if again != seen:
            return Route.TRANSACTION_POOLER
    # A pooler invents the key that cancels a query; the server's own carries the backend's pid.
    is_direct = all(client.info.backend_pid == pid for client, (pid, _) in zip(clients, seen, strict=True))
    return Route.DIRECT if is_direct else Route.SESSION_POOLER


def _backend(client: Connection) -> tuple[int, str]:
    """Return what identifies the backend that answers: its pid, and its start, as pids come back."""
    row = client.execute(
        "SELECT pid, backend_start::pg_catalog.text FROM pg_catalog.pg_stat_activity"
        " WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    ).fetchone()
    assert row is not None  # a backend always sees itself
    return int(row[0]), str(row[1])


def _is_supabase_transaction_pooler(host: str, port: str) -> bool:
    return is_supabase_host(host) and port == _SUPABASE_TRANSACTION_PORT


def _advice(host: str) -> str:
    if is_supabase_host(host):
        return f"use the session pooler: the same address with port 5432 ({host}:5432)"
    if "-pooler." in host:
        return f"use the direct address: {host.replace('-pooler.', '.', 1)}"  # Neon's naming
    return "connect to the server itself, or to a pool with pool_mode = session"
