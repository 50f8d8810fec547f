"""``pgstow run``: plans without the service, with the same limits and history."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from pgstow.catalog.backups import list_backups
from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.state.runs import Runs
from pgstow.store.local import LocalStore
from support.dated_backups import save_dated
from support.restic import Restic
from support.service import PASSWORD, Site, until

DatabaseFactory = Callable[..., ConnInfo]


@pytest.fixture
def make_site(pg15: Cluster, database: DatabaseFactory, tmp_path: Path) -> Callable[..., Site]:
    def make(*names: str, **options: object) -> Site:
        sources = {name: database(pg15) for name in names}
        for source in sources.values():
            with psycopg.connect(source.connect_string(), autocommit=True) as connection:
                connection.execute(
                    "CREATE TABLE a AS SELECT i, md5(i::text) AS f FROM generate_series(1, 100) i"
                )
        return Site(folder=tmp_path, sources=sources, **options)

    return make


@contextmanager
def stopped_run(site: Site, database: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run in a process of its own that stops itself where the database's name says (``stopping_run``)."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "support.stopping_run", "run", str(site.folder / "stopped"), "--",
            "run", "nightly", "--database", database, *options,
        ],
        env=site.environ_of_changed(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                process.returncode = os.waitstatus_to_exitcode(status)
                raise AssertionError(f"it ended before it stopped: {process.communicate()}")
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def test_by_hand_and_when_due(make_site: Callable[..., Site]) -> None:
    """By hand always; with --if-due once per due time, whoever asks how often."""
    site = make_site("shop", "depot")
    by_hand = site.pgstow("run", "nightly", "--database", "shop", "--label", "release 7", "--json")
    assert by_hand.code == 0, by_hand.stderr
    (run,) = by_hand.json()["runs"]
    assert (run["outcome"], run["due"]) == ("done", None)
    (backup,) = site.backups()
    assert (backup.id, backup.label, backup.kind) == (run["backup"], "release 7", "daily")
    idle = site.pgstow("run", "nightly", "--if-due", "--json")
    assert idle.code == 0, idle.stderr
    assert idle.json()["runs"] == []
    assert {one["reason"] for one in idle.json()["not_run"]} == {"not_due"}
    site.make_due()
    due = site.pgstow("run", "nightly", "--if-due", "--json")
    assert due.code == 0, due.stderr
    assert {(one["database"], one["outcome"]) for one in due.json()["runs"]} == {
        ("shop", "done"),
        ("depot", "done"),
    }
    assert {one["due"] for one in due.json()["runs"]} == {site.due.isoformat()}
    assert site.pgstow("run", "nightly", "--if-due", "--json").json()["runs"] == []
    assert len(site.backups()) == 3
    assert len(site.runs("done")) == 3
    assert not site.hosts(), "every process has left"


def test_two_at_once(make_site: Callable[..., Site]) -> None:
    """One runs, the other gives way with exit code 11, for a due time and without; or waits."""
    site = make_site("rows")
    site.make_due()
    with stopped_run(site, "rows", "--if-due") as process:
        due = site.pgstow("run", "nightly", "--if-due", "--json")
        assert due.code == 11
        assert due.json()["error"]["code"] == "under_way"
        by_hand = site.pgstow("run", "nightly", "--json")
        assert by_hand.code == 11
        assert by_hand.json()["error"]["code"] == "repository_locked"
        with site.pgstow.start("run", "nightly", "--wait", "5m") as waiting:
            until(lambda: len(site.hosts()) == 2, "one that waits")
            process.send_signal(signal.SIGCONT)
            assert process.wait() == 0, process.communicate()
            assert waiting.wait() == 0, waiting.communicate()
    assert len(site.backups()) == 2
    assert sorted(one.outcome for one in site.runs()) == ["done", "done", "failed"]


def test_what_gave_way_is_due_still(make_site: Callable[..., Site]) -> None:
    """A due run that somebody else's backup keeps out is tried again by the next who asks."""
    site = make_site("rows")
    with stopped_run(site, "rows"):
        site.make_due()
        assert site.pgstow("run", "nightly", "--if-due", "--json").code == 11
        assert [one.outcome for one in site.runs()] == ["interrupted", "running"]
        assert len(site.open_dues()) == 1
    site.end_pauses()
    again = site.pgstow("run", "nightly", "--if-due", "--json")
    assert again.code == 0, again.stdout
    assert len(site.backups()) == 1
    assert not site.open_dues()
    assert [one.outcome for one in site.runs()] == ["done", "interrupted", "abandoned"]


