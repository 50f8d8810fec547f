"""How the command behaves as a process: exit codes, signals, pipes, and what others can see of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.pgbouncer import pgbouncer

DatabaseFactory = Callable[..., ConnInfo]

PASSWORD = "correct horse battery"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    Repository.init(LocalStore(folder), Secret(PASSWORD), hostname="h", username="u")
    return folder


@pytest.fixture
def pgstow(repository: Path) -> Pgstow:
    return Pgstow(
        {"PGSTOW_REPOSITORY": str(repository), "PGSTOW_PASSWORD": PASSWORD}, starts_anew=True
    )  # where everything is as users have it


@pytest.fixture
def filled(pg15: Cluster, database: DatabaseFactory) -> ConnInfo:
    """A database that takes a while to back up at a limited rate."""
    source = database(pg15)
    with psycopg.connect(source.connect_string(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 8) AS filler FROM generate_series(1, 20000) i"
        )
    return source


@pytest.fixture
def mute_server() -> Iterator[tuple[int, socket.socket]]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1], server


# -- exit codes


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (("--version",), {}),
        (("list",), {}),
        (("show", "abcdef", "--json"), {}),
        (("list",), {"PGSTOW_PASSWORD": "wrong"}),
        (("backup", "--help"), {}),
        (("backup", "postgresql://alice:hunter22@127.0.0.1:1/shop"), {}),
        (("config", "check", "wrong.yaml"), {}),
    ],
)
def test_commands_of_other_tests_are_like_these(
    pgstow: Pgstow,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are forked from a program that is loaded already."""
    Pgstow.loaded()  # which was started elsewhere
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("repositries: {}\n")
    assert replace(pgstow, starts_anew=False)(*arguments, **environ) == pgstow(*arguments, **environ)


def test_version_and_help(pgstow: Pgstow) -> None:
    version = pgstow("--version")
    assert (version.code, version.stderr) == (0, "")
    assert version.stdout.startswith("pgstow ")
    pgstow = replace(pgstow, starts_anew=False)
    for command in ("init", "backup", "list", "show", "restore", "verify", "export", "doctor", "demo"):
        shown = pgstow(command, "--help")
        assert shown.code == 0
        words = " ".join(shown.stdout.split())
        assert (
            "0 done, 1 failed, 2 wrong usage, 3 partly done, 10 no repository, 11 repository locked" in words
        )
        assert "12 wrong password, 130 interrupted" in words


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bakcup",),
        ("list", "--nope"),
        ("show",),
        ("list", "extra"),
        ("backup", "--jobs", "0", "dbname=x"),
        ("backup", "--limit-rate", "fast", "dbname=x"),
        ("backup", "--label", "a,b", "dbname=x"),
        ("backup", "postgresql://["),
        ("backup",),
        ("restore", "latest"),
        ("restore", "latest", "--to", "dbname=x", "--schema-only", "--data-only"),
        ("export", "latest", "--format", "tar", "--output", "x"),
        ("export", "latest", "--format", "custom", "--output", "-", "--json"),
        ("list", "--password-file", "/x", "--password-command", "echo x"),
        ("list", "--password-file", "/no/such/file"),
        ("show", "shop@yesterday"),
    ],
)
def test_wrong_usage_is_2_and_says_what_to_do(pgstow: Pgstow, arguments: tuple[str, ...]) -> None:
    ended = replace(pgstow, starts_anew=False)(*arguments)
    assert ended.code == 2
    if "--json" in arguments:
        assert ended.json()["error"]["code"] == "usage"
    else:
        assert ended.stdout == ""
        assert "Traceback" not in ended.stderr
        assert ended.stderr.startswith("error: ") or "Usage: pgstow" in ended.stderr


def test_exit_codes_of_repositories(pgstow: Pgstow, repository: Path, tmp_path: Path) -> None:
    assert pgstow("list").code == 0
    assert pgstow("list", "--repo", tmp_path / "empty").code == 10
    assert pgstow("list", PGSTOW_PASSWORD="wrong").code == 12
    assert pgstow("init").code == 1
    assert pgstow("show", "abcdef").code == 1
    with Repository.open(LocalStore(repository), Secret(PASSWORD)).lock(exclusive=True):
        assert pgstow("verify").code == 11
    assert pgstow("verify").code == 0


def test_unreachable_database_is_a_failure_with_a_hint(pgstow: Pgstow) -> None:
    ended = pgstow("backup", "postgresql://alice:hunter22@127.0.0.1:1/shop")
    assert ended.code == 1
    assert "error: cannot connect to database shop at 127.0.0.1:1" in ended.stderr
    assert "HINT: " in ended.stderr
    assert "hunter22" not in ended.stderr


