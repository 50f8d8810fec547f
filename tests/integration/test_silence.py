"""A server that says nothing: for good reasons, and because nothing comes through any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from pgstow.core.errors import ConnectionFailed
from pgstow.core.process import running
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.raw import open_raw
from pgstow.postgres.server import Cluster, TcpAccess
from pgstow.postgres.session import CAPTURE_SETTINGS, connect
from pgstow.postgres.silence import watching_program
from support.backups import tools_for
from support.proxy import StallingProxy
from support.waiting import until

PASSWORD = "open sesame"
SILENCE_S = 0.4


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is soon enough to ask; who asks waits for the answer, which may take its time on a busy machine."""
    monkeypatch.setattr("pgstow.postgres.silence._SILENCE_S", SILENCE_S)


@pytest.fixture(scope="module")
def server(make_module_cluster: Callable[..., Cluster]) -> Cluster:
    return make_module_cluster(15, tcp=TcpAccess(password=Secret(PASSWORD)))


@pytest.fixture
def proxy(server: Cluster) -> Iterator[StallingProxy]:
    assert server.tcp is not None
    with StallingProxy(server.tcp.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def through(server: Cluster, proxy: StallingProxy) -> ConnInfo:
    direct = server.tcp_conninfo(
        password=PASSWORD, sslmode="disable", gssencmode="disable", connect_timeout="5"
    )
    return ConnInfo.parse(f"{direct} host={proxy.host} port={proxy.port}")


@pytest.fixture
def stall(proxy: StallingProxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let nothing through any more, and nobody wait long for an answer that cannot come."""

    def stall() -> None:
        monkeypatch.setattr("pgstow.postgres.silence._ANSWER_S", SILENCE_S)
        proxy.stall()

    return stall


def test_a_statement_that_is_at_work_may_take_its_time(through: ConnInfo) -> None:
    with connect(through, settings=CAPTURE_SETTINGS) as connection:
        connection.execute("SELECT pg_sleep(%s)", (SILENCE_S * 4,))
    session = open_raw(through, encoding="UTF8", settings={})
    session.execute(b"SELECT pg_sleep(%a)" % (SILENCE_S * 4), doing="sleeping")
    session.close()


def test_an_answer_that_never_comes_ends_the_statement(through: ConnInfo, stall: Callable[[], None]) -> None:
    with connect(through, settings=CAPTURE_SETTINGS) as connection:
        stall()
        with pytest.raises(ConnectionFailed, match="sent nothing for"):
            connection.execute("SELECT 1")


def test_a_server_that_waits_for_us_is_not_at_work(
    through: ConnInfo, proxy: StallingProxy, server: Cluster
) -> None:
    """Others come through, and see that the server has long answered."""
    connection = connect(through, settings=CAPTURE_SETTINGS)
    connection._same_server = ConnInfo.parse(server.conninfo())
    proxy.stall()
    with pytest.raises(ConnectionFailed, match="is not at work for this session"):
        connection.execute("SELECT 1")
    connection.close()


def test_raw_sessions_are_watched_too(through: ConnInfo, stall: Callable[[], None]) -> None:
    session = open_raw(through, encoding="UTF8", settings={})
    stall()
    with pytest.raises(ConnectionFailed, match="sent nothing for"):
        session.value(b"SELECT 1", doing="asking")
    session.close()


def test_a_server_without_room_for_another_session_is_not_taken_for_silent(server: Cluster) -> None:
    work = ConnInfo.parse(server.conninfo())
    with connect(work, settings=CAPTURE_SETTINGS) as connection:
        connection.watch(work.with_database("no such database"), connection.pgconn.backend_pid)
        connection.execute("SELECT pg_sleep(%s)", (SILENCE_S * 3,))


def test_a_program_whose_sessions_go_by_another_name_is_left_alone(server: Cluster) -> None:
    work = ConnInfo.parse(server.conninfo())
    psql = tools_for(work).bin_dir / "psql"
    with (
        work.tool_env() as env,
        running([psql, "-X", "-c", f"SELECT pg_sleep({SILENCE_S * 4})"], env=env) as process,
        watching_program(process, work, "another name"),
    ):
        process.check()


def await_session(server: Cluster, application_name: str) -> None:
    """Wait until a program is at its statement."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND query LIKE '%%pg_sleep%%'"
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        until(lambda: connection.execute(query, (application_name,)).fetchone(), "a session")


@pytest.mark.parametrize("is_stalled", [False, True])
def test_programs_are_ended_when_their_sessions_do_nothing(
    through: ConnInfo, server: Cluster, stall: Callable[[], None], *, is_stalled: bool
) -> None:
    psql = tools_for(through).bin_dir / "psql"
    command = [psql, "-X", "-c", f"SELECT pg_sleep({600 if is_stalled else SILENCE_S * 4})"]
    with (
        through.tool_env(PGAPPNAME="a psql") as env,
        running(command, env=env) as process,
    ):
        if not is_stalled:
            with watching_program(process, through, "a psql"):
                process.check()
            return
        await_session(server, "a psql")
        stall()
        with (
            pytest.raises(ConnectionFailed, match="nothing happened in its sessions"),
            watching_program(process, through, "a psql"),
        ):
            process.check()
