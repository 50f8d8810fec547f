"""The service as processes: hosts that are killed, stopped, cut off from their state database, upgraded."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import SystemRandom

import psycopg
import pytest

from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from support.service import PATIENCE_S, Site, has_pending, until
from support.telling import web_server

DatabaseFactory = Callable[..., ConnInfo]


POINTS = ("begin", "rows", "claim", "record")


@pytest.fixture
def make_site(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> Callable[..., Site]:
    """Make a site with a small database per name; the state of a fleet is in PostgreSQL, on ``state`` or the same server."""

    def make(*names: str, is_fleet: bool = True, state: Cluster | None = None) -> Site:
        sources = {name: database(pg15) for name in names}
        for source in sources.values():
            with psycopg.connect(source.connect_string(), autocommit=True) as connection:
                connection.execute(
                    "CREATE TABLE a AS SELECT i, md5(i::text) AS f FROM generate_series(1, 5000) i"
                )
        where = state or pg15
        name = database(where).dbname
        url = f"postgresql://postgres@/{name}?host={where.socket_dir}&port={where.port}"
        return Site(folder=tmp_path, sources=sources, state_url=url if is_fleet else None)

    return make


def assert_one_backup_each(site: Site, due: Mapping[str, datetime] | None = None) -> None:
    """Exactly one backup per database for its due time, and the history says the same."""
    backups = {record.name: record.id for record in site.backups()}
    assert len(site.backups()) == len(backups) == len(site.sources), site.runs()
    done = site.runs("done")
    assert {one.database: one.backup_id for one in done} == backups
    assert len(done) == len(backups)
    assert {one.database: one.due for one in done} == (due or dict.fromkeys(site.sources, site.due))
    assert not site.runs("running")
    assert not site.open_dues()


def test_one_machine(make_site: Callable[..., Site]) -> None:
    """SQLite: a due run is carried out once, if need be after a pause; a second service is refused; stop leaves nothing."""
    site = make_site("shop", is_fleet=False)
    source = site.sources["shop"]
    server = psycopg.connect(source.with_database("postgres").connect_string(), autocommit=True)
    site.make_due()
    with server, site.ending_everything():
        server.execute(f'ALTER DATABASE "{source.dbname}" ALLOW_CONNECTIONS false')
        host = site.serve()
        host.says("failed with exit status 1")
        server.execute(f'ALTER DATABASE "{source.dbname}" ALLOW_CONNECTIONS true')
        assert [one.error_code for one in site.runs()] == ["connection_failed"]
        site.end_pauses()
        until(lambda: site.runs("done"), lambda: f"a backup: {host.text()}")
        second = site.pgstow("serve")
        assert second.code == 1
        assert "another pgstow serve uses" in second.stderr
        assert host.stop() == 0, host.text()
        assert "Traceback" not in host.text()
        assert not site.hosts()
    assert_one_backup_each(site)
    assert site.runs("done")[0].warnings == ()


def test_it_tells_people_and_answers_for_metrics(make_site: Callable[..., Site]) -> None:
    """The service itself finds that there is no backup, tells so over a channel, and is to be scraped; no secret is told."""
    site = make_site("shop", is_fleet=False)
    with web_server() as web, site.ending_everything():
        port = _free_port()
        site.secrets = {"HOOK": f"json://127.0.0.1:{web.port}/s3cret-path"}
        site.more = f"channels:\n  hook: ${{HOOK}}\nmonitoring:\n  listen: 127.0.0.1:{port}\n"
        site.write_settings()
        host = site.serve()
        until(lambda: web.posts, lambda: f"an alert: {host.text()}")
        said = json.loads(web.posts[0].body)
        assert said["title"] == "[pgstow] CRITICAL: unprotected shop"
        assert "pgstow alerts ack" in said["message"]
        text = until(lambda: _scraped(port), lambda: f"metrics: {host.text()}")
        assert 'pgstow_repository_up{repository="main"} 1.0' in text
        assert 'pgstow_database_status{database="shop",level="critical"} 1.0' in text
        listed = site.pgstow("alerts", "list")
        assert "unprotected/shop" in listed.stdout
        assert host.stop() == 0
        assert "Traceback" not in host.text()
        assert "s3cret" not in host.text() + text + listed.stdout + listed.stderr
    assert len(web.posts) == 1  # one message for one cause


def _free_port() -> int:
    """Return a port that nobody uses, from below those that systems give to connections without being asked for one."""
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", SystemRandom().randrange(10000, 30000))) as free,
        ):
            port: int = free.getsockname()[1]
            return port


def _scraped(port: int) -> str:
    """Return the metrics; nothing while there are none."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())
    return ""


