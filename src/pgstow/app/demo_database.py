"""The database that the demonstration and the benchmark work on: a marketplace for rental cars."""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal
from importlib import resources

from psycopg import sql

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.session import Connection, connect, translated

__all__ = ["change_demo", "demo_balances", "load_demo"]

# The first of these that the server has is used, so that the backup carries an extension.
_EXTENSIONS = ("vector", "hstore")
_DIMENSIONS = 8
_CHANGE = re.compile(r"^-- (.+)$", re.MULTILINE)
_SETTINGS = {"client_min_messages": "warning", "synchronous_commit": "off", "maintenance_work_mem": "256MB"}


def load_demo(conninfo: ConnInfo, *, scale: float = 1) -> None:
    """Fill an empty database: about 370,000 rows times ``scale``, the same rows every time.

    The sum over ``wallet_ledger`` equals the sum over ``wallets``, in every transaction from now on.
    """
    with (
        contextlib.closing(connect(conninfo, settings=_SETTINGS)) as connection,
        translated("loading the demonstration's database"),
        connection.transaction(),
    ):
        connection.execute(sql.SQL("SET LOCAL demo.scale = {}").format(sql.Literal(str(scale))))
        extension = _create_extension(connection)
        for part in ("schema", "rows"):
            connection.execute(_script(part))
        if extension == "vector":
            _add_vectors(connection)
        connection.execute(_script("rules"))
        connection.execute("ANALYZE")


def change_demo(conninfo: ConnInfo) -> tuple[str, ...]:
    """Do an afternoon's business and return what was done, one line each. May be repeated."""
    done = []
    with (
        contextlib.closing(connect(conninfo, settings=_SETTINGS)) as connection,
        translated("changing the demonstration's database"),
        connection.transaction(),
    ):
        parts = _CHANGE.split(_script("changes").decode())[1:]
        for title, statement in zip(parts[::2], parts[1::2], strict=True):
            changed = connection.execute(statement.encode()).rowcount
            done.append(f"{changed:,} {title}")
    return tuple(done)


def demo_balances(conninfo: ConnInfo) -> tuple[Decimal, Decimal]:
    """Return the sums over the ledger and over the wallets; in a sound copy they are equal."""
    with (
        contextlib.closing(connect(conninfo)) as connection,
        translated("summing up the demonstration's database"),
    ):
        row = connection.execute(
            "SELECT (SELECT sum(amount) FROM public.wallet_ledger), (SELECT sum(balance) FROM public.wallets)"
        ).fetchone()
    assert row is not None, "a SELECT without FROM returns a row"
    return row[0], row[1]


def _create_extension(connection: Connection) -> str | None:
    available = connection.execute(
        "SELECT name FROM pg_catalog.pg_available_extensions WHERE name = ANY (%s)", (list(_EXTENSIONS),)
    ).fetchall()
    names = {name for (name,) in available}
    for extension in _EXTENSIONS:
        if extension in names:
            connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension)))
            return extension
    return None


def _add_vectors(connection: Connection) -> None:
    """Give every car a vector to be found by, with an index."""
    vectors = sql.SQL(
        "CREATE TABLE public.car_embeddings (car_id int PRIMARY KEY REFERENCES public.cars, embedding vector({size}));"
        "INSERT INTO public.car_embeddings SELECT id, (SELECT array_agg(pg_temp.pick(id * 100 + d, 60, 2000) / 1000.0 - 1"
        " ORDER BY d) FROM generate_series(1, {size}) d)::vector FROM public.cars;"
        "CREATE INDEX ON public.car_embeddings USING ivfflat (embedding vector_l2_ops) WITH (lists = 20)"
    )
    connection.execute(vectors.format(size=sql.Literal(_DIMENSIONS)))


def _script(name: str) -> bytes:
    return resources.files("pgstow.app").joinpath("demo_sql", f"{name}.sql").read_bytes()