def test_a_killed_run_is_taken_over_by_the_next(make_site: Callable[..., Site]) -> None:
    """Without any service: the next --if-due sees that the process is gone, and does its work."""
    site = make_site("rows", limits={"per_server": 1})
    site.make_due()
    with stopped_run(site, "rows", "--if-due") as process:
        process.kill()
    again = site.pgstow("run", "nightly", "--if-due", "--json")
    assert again.code == 0, again.stderr
    assert len(site.backups()) == 1
    assert sorted(one.outcome for one in site.runs()) == ["abandoned", "done"]


def test_a_run_that_was_given_up_for_dead_and_ends_well_says_so(make_site: Callable[..., Site]) -> None:
    site = make_site("rows")
    site.make_due()
    with stopped_run(site, "rows", "--if-due") as process:
        (given_up,) = site.runs("running")
        with contextlib.closing(site.state()) as state:
            Runs(state).save(replace(given_up, outcome="abandoned", error_code="abandoned"))
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0, process.communicate()
    ((record,), (backup,)) = site.runs(), site.backups()
    assert (record.outcome, record.error_code, record.backup_id) == ("done", None, backup.id)
    assert not site.open_dues()


def test_interrupted(make_site: Callable[..., Site]) -> None:
    """Ctrl-C is written down, and the due time is free for the next at once."""
    site = make_site("rows")
    site.make_due()
    with stopped_run(site, "rows", "--if-due") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert b"written down as interrupted" in stderr
    assert [one.outcome for one in site.runs()] == ["interrupted"]
    assert site.pgstow("run", "nightly", "--if-due", "--json").json()["runs"][0]["outcome"] == "done"


def test_without_the_state_database(
    make_site: Callable[..., Site], make_cluster: Callable[..., Cluster]
) -> None:
    """Backups do not depend on it: they are made, and written down later."""
    cluster = make_cluster(15)
    url = f"postgresql://postgres@/postgres?host={cluster.socket_dir}&port={cluster.port}"
    site = make_site("shop", state_url=url)
    cluster.stop()
    by_hand = site.pgstow("run", "nightly", "--json")
    assert by_hand.code == 0, by_hand.stderr
    assert "carried out all the same" in by_hand.stderr
    assert len(site.backups()) == 1
    # When a backup was made is known from the repository: nothing is due after it, and it was due if there is none.
    assert site.pgstow("run", "nightly", "--if-due", "--json").json()["runs"] == []
    nightly = site.settings_path.read_text()
    site.write_settings(plans=f'  verify:\n    schedule: "{site.cron}"\n    catch_up: 12h\n')
    unknown = site.pgstow("run", "verify", "--if-due", "--json")
    assert unknown.code == 1, "every few minutes for as long as the database is away would be too often"
    assert unknown.json()["error"]["code"] == "state"
    site.settings_path.write_text(nightly)
    cluster.start()
    assert not site.runs()
    assert site.pgstow("run", "nightly", "--if-due", "--json").code == 0
    (record,) = site.runs("done")
    assert record.backup_id == by_hand.json()["runs"][0]["id"]