def test_poolers(pgstow: Pgstow, pg15: Cluster, filled: ConnInfo) -> None:
    dbname = str(filled.dbname)
    with pgbouncer(pg15, dbname, pool_mode="session") as pool:
        assert pgstow("backup", pool.connect_string()).code == 0
    with pgbouncer(pg15, dbname, pool_mode="transaction") as pool:
        refused = pgstow("backup", pool.connect_string())
    assert refused.code == 1
    assert "is a transaction pooler" in refused.stderr
    assert "HINT: connect to the server itself, or to a pool with pool_mode = session" in refused.stderr


def test_empty_list_of_backups_is_no_error(pgstow: Pgstow) -> None:
    ended = pgstow("list")
    assert (ended.code, ended.stdout, ended.stderr) == (0, "no backups\n", "")


# -- what others can see


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://alice:hunter22@127.0.0.1:{port}/shop?sslmode=disable",
        "host=127.0.0.1 port={port} user=alice dbname=shop sslmode=disable password='hunter22'",
    ],
)
def test_password_of_a_url_is_not_in_the_process_list(
    pgstow: Pgstow, mute_server: tuple[int, socket.socket], form: str
) -> None:
    port, server = mute_server
    with pgstow.start("backup", form.format(port=port)) as process:
        client, _ = server.accept()  # it is connecting, so it knows the whole URL
        with client:
            shown = command_line(process.pid)
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
            os.kill(process.pid, signal.SIGTERM)
            stdout, stderr = process.communicate()
    assert b"hunter22" not in shown + environ + stdout + stderr
    assert b"127.0.0.1" in shown
    assert b"***" in shown
    assert process.returncode == 130
    assert b"warning: a password among the arguments" in stderr


def test_arguments_survive_being_hidden(pgstow: Pgstow) -> None:
    label = "two words\nand 'quotes' \udcff"
    ended = pgstow("backup", "--label", label, "postgresql://alice:hunter22@127.0.0.1:1/shop", "--json")
    assert ended.code == 2
    assert ended.json()["error"]["message"] == "a label cannot be empty or hold commas or control characters"


def test_arguments_without_a_password_are_left_alone(pgstow: Pgstow) -> None:
    ended = pgstow("backup", "postgresql://alice@127.0.0.1:1/shop")
    assert "password among the arguments" not in ended.stderr


def test_tools_never_get_the_password_as_an_argument(pgstow: Pgstow, filled: ConnInfo) -> None:
    """Every process that appears while a backup runs is looked at."""
    source = f"{filled.connect_string()} password=hunter22"
    seen: set[bytes] = set()
    with pgstow.start("backup", source) as process:
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())
        assert process.wait() == 0
    names = {Path(os.fsdecode(line.split(b"\0")[0])).name for line in seen}
    assert "pg_dump" in names
    started = os.fsencode(str(pgstow.command()[0]))
    # The very first moment belongs to the caller: there the password stands, and is then hidden.
    assert not [line for line in seen if b"hunter22" in line and started not in line]


# -- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_backup_publishes_nothing(
    pgstow: Pgstow, filled: ConnInfo, repository: Path, number: int
) -> None:
    with pgstow.start("backup", filled.connect_string(), "--limit-rate", "100K", "--verbose") as process:
        await_line(process, b"reading tables")
        os.kill(process.pid, number)
        stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr.decode()
    assert stdout == b""
    assert f"error: interrupted by {signal.Signals(number).name}; nothing was published".encode() in stderr
    assert b"Traceback" not in stderr
    assert pgstow("list", "--json").json()["backups"] == []
    assert not list((repository / "locks").iterdir())


def test_interruption_as_document(pgstow: Pgstow, filled: ConnInfo) -> None:
    with pgstow.start(
        "backup", filled.connect_string(), "--limit-rate", "100K", "--json", "--verbose"
    ) as process:
        await_line(process, b"reading tables")
        os.kill(process.pid, signal.SIGINT)
        stdout, _ = process.communicate()
    assert b'"code": "interrupted"' in stdout
    assert b'"signal": "SIGINT"' in stdout


def test_interruption_while_the_program_loads_is_told_in_a_word(pgstow: Pgstow) -> None:
    script = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pgstow.cli.application':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "sys.argv = ['pgstow', 'list']\n"
        "from pgstow.cli.main import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=pgstow.environment({}), capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"error: interrupted by SIGINT\n")


def test_second_signal_ends_at_once(pgstow: Pgstow, filled: ConnInfo) -> None:
    with pgstow.start("backup", filled.connect_string(), "--limit-rate", "100K", "--verbose") as process:
        await_line(process, b"reading tables")
        os.kill(process.pid, signal.SIGSTOP)  # so that both are there when it goes on
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        process.communicate()
    assert process.returncode == 130


