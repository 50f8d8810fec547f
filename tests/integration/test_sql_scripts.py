"""Where statements of a script end: as PostgreSQL sees it, whatever quotes and comments are nested in whatever way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import generators

from pgstow.core.errors import ArchiveError
from pgstow.postgres.archive import PieceReader
from pgstow.postgres.scripts import Command, SqlScript, Statement
from pgstow.postgres.server import Cluster

_TRICKY = st.text(st.sampled_from("';\"\\$-/*()\n abE:"), max_size=12)
_SPACE = st.sampled_from([" ", "\n", " -- it's; $x$ \\ (\n", "/* ; ' /* nested \" */ $$ */", "\t", "--\n"])


def _dollar(text: str, tag: str) -> str:
    return f"${tag}${text.replace('$', '')}${tag}$"


def _escaped(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_STRINGS = st.one_of(
    _TRICKY.map(lambda text: "'" + text.replace("'", "''") + "'"),
    _TRICKY.map(_escaped),
    _TRICKY.map(lambda text: "e'x''" + text.replace("\\", "\\\\").replace("'", "''") + "'"),
    _TRICKY.map(lambda text: "E'a'\n  -- on it goes\n 'b\\'" + text.replace("\\", "").replace("'", "") + "'"),
    st.tuples(_TRICKY, st.sampled_from(["", "a", "tag_1"])).map(lambda made: _dollar(*made)),
    st.just("a$b$c"),
    st.just("(SELECT 1 + (2))"),
    st.just("2/1"),
    st.just("3- -1"),
)
_NAMES = _TRICKY.map(lambda text: '"n' + text.replace('"', '""') + '"')


@st.composite
def _statements(draw: st.DrawFn) -> str:
    values = draw(st.lists(st.tuples(_STRINGS, _NAMES, _SPACE), min_size=1, max_size=4))
    listed = ",".join(f"{space}{value} AS {name}" for value, name, space in values)
    return f"{draw(_SPACE)}SELECT{listed}{draw(_SPACE)} FROM (SELECT 1 AS a$b$c) AS t{draw(_SPACE)}"


def _script(text: str, piece: int, *, is_standard: bool = True) -> SqlScript:
    data = text.encode()
    pieces = (data[start : start + piece] for start in range(0, len(data), piece))
    script = SqlScript(PieceReader(pieces, what="x.sql"), name="x.sql")
    script.standard_strings = is_standard
    return script


def _split(text: str, piece: int = 1 << 20) -> list[Statement | Command]:
    return list(_script(text, piece))


@pytest.fixture(scope="module")
def session(pg18: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with contextlib.closing(psycopg.connect(pg18.conninfo(), autocommit=True)) as connection:
        yield connection


def _results(
    connection: psycopg.Connection[tuple[object, ...]], text: bytes, *, single: bool
) -> list[list[bytes | None]]:
    if single:
        connection.pgconn.send_query_params(text, [])
    else:
        connection.pgconn.send_query(text)
    found = []
    for result in connection.wait(generators.execute(connection.pgconn)):
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, (text, result.error_message)
        found.append([result.get_value(0, column) for column in range(result.nfields)])
    return found


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(_statements(), min_size=1, max_size=4), st.integers(1, 40))
def test_the_server_sees_the_same_statements(
    session: psycopg.Connection[tuple[object, ...]], statements: list[str], piece: int
) -> None:
    text = ";".join(statements) + ";"
    split = _split(text, piece)
    assert all(isinstance(one, Statement) for one in split)
    together = _results(session, text.encode(), single=False)
    apart = [_results(session, one.text, single=True)[0] for one in split]
    assert apart == together
    assert len(split) == len(statements)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(_TRICKY, min_size=1, max_size=4), st.integers(1, 20))
def test_backslashes_count_where_strings_are_not_standard(
    session: psycopg.Connection[tuple[object, ...]], texts: list[str], piece: int
) -> None:
    text = "".join("SELECT '" + one.replace("\\", "\\\\").replace("'", "\\'") + "';" for one in texts)
    session.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
    try:
        split = list(_script(text, piece, is_standard=False))
        assert [_results(session, one.text, single=True)[0] for one in split] == _results(
            session, text.encode(), single=False
        )
    finally:
        session.execute("RESET ALL")


_ROUTINES = """CREATE OR REPLACE FUNCTION f(a int DEFAULT (1)) RETURNS int
    BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END; SELECT 3; END;
CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
BEGIN;
CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2);
COMMIT;
"""


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_bodies_and_rules_hold_semicolons(piece: int) -> None:
    first = [one.text.split()[0:2] for one in _split(_ROUTINES, piece)]
    assert first == [
        [b"CREATE", b"OR"],
        [b"CREATE", b"PROCEDURE"],
        [b"BEGIN"],
        [b"CREATE", b"RULE"],
        [b"COMMIT"],
    ]


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rows_are_between_copy_and_its_end(piece: int, line_end: str) -> None:
    rows = "1\tit's ; $$" + line_end + "\\\\.\t\\N" + line_end
    text = line_end.join(["-- one", "COPY t FROM stdin;", f"{rows}\\.", "SELECT 1;", ""])
    script = _script(text, piece)
    items = iter(script)
    copy = next(items)
    assert (copy.text, copy.line) == (b"COPY t FROM stdin", 2)
    assert b"".join(script.rows()) == rows.encode()
    after = next(items)
    assert (after.text, after.line) == (b"SELECT 1", 6)
    assert next(items, None) is None


def test_an_empty_table_has_no_rows() -> None:
    script = _script("COPY t FROM stdin;\n\\.\n\n\nSELECT 1;", 3)
    items = iter(script)
    next(items)
    assert list(script.rows()) == []
    assert [one.text for one in items] == [b"SELECT 1"]


@pytest.mark.parametrize(
    "text",
    ["SELECT 'a", "SELECT $a$ ; $b$", 'SELECT "', "SELECT 1", "/* ;", "SELECT 1; SELECT (1;", "SELECT E'\\"],
)
def test_a_script_that_ends_within_a_statement_is_cut_off(text: str) -> None:
    with pytest.raises(
        ArchiveError, match="x.sql is cut off: the statement that begins in line 1 has no end"
    ):
        _split(text, 2)


def test_rows_without_an_end_are_cut_off() -> None:
    script = _script("COPY t FROM stdin;\n1\n2\n", 4)
    next(iter(script))
    with pytest.raises(ArchiveError, match="in line 4: the rows of a table have no end"):
        list(script.rows())


def test_commands_to_psql_are_told_apart() -> None:
    found = _split("\\restrict abc\nSELECT 1;\n\\connect shop\nSELECT 2; \\! id\n")
    assert [type(one).__name__ for one in found] == [
        "Command",
        "Statement",
        "Command",
        "Statement",
        "Command",
    ]
    assert [one.line for one in found] == [1, 2, 3, 4, 4]
    assert found[-1].text == b"\\! id"
    with pytest.raises(ArchiveError, match="line 1: a backslash stands in the middle"):
        _split("SELECT 1 \\gset\n;")