def test_settings_are_read_again(make_site: Callable[..., Site]) -> None:
    """On SIGHUP; what is wrong is refused and told, and what was in force stays so, for the runs that begin too."""
    site = make_site("shop", is_fleet=False)
    with site.ending_everything():
        host = site.serve()
        host.says("serving")
        good = site.settings_path.read_text()
        site.settings_path.write_text(good.replace("schedule:", "shedule:"))
        host.process.send_signal(signal.SIGHUP)
        host.says("the old ones stay")
        until(site.is_scheduled, "a first look")
        site.make_due(schedule=f"{site.cron} (UTC)")
        until(lambda: site.runs("done"), lambda: f"a backup by the settings in force: {host.text()}")
        site.settings_path.write_text(good.replace("nightly:", "weekly-one:"))
        host.process.send_signal(signal.SIGHUP)
        host.says("settings read again")
        site.make_due("weekly-one")
        until(lambda: len(site.runs("done")) == 2, lambda: f"a backup by the new ones: {host.text()}")
        assert {one.plan for one in site.runs("done")} == {"nightly", "weekly-one"}


def test_three_hosts(make_site: Callable[..., Site]) -> None:
    """One is killed with its runs, another stopped with its own, each run at another step: one backup per due time.

    The third does their work; the one that comes back goes on when that is done.
    """
    killed, stopped = POINTS, ("rows-2", "claim-2", "record-2")
    site = make_site(*killed, *stopped)
    earlier = site.due - timedelta(minutes=2)
    site.write_settings(
        plans=f'  nightly:\n    kind: daily\n    databases: [{", ".join(killed)}]\n    schedule: "{site.cron}"\n'
        f"    catch_up: 12h\n"
        f"  weekly:\n    kind: weekly\n    databases: [{', '.join(stopped)}]\n"
        f'    schedule: "{earlier.minute} {earlier.hour} * * *"\n    catch_up: 12h\n'
    )
    site.make_due()
    with site.ending_everything():
        first = site.serve(has_stops=True)
        runs = first.stopped_runs(len(killed))
        second = site.serve(has_stops=True)
        site.make_due("weekly")
        second.stopped_runs(len(stopped), plan="weekly")
        third = site.serve()
        for pid in (first.process.pid, *runs):
            os.kill(pid, signal.SIGKILL)
        second.process.send_signal(signal.SIGSTOP)
        for pid in second.runs():  # it may have taken up one of the first host's meanwhile, which were silent
            os.kill(pid, signal.SIGSTOP)
        until(
            lambda: len(site.runs("done")) == len(site.sources) and not site.open_dues(),
            lambda: f"backups by the third host: {third.text()}",
        )
        second.process.send_signal(signal.SIGCONT)
        until(second.let_all_end, lambda: f"an end of what was stopped: {second.text()}")
        assert second.text().count(": gave way") >= 2
        assert f"weekly/record-2 due {earlier:%Y-%m-%dT%H:%M:%SZ}: done" in second.text()
        assert second.stop() == 0
        for host in (second, third):
            assert "Traceback" not in host.text()
            assert "what is old was not removed" not in host.text()
    expected = {**dict.fromkeys(killed, site.due), **dict.fromkeys(stopped, earlier)}
    assert_one_backup_each(site, expected)
    assert {"begin", "rows", "claim", "rows-2", "claim-2"} <= {one.database for one in site.runs("abandoned")}
    for database in ("record", "record-2"):
        (found,) = [one for one in site.runs("done") if one.database == database]
        assert any("cut off after it had published" in warning for warning in found.warnings)


