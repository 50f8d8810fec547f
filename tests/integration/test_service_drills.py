"""Drills that the service carries out, as processes: once, with an alarm where one fails, and without anything left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgstow.catalog.drills import DrillRecord, read_drills
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.store.local import LocalStore
from support.restoring import execute
from support.service import PASSWORD, PATIENCE_S, Served, Site, has_pending, until
from support.telling import web_server

DatabaseFactory = Callable[..., ConnInfo]


class Drilling:
    """A site whose plans ``drill`` and ``again`` are on a schedule, and where its drills work."""

    def __init__(self, folder: Path, name: str, source: ConnInfo, state_url: str | None) -> None:
        self.work = folder / "tmp"
        self.work.mkdir()
        self.work.chmod(0o711)
        self.site = Site(
            folder=folder, sources={name: source}, state_url=state_url, secrets={"TMPDIR": str(self.work)}
        )
        drill = f'    kind: drill\n    schedule: "{self.site.cron}"\n    catch_up: 12h\n'
        self.site.write_settings(plans=f"  nightly:\n    kind: daily\n  drill:\n{drill}  again:\n{drill}")
        assert self.site.pgstow("run", "nightly").code == 0

    def records(self) -> list[DrillRecord]:
        store = LocalStore(self.site.repository_folder)
        return read_drills(Repository.open(store, Secret(PASSWORD)))

    def left(self) -> list[str]:
        """Return the folders that drills made, and the servers that run in them."""
        servers = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if os.fsencode(self.work) in _read(path) and b"postgres" in _read(path)
        ]
        return [*(path.name for path in self.work.iterdir()), *servers]

    def outcomes(self) -> list[str]:
        """Return how drills ended, as runs, the oldest first."""
        return [one.outcome for one in reversed(self.site.runs()) if one.job == "drill"]

    def await_outcomes(self, host: Served, plan: str, ending: str, *wanted: str) -> None:
        """Wait until a host has ended the run of a plan so, and drills have ended as ``wanted``, the oldest first."""
        (name,) = self.site.sources
        host.says(f"{plan}/{name} due {self.site.due:%Y-%m-%dT%H:%M:%SZ}: {ending}")
        until(
            lambda: self.outcomes() == list(wanted) and not self.site.open_dues(),
            lambda: f"{wanted}: {self.outcomes()} {host.text()}",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.fixture
def make_drilling(pg15: Cluster, database: DatabaseFactory) -> Iterator[Callable[..., Drilling]]:
    """Make a site below a folder through which the account that servers run as gets."""
    folder = Path(tempfile.mkdtemp(prefix="service-drill-"))
    folder.chmod(0o711)

    def make(name: str, *, is_fleet: bool = False) -> Drilling:
        source = database(pg15)
        execute(
            source, "CREATE TABLE ledger AS SELECT i, md5(i::text) AS entry FROM generate_series(1, 999) i"
        )
        state = f"postgresql://postgres@/{database(pg15).dbname}?host={pg15.socket_dir}&port={pg15.port}"
        return Drilling(folder, name, source, state if is_fleet else None)

    yield make
    shutil.rmtree(folder)


def test_once_when_it_is_due_and_an_alarm_when_it_fails(make_drilling: Callable[..., Drilling]) -> None:
    drilling = make_drilling("shop")
    site = drilling.site
    with web_server() as web, site.ending_everything():
        site.secrets = {**site.secrets, "HOOK": f"json://127.0.0.1:{web.port}/hook"}
        site.settings_path.write_text(site.settings_path.read_text() + "channels:\n  hook: ${HOOK}\n")
        site.make_due("drill")
        host = site.serve()
        drilling.await_outcomes(host, "drill", "done", "done")
        (passed,) = drilling.records()
        assert (passed.outcome, passed.plan, passed.is_removed) == ("passed", "drill", True)
        assert not [post for post in web.posts if b"drill" in post.body]
        assert drilling.left() == []
        _spoil_packs(site.repository_folder)
        site.make_due("again")
        drilling.await_outcomes(host, "again", "failed with exit status 1", "done", "failed")
        assert host.stop() == 0, host.text()
        assert "Traceback" not in host.text()
        checked = site.pgstow("alerts", "check")
        assert checked.code == 0, (checked.stdout, checked.stderr)
        titles = [json.loads(post.body)["title"] for post in web.posts]
    assert [title for title in titles if "drill" in title] == [
        "[pgstow] CRITICAL: drill failed shop/daily@main"
    ]
    assert [one.outcome for one in drilling.records()] == ["passed", "failed"]
    assert drilling.left() == []


def _spoil_packs(repository: Path) -> None:
    for pack in (repository / "data").glob("*/*"):
        content = bytearray(pack.read_bytes())
        content[10] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)


def test_stopped_then_killed_then_done_by_another_host(make_drilling: Callable[..., Drilling]) -> None:
    """In the middle of it the service stops; then its machine dies; a third host ends it and finds what was left."""
    drilling = make_drilling("drill", is_fleet=True)
    site = drilling.site
    site.make_due("drill")
    with site.ending_everything():
        stopped = site.serve("--grace", "0s", has_stops=True)
        (run,) = stopped.stopped_runs(1)
        assert drilling.left()
        stopped.process.send_signal(signal.SIGTERM)
        until(lambda: has_pending(run, signal.SIGTERM), lambda: f"an interruption: {stopped.text()}")
        os.kill(run, signal.SIGCONT)
        assert stopped.process.wait(PATIENCE_S) == 0, stopped.text()
        assert drilling.left() == []
        assert drilling.outcomes() == ["interrupted"]
        assert [one.outcome for one in drilling.records()] == ["interrupted"]

        killed = site.serve(has_stops=True)
        (run,) = killed.stopped_runs(1)
        os.kill(run, signal.SIGKILL)
        killed.process.kill()
        killed.process.wait()
        assert drilling.left(), "a server runs on, in a folder of its own"

        third = site.serve()
        drilling.await_outcomes(third, "drill", "done", "interrupted", "abandoned", "done")
        assert third.stop() == 0, third.text()
        assert "Traceback" not in third.text()
    assert [one.outcome for one in drilling.records()] == ["interrupted", "passed"]
    assert drilling.left() == []
