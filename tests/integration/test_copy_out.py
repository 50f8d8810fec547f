"""Rows of COPY: counted and cut at the same places, whichever loop takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from pgstow.core.errors import Interrupted
from pgstow.postgres import copy_rows
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.copy_out import Piece, RowStream
from pgstow.postgres.server import Cluster
from pgstow.postgres.session import CAPTURE_SETTINGS, Connection, connect

# Lengths that hold a line feed when written as four bytes, rows of nothing, rows beyond any buffer here.
LENGTHS = [0, 1, 5, 6, 10, 2560, 2660, 2815, 70_000, 7, 8191, 8192, 300_000, 0, 65_536, 3]
QUERY = (
    f"COPY (SELECT repeat(chr((97 + n % 26)::int), length) FROM unnest('{{{','.join(map(str, LENGTHS))}}}'::int[])"
    " WITH ORDINALITY AS l(length, n), generate_series(1, 40) AS copy ORDER BY n, copy) TO STDOUT"
).encode()
SIZES = [1, 2, 4096, 70_001, 1 << 20]


@pytest.fixture(params=["C", "Python"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(copy_rows, "_take_in_c", None)
    assert copy_rows.rows_are_taken_by() == request.param
    return str(request.param)


@pytest.fixture
def session(database: Callable[..., ConnInfo], pg18: Cluster) -> Iterator[Connection]:
    with closing(connect(database(pg18), settings=CAPTURE_SETTINGS)) as connection:
        yield connection


def stream(
    session: Connection, query: bytes = QUERY, *, buffer: int = 1 << 17, stop: threading.Event | None = None
) -> RowStream:
    return RowStream(
        session, query, buffer=bytearray(buffer), stop=stop or threading.Event(), stall_timeout_s=30.0
    )


def expected() -> list[bytes]:
    return [bytes([97 + n % 26]) * length + b"\n" for n, length in enumerate(LENGTHS, 1) for _ in range(40)]


def cut(rows: list[bytes], size: int) -> list[Piece]:
    """Return what pieces() promises: a piece ends with the row that reaches the size."""
    pieces, held = [], []
    for row in rows:
        held.append(row)
        if sum(map(len, held)) >= size:
            pieces.append(Piece(b"".join(held), len(held)))
            held = []
    return [*pieces, Piece(b"".join(held), len(held))] if held else pieces


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("loop")
def test_pieces_end_where_the_rows_say(session: Connection, size: int) -> None:
    assert list(stream(session, buffer=max(size, 4096)).pieces(None, size)) == cut(expected(), size)


@pytest.mark.usefixtures("loop")
def test_rows_are_counted_off(session: Connection) -> None:
    rows, read = expected(), stream(session)
    for count in (1, 39, 100, 1, 201):
        taken = list(read.pieces(count, 1 << 16))
        assert taken == cut(rows[:count], 1 << 16)
        rows = rows[count:]
    assert read.finish() == len(rows)
    assert session.execute("SELECT 1").fetchone() == (1,)  # the session is idle again


@pytest.mark.usefixtures("loop")
def test_fewer_rows_than_asked_for_end_the_statement(session: Connection) -> None:
    read = stream(session)
    assert sum(piece.rows for piece in read.pieces(10**9, 4096)) == len(expected())
    assert list(read.pieces(None, 4096)) == []
    assert read.finish() == 0


@pytest.mark.usefixtures("loop")
def test_a_table_without_rows(session: Connection) -> None:
    assert list(stream(session, b"COPY (SELECT 1 WHERE false) TO STDOUT").pieces(None, 4096)) == []


@pytest.mark.usefixtures("loop")
def test_rows_without_columns(session: Connection) -> None:
    session.execute("CREATE TABLE public.empty_rows ()")
    session.execute("INSERT INTO public.empty_rows SELECT FROM generate_series(1, 5000)")
    [piece] = stream(session, b"COPY public.empty_rows TO STDOUT").pieces(None, 1 << 20)
    assert piece == Piece(b"\n" * 5000, 5000)


@pytest.mark.usefixtures("loop")
def test_an_error_after_many_rows_is_the_servers(session: Connection) -> None:
    query = b"COPY (SELECT 1 / (50000 - n) FROM generate_series(1, 60000) AS g(n)) TO STDOUT"
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(stream(session, query).pieces(None, 4096))
    assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("loop")
def test_a_stop_ends_the_pieces(session: Connection) -> None:
    stop = threading.Event()
    pieces = stream(session, stop=stop).pieces(None, 4096)
    next(pieces)
    stop.set()
    with pytest.raises(Interrupted):
        next(pieces)


@pytest.mark.usefixtures("loop")
def test_a_connection_that_breaks_in_mid_table(session: Connection, pg18: Cluster) -> None:
    query = b"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 500000)) TO STDOUT"
    pieces = stream(session, query).pieces(None, 4096)
    next(pieces)
    with psycopg.connect(pg18.conninfo()) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (session.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        list(pieces)