def test_killed_without_its_run(make_site: Callable[..., Site]) -> None:
    """A run goes on to its end when its service is killed, and the next service does not begin it again."""
    site = make_site("rows", is_fleet=False)
    site.make_due()
    with site.ending_everything():
        first = site.serve(has_stops=True)
        (run,) = first.stopped_runs(1)
        first.process.kill()
        first.process.wait()
        os.kill(run, signal.SIGCONT)
        second = site.serve()
        second.says("serving")
        until(lambda: site.runs("done") and not site.open_dues(), lambda: f"its backup: {second.text()}")
        assert second.stop() == 0
        assert not second.runs()
    assert_one_backup_each(site)


def test_state_database_away(make_site: Callable[..., Site], make_cluster: Callable[..., Cluster]) -> None:
    """What is under way when the state database goes away is finished, and done once when that is back."""
    cluster = make_cluster(17)
    site = make_site("rows", "shop", state=cluster)
    site.make_due()
    with site.ending_everything():
        host = site.serve(has_stops=True)
        (run,) = host.stopped_runs(1)
        until(lambda: site.runs("done"), "the other database's backup")
        cluster.stop("immediate")
        host.says("nothing new begins until this has passed")
        os.kill(run, signal.SIGCONT)
        spool = site.folder / "state" / "spool"
        until(lambda: list(spool.glob("*.json")), lambda: f"a record that is kept here: {host.text()}")
        cluster.start()
        host.says("that has passed")
        until(
            lambda: len(site.runs("done")) == 2 and not site.open_dues(), lambda: f"the record: {host.text()}"
        )
        assert not list(spool.glob("*"))
        assert host.stop() == 0
        assert "Traceback" not in host.text()
    assert_one_backup_each(site)


def test_asked_to_stop_and_started_again(make_site: Callable[..., Site]) -> None:
    """A run that outlasts the grace is interrupted, written down as such, and begun again by the next start."""
    site = make_site("rows", is_fleet=False)
    site.make_due()
    with site.ending_everything():
        host = site.serve("--grace", "0s", has_stops=True)
        (run,) = host.stopped_runs(1)
        host.process.send_signal(signal.SIGTERM)
        until(lambda: has_pending(run, signal.SIGTERM), lambda: f"an interruption: {host.text()}")
        os.kill(run, signal.SIGCONT)
        assert host.process.wait(PATIENCE_S) == 0
        assert [one.outcome for one in site.runs()] == ["interrupted"]
        assert "1 interrupted" in host.text()
        again = site.serve()
        until(lambda: site.runs("done"), lambda: f"a backup: {again.text()}")
        assert again.stop() == 0
    assert_one_backup_each(site)


def test_rolling_upgrade(make_site: Callable[..., Site]) -> None:
    """Beside a newer host the older one ends what it began, and new runs go to the newer one."""
    site = make_site("rows")
    later = (site.due.minute - 1) % 60
    plan = f'    kind: daily\n    schedule: "{site.cron}"\n    catch_up: 12h\n'
    site.write_settings(
        plans=f'  nightly:\n{plan}  later:\n    kind: weekly\n    schedule: "{later} * * * *"\n    catch_up: 12h\n'
    )
    site.make_due()
    with site.ending_everything():
        patient = ("--dead-after", "10m")  # however long the newer one takes to start
        old = site.serve(*patient, has_stops=True)
        (run,) = old.stopped_runs(1)
        new = site.serve(*patient, shape=2)
        until(lambda: len([host for host in site.hosts() if host.role == "serve"]) == 2, "two hosts")
        site.make_due("later")
        new.says("later/rows due")
        assert "later/rows" not in old.text()
        os.kill(run, signal.SIGCONT)
        until(lambda: len(site.runs("done")) == 2, lambda: f"both: {old.text()}{new.text()}")
        old.says(f"nightly/rows due {site.due:%Y-%m-%dT%H:%M:%SZ}: done")
    assert {one.kind for one in site.backups()} == {"daily", "weekly"}
    assert len(site.backups()) == 2