def test_failures(make_site: Callable[..., Site]) -> None:
    """One database's failure is its own: partial; alone it is the command's error. What is wrong is said."""
    site = make_site("shop", "gone")
    with psycopg.connect(site.sources["shop"].connect_string(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{site.sources["gone"].dbname}"')
    both = site.pgstow("run", "nightly", "--json")
    assert both.code == 3
    assert {one["database"]: one["outcome"] for one in both.json()["runs"]} == {
        "shop": "done",
        "gone": "failed",
    }
    alone = site.pgstow("run", "nightly", "-d", "gone", "--json")
    assert alone.code == 1
    assert alone.json()["error"]["code"] == "connection_failed"
    assert [one.error_code for one in site.runs("failed")] == ["connection_failed"] * 2
    wrong = site.pgstow("run", "nightyl", "--json")
    assert wrong.code == 2
    assert wrong.json()["error"]["hint"] == "did you mean nightly?"
    assert site.pgstow("run", "nightly", "-d", "shopp").code == 2
    assert "correct horse" not in json.dumps(both.json()) + both.stderr


def test_what_may_pass_is_tried_again(make_site: Callable[..., Site]) -> None:
    """A due run whose database is away is due again after a pause; what lasts is settled with its first failure."""
    site = make_site("shop", of_each_database="    must_contain: [public.b]\n")
    site.make_due()
    source = site.sources["shop"]
    server = psycopg.connect(source.with_database("postgres").connect_string(), autocommit=True)
    with server:
        server.execute(f'ALTER DATABASE "{source.dbname}" ALLOW_CONNECTIONS false')
        failed = site.pgstow("run", "nightly", "--if-due", "--json")
        assert failed.code == 1
        assert failed.json()["error"]["code"] == "connection_failed"
        assert "tried again from" in failed.stderr
        resting = site.pgstow("run", "nightly", "--if-due", "--json")
        assert resting.code == 0
        (told,) = resting.json()["not_run"]
        assert told["reason"] == "retry"
        (open_due,) = site.open_dues()
        assert told["retry"] == open_due.not_before.isoformat()
        assert "tried again later" in site.pgstow("run", "nightly", "--if-due").stdout
        server.execute(f'ALTER DATABASE "{source.dbname}" ALLOW_CONNECTIONS true')
    site.end_pauses()
    assert site.pgstow("run", "nightly", "--if-due", "--json").json()["error"]["code"] == "missing_table"
    assert not site.open_dues()
    assert [one.error_code for one in site.runs("failed")] == ["missing_table", "connection_failed"]
    assert {one.due for one in site.runs()} == {site.due}
    (idle,) = site.pgstow("run", "nightly", "--if-due", "--json").json()["not_run"]
    assert idle["reason"] == "not_due"


def test_missed(make_site: Callable[..., Site]) -> None:
    """Outside of its window a due run is written down as missed, once."""
    site = make_site("shop")
    site.write_settings(
        plans=f'  nightly:\n    kind: daily\n    schedule: "{(site.due - timedelta(hours=3)).minute} '
        f'{(site.due - timedelta(hours=3)).hour} * * *"\n    catch_up: 1h\n'
    )
    site.make_due(hours=5)
    first = site.pgstow("run", "nightly", "--if-due", "--json")
    assert first.code == 0
    assert [one["reason"] for one in first.json()["not_run"]] == ["missed"]
    assert [
        one["reason"] for one in site.pgstow("run", "nightly", "--if-due", "--json").json()["not_run"]
    ] == ["not_due"]
    assert [one.outcome for one in site.runs()] == ["missed"]


def test_several_repositories(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """The database is read once for all of them; one that is not there makes the run partial. Plans for repositories too."""
    site = make_site(
        "shop",
        repositories=f"  offsite:\n    location: {tmp_path}/offsite\n    password: ${{TEST_PASSWORD}}\n",
    )
    site.write_settings(
        plans="  nightly:\n    kind: daily\n  retention:\n    kind: retention\n  verify:\n    kind: verify\n"
    )
    partial = site.pgstow("run", "nightly", "--json")
    assert partial.code == 3, partial.stderr
    (run,) = partial.json()["runs"]
    places = {one["repository"]: one["error"] and one["error"]["code"] for one in run["destinations"]}
    assert places == {"main": None, "offsite": "no_repository"}
    (record,) = site.runs()
    assert record.outcome == "partial"
    assert {one.repository: one.error_code for one in record.destinations} == places
    assert record.tables["public.a"][0] == 100
    assert site.pgstow("run", "verify", "--json").code == 3
    made = site.pgstow("init", "--repo", "offsite")
    assert made.code == 0, made.stderr
    for plan in ("nightly", "retention", "verify"):
        done = site.pgstow("run", plan, "--json")
        assert done.code == 0, done.stdout + done.stderr
        assert {one["repository"] for one in done.json()["runs"][0]["destinations"]} == {"main", "offsite"}


def test_a_repository_that_was_away_is_caught_up(
    make_site: Callable[..., Site], tmp_path: Path, restic_binaries: list[Restic]
) -> None:
    """It missed two runs: the third is whole and brings it these, and nothing that had expired there before."""
    offsite, away = tmp_path / "offsite", tmp_path / "away"
    site = make_site(
        "shop", repositories=f"  offsite:\n    location: {offsite}\n    password: ${{TEST_PASSWORD}}\n"
    )
    site.write_settings(plans="  nightly:\n    kind: daily\n")
    with site.settings_path.open("a") as file:
        file.write("retention:\n  promotes: false\n  rules:\n    daily: 5d\n")
    far = Repository.init(LocalStore(offsite), Secret(PASSWORD), hostname="h", username="u")
    near = Repository.open(LocalStore(site.repository_folder), Secret(PASSWORD))
    near.load_index()
    save_dated(near, 1, datetime.now(UTC) - timedelta(days=9))  # expired offsite; here nobody looked yet
    first = site.pgstow("run", "nightly", "--json").json()["runs"][0]["backup"]
    offsite.rename(away)
    missed = []
    for _ in range(2):
        partial = site.pgstow("run", "nightly", "--json")
        assert partial.code == 3, partial.stderr
        missed.append(partial.json()["runs"][0]["backup"])
    away.rename(offsite)
    whole = site.pgstow("run", "nightly", "--json")
    assert whole.code == 0, whole.stderr
    (run,) = whole.json()["runs"]
    assert (run["outcome"], run["warnings"]) == ("done", [])
    assert {one["repository"]: one["caught_up"] for one in run["destinations"]} == {
        "main": [], "offsite": sorted(missed),
    }  # fmt: skip
    assert {one.id for one in list_backups(far)} == {first, *missed, run["backup"]}
    assert {one.repository: set(one.caught_up) for one in site.runs()[0].destinations} == {
        "main": set(), "offsite": set(missed),
    }  # fmt: skip
    for restic in restic_binaries:
        restic(offsite, "check", "--read-data")
    again = site.pgstow("run", "nightly")
    assert again.code == 0, again.stderr
    assert "caught up" not in again.stdout


def test_cut_off_while_a_repository_is_caught_up(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """The run is done and stays it, interrupted or killed; the next one goes on."""
    offsite, away = tmp_path / "offsite", tmp_path / "away"
    site = make_site(
        "copy", repositories=f"  offsite:\n    location: {offsite}\n    password: ${{TEST_PASSWORD}}\n"
    )
    Repository.init(LocalStore(away), Secret(PASSWORD), hostname="h", username="u")
    assert site.pgstow("run", "nightly").code == 3
    away.rename(offsite)
    site.make_due()
    with stopped_run(site, "copy", "--if-due") as process:
        assert [one.outcome for one in site.runs()] == ["done", "partial"]
        assert not site.open_dues()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert b"the runs are done" in stderr
    newest = site.runs()[0]
    assert (newest.outcome, newest.warnings) == ("done", ("catch-up: offsite: interrupted",))
    (site.folder / "stopped-copy").unlink()
    with stopped_run(site, "copy") as process:
        process.kill()
    assert site.pgstow("run", "nightly").code == 0
    assert [one.outcome for one in site.runs()] == ["done", "done", "done", "partial"]
    far = Repository.open(LocalStore(offsite), Secret(PASSWORD))
    assert [one.id for one in list_backups(far)] == [one.id for one in site.backups()]
    assert len(site.backups()) == 4


def test_critical_tables_and_what_must_be_there(make_site: Callable[..., Site]) -> None:
    """A plan of kind critical takes these alone; all others fail without what the database must contain."""
    site = make_site("shop", of_each_database="    critical: [public.a]\n    must_contain: [public.b]\n")
    site.write_settings(plans="  critical: {}\n  nightly:\n    kind: daily\n")
    critical = site.pgstow("run", "critical", "--json")
    assert critical.code == 0, critical.stdout
    nightly = site.pgstow("run", "nightly", "--json")
    assert nightly.code == 1
    assert nightly.json()["error"]["code"] == "missing_table"
    with psycopg.connect(site.sources["shop"].connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE b AS SELECT 1 AS i")
    assert site.pgstow("run", "nightly", "--json").code == 0
    assert [(one.kind, one.is_partial) for one in site.backups()] == [("critical", True), ("daily", False)]
    assert [set(one.tables) for one in site.runs("done")] == [{"public.a", "public.b"}, {"public.a"}]