def test_running_query_is_cancelled(pgstow: Pgstow, pg15: Cluster, database: DatabaseFactory) -> None:
    """A backup that waits for a lock on the server goes when told to, and takes its query with it."""
    source = database(pg15)
    with psycopg.connect(source.connect_string()) as holder:
        holder.execute("CREATE TABLE t (id int)")
        holder.commit()
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pgstow.start("backup", source.connect_string()) as process:
            await_waiter(source)
            os.kill(process.pid, signal.SIGINT)
            process.communicate()
        assert process.returncode == 130


def await_line(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Return when the command has written ``text`` to stderr."""
    assert process.stderr is not None
    seen = b""
    while text not in seen:
        select.select([process.stderr], [], [])
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, f"it ended without that: {seen!r}"
        seen += piece


def await_waiter(source: ConnInfo) -> None:
    """Return when a session waits for a lock in the database."""
    with psycopg.connect(source.connect_string(), autocommit=True) as watcher:
        while not watcher.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone():
            time.sleep(0.02)


# -- pipes and terminals


def test_reader_that_leaves_is_no_error(pgstow: Pgstow) -> None:
    with pgstow.start("list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        assert (process.wait(), stderr) == (0, b"")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_result_that_cannot_be_written_is_a_failure_and_no_bug(
    pgstow: Pgstow, filled: ConnInfo, form: list[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            pgstow.command("backup", filled.connect_string(), *form),
            env=pgstow.environment({}),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        "error: the result cannot be written to standard output: No space left on device",
        "HINT: what the command did stands; it would have ended with exit status 0",
    ]
    assert len(pgstow("list", "--json").json()["backups"]) == 1


@pytest.mark.parametrize("arguments", ["list", "list --json", "--help", "--version"])
def test_closed_output_is_a_failure_and_no_bug(pgstow: Pgstow, arguments: str) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *pgstow.command(*arguments.split())],
        env=pgstow.environment({}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert ended.returncode == 1
    first, *_ = ended.stderr.decode().splitlines()
    assert first.startswith("error: ")
    assert "standard output" in first


def test_export_whose_reader_leaves_is_a_failure(pgstow: Pgstow, filled: ConnInfo) -> None:
    assert pgstow("backup", filled.connect_string()).code == 0
    with pgstow.start("export", "latest", "--format", "custom", "--output", "-") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"PGDMP"
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        assert process.wait() == 1
    assert b"went away" in stderr
    assert b"Traceback" not in stderr


def test_progress_is_drawn_on_a_terminal_only(pgstow: Pgstow, filled: ConnInfo) -> None:
    assert pgstow("backup", filled.connect_string()).stderr == ""
    code, shown = on_terminal(pgstow, "backup", filled.connect_string())
    assert code == 0
    assert "reading tables" in shown
    assert "rows" in shown
    code, shown = on_terminal(pgstow, "backup", filled.connect_string(), "--no-progress")
    assert code == 0
    assert "reading tables" not in shown


def test_password_is_asked_for_on_a_terminal(repository: Path) -> None:
    pgstow = Pgstow({"PGSTOW_REPOSITORY": str(repository)})
    assert pgstow("list").code == 2
    code, shown = on_terminal(pgstow, "list", typed=PASSWORD + "\n")
    assert code == 0
    assert "password of the repository: " in shown
    assert PASSWORD not in shown


def test_overwriting_is_confirmed_by_typing_the_name(pgstow: Pgstow, filled: ConnInfo) -> None:
    assert pgstow("backup", filled.connect_string(), "--name", "shop").code == 0
    restore = ("restore", "latest", "--to", filled.connect_string(), "--clean")
    refused = pgstow(*restore)
    assert refused.code == 1
    assert str(filled.dbname) in refused.stderr
    nowhere = pgstow("restore", "latest", "--to", filled.with_database("nowhere").connect_string())
    assert nowhere.code == 1
    assert "HINT: --create makes the target database" in nowhere.stderr
    code, shown = on_terminal(pgstow, *restore, typed="something else\n")
    assert code == 1
    assert "will be overwritten" in shown
    code, _ = on_terminal(pgstow, *restore, typed=f"{filled.dbname}\n")
    assert code == 0
    assert pgstow(*restore, "--confirm", str(filled.dbname)).code == 0


def on_terminal(pgstow: Pgstow, *arguments: str | Path, typed: str = "") -> tuple[int, str]:
    """Return the exit code and what a terminal showed on stderr while ``typed`` was typed."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        pgstow.command(*arguments),
        env=pgstow.environment({"TERM": "xterm", "COLUMNS": "150"}),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while piece := os.read(ours, 4096):
                shown += piece
                if typed and shown.rstrip(b" ").endswith(b":"):
                    os.write(ours, typed.encode())
                    typed = ""
        os.close(ours)
        return process.wait(), shown.decode()
