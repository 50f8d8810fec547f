"""``pgstow drill`` as a person runs it: what it prints, how it ends, and what is left when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgstow.cli.application import run
from pgstow.cli.argv import Arguments
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.store.local import LocalStore
from support.command import Pgstow
from support.repositories import init_repository
from support.restic import PASSWORD
from support.restoring import execute
from support.waiting import until


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder through which the account that servers run as gets."""
    folder = Path(tempfile.mkdtemp(prefix="cli-drill-"))
    folder.chmod(0o711)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pgstow(work: Path, pg15: Cluster, shared_database: Callable[..., ConnInfo]) -> Pgstow:
    """The command, with a repository that holds a backup."""
    source = shared_database(pg15)
    execute(source, "CREATE TABLE ledger AS SELECT i, md5(i::text) AS entry FROM generate_series(1, 2000) i")
    init_repository(LocalStore(work / "repository"))
    command = Pgstow(
        {
            "PGSTOW_REPOSITORY": str(work / "repository"),
            "PGSTOW_PASSWORD": PASSWORD,
            "PGSTOW_STATE_DIR": str(work / "state"),
            "TMPDIR": str(work / "tmp"),
        }
    )
    assert command("backup", source.connect_string(), "--name", "bank").code == 0
    return command


def left(work: Path) -> list[Path]:
    return sorted((work / "tmp").iterdir())


def servers_of(folder: Path) -> list[int]:
    """Return the processes that were started with a path below the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(folder) in words and b"postgres" in words:
            found.append(int(path.parent.name))
    return found


def await_server(process: subprocess.Popen[bytes], work: Path) -> None:
    """Wait until the drill's server is up; while it is being made there is a postmaster.pid too, now and then."""

    def is_up() -> bool:
        assert process.poll() is None
        with contextlib.suppress(FileNotFoundError):
            for path in (work / "tmp").glob("pgstow-drill-*/*/data/postmaster.pid"):
                if "ready" in path.read_text().split():
                    return True
        return False

    until(is_up, "a server")


def close(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None and process.stderr is not None
    said = process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    return said


def test_a_drill_with_its_reports(pgstow: Pgstow, work: Path) -> None:
    reports = [work / f"report.{suffix}" for suffix in ("md", "html", "json")]
    options = [word for report in reports for word in ("--report", report)]
    ended = pgstow("drill", "--rotate", "--rto", "1h", "--notes", "rehearsal of spring", *options)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("passed: backup ")
    assert "RTO target 1 h 00 min: met" in ended.stdout
    assert "every row equals the repository's" in ended.stdout
    assert left(work) == []
    record = json.loads(reports[2].read_text())
    assert (record["outcome"], record["selected"], record["notes"]) == (
        "passed",
        "rotate",
        "rehearsal of spring",
    )
    for report in reports[:2]:
        assert "rehearsal of spring" in report.read_text()
        assert report.stat().st_mode & 0o077 == 0o044 & ~_umask()
    assert f"wrote {reports[0]}, " in ended.stdout
    entries = pgstow("audit", "list", "--action", "drill", "--json").json()["entries"]
    (entry,) = [one for one in entries if one["facts"].get("drill") == record["id"]]
    assert entry["subjects"] == [record["backup_id"], "bank", record["id"]]
    listed = pgstow("drills", "list")
    assert record["id"][:8] in listed.stdout
    shown = pgstow("drills", "show", record["id"], "--format", "md")
    assert shown.stdout == reports[0].read_text()
    again = pgstow("drills", "show", record["id"][:8], "--output", work / "again.html")
    assert again.code == 0
    assert (work / "again.html").read_text() == reports[1].read_text()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_interrupted_by_ctrl_c(pgstow: Pgstow, work: Path) -> None:
    with pgstow.start("drill") as process:
        await_server(process, work)
        process.send_signal(signal.SIGINT)
        said = close(process)
    assert process.returncode == 130
    assert "interrupted by SIGINT; the drill is recorded as interrupted, and nothing of it was left" in said
    assert left(work) == []
    assert servers_of(work / "tmp") == []
    assert pgstow("drills", "show", "latest").stdout.startswith("interrupted: backup ")


def test_killed_and_cleaned_up_by_the_next(pgstow: Pgstow, work: Path) -> None:
    with pgstow.start("drill") as process:
        await_server(process, work)
        process.kill()
        process.wait()
        close(process)
    assert len(left(work)) >= 1
    assert servers_of(work / "tmp")
    ended = pgstow("drill")
    assert ended.code == 0, ended.stderr
    assert re.search(r"removed what a drill that was killed had left in \S+/pgstow-drill-", ended.stderr)
    assert [path for path in left(work) if path.name.startswith("pgstow-drill-")] == []
    assert servers_of(work / "tmp") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latest", "--rotate"], "a backup is named, and an option is to choose one"),
        (["--random", "--oldest"], "--random and --oldest choose different backups"),
        (["--seed", "7"], "--seed is for --random"),
        (["latest", "--kind", "daily"], "a backup is named"),
        (["--report", "report.pdf"], "what kind of report is that to be"),
        (["--report", "/no/such/folder/report.md"], "no file can be written there"),
        (["--rto", "soon"], "'soon' is not a duration"),
        (["./no-such.dump"], "there is no file or folder ./no-such.dump"),
        (["--checks", "/no/such/file"], "cannot be read"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before the repository is opened: there is none."""
    for name in ("PGSTOW_REPOSITORY", "PGSTOW_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    assert run(Arguments(texts=("drill", *arguments), had_secrets=False)) == 2
    assert message in capsys.readouterr().err
