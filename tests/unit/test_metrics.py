"""What Prometheus is told, read back with its own parser; and how it is given away."""

from __future__ import annotations

import http.client
import socket
import stat
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgstow.app.metrics import MetricsBoard, metrics_of
from pgstow.core.errors import PgstowError, StoreUnavailable, UsageError
from pgstow.monitor.control_metrics import control_families
from pgstow.monitor.exporter import serve_metrics, write_textfile
from pgstow.monitor.facts import AlertFacts, DatabaseFacts, Facts, TableSize
from pgstow.monitor.metrics import metrics_text
from pgstow.monitor.newest_rows import RowMoment
from pgstow.monitor.storage import Forecast, Growth, StorageFacts
from pgstow.state.controls import ControlStatus
from pgstow.state.runs import DestinationResult
from support.drilling import drill_record
from support.facts import AWAY, NIGHTLY, facts_of, one, repository_facts, run
from support.policies import NOW, daily
from support.waiting import until

H, DAY = timedelta(hours=1), timedelta(days=1)
PAGE = Path(__file__).parent.parent.parent / "docs" / "monitoring.md"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(facts: Facts) -> Samples:
    text = metrics_text(metrics_of(facts, collect_seconds=0.5)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"pgstow_{name}", tuple(sorted(labels.items()))))


def everything() -> Facts:
    """Return facts that give every metric a value."""
    nights = daily(5, size_bytes=1000)
    storage = StorageFacts(
        where="disk of /srv",
        used_bytes=60,
        free_bytes=40,
        total_bytes=100,
        growth=Growth(per_day=2.0, low=1.0, high=3.0),
        forecast_full=Forecast(at=NOW + 20 * DAY, earliest=NOW, latest=None),
    )
    local = repository_facts("local", nights, storage=(storage,))
    newest = (local.backups or ())[-1]
    drills = (
        drill_record(ago=40 * DAY),
        drill_record(ago=20 * DAY),
        drill_record("failed", ago=4 * DAY, backup_id=newest.id),
        drill_record(backup_kind="weekly"),
    )
    local = replace(local, drills=drills)
    verified = (DestinationResult(repository="local"), DestinationResult(repository="far", error="no"))
    alert = AlertFacts(
        fingerprint="f", rule="size", severity="warning", subject="s", message="m", since=NOW, database="shop"
    )
    return facts_of(
        local,
        repository_facts("far", nights[:-1]),
        databases=[
            DatabaseFacts(
                name="shop", rpo_s=86400.0, rto_s=14400.0, critical=("public.ledger", "public.gone")
            )
        ],
        plans=[NIGHTLY, replace(NIGHTLY, plan="drill", job="drill", kind="drill", next_due=NOW + 9 * DAY)],
        runs=[
            run("failed", ago=2 * DAY),
            run(ago=10 * H),
            run(ago=5 * H, job="verify", destinations=verified),
        ],
        alerts=(alert,),
        contents={
            newest.id: {
                "public.ledger": TableSize(
                    rows=10, size_bytes=10 * 1024**3, reused_rows=4, newest_row=RowMoment(at=NOW - 11 * H)
                )
            }
        },
    )


def test_values() -> None:
    samples = read(everything())
    newest = NOW.replace(hour=2, second=7).timestamp()
    daily_of_shop = {"database": "shop", "kind": "daily"}
    assert (
        value(samples, "backup_last_success_timestamp_seconds", **daily_of_shop, repository="local") == newest
    )
    assert (
        value(samples, "backup_last_success_timestamp_seconds", **daily_of_shop, repository="far")
        == newest - 86400
    )
    assert value(samples, "backup_lacking", **daily_of_shop, repository="far") == 1
    assert value(samples, "backup_size_bytes", **daily_of_shop) == 1000
    assert value(samples, "newest_backup_timestamp_seconds", database="shop") == newest
    assert value(samples, "rpo_achieved_seconds", database="shop") == NOW.timestamp() - newest
    assert value(samples, "backup_rows", database="shop", how="reused") == 4
    assert value(samples, "backup_rows", database="shop", how="read") == 6
    assert value(samples, "critical_table_missing", database="shop", table="public.gone") == 1
    assert value(samples, "critical_table_missing", database="shop", table="public.ledger") == 0
    assert value(samples, "database_status", database="shop", level="critical") == 1
    assert value(samples, "database_status", database="shop", level="ok") == 0
    assert value(samples, "repository_backups", repository="far", **daily_of_shop) == 4
    place = {"repository": "local", "where": "disk of /srv"}
    assert value(samples, "storage_free_bytes", **place) == 40
    assert value(samples, "storage_full_timestamp_seconds", **place) == (NOW + 20 * DAY).timestamp()
    backup = {"database": "shop", "task": "backup", "kind": "daily"}
    assert value(samples, "runs_last_day", **backup, outcome="failed") == 0
    assert value(samples, "runs_last_day", **backup, outcome="done") == 1
    assert (
        value(samples, "run_last_timestamp_seconds", **backup, outcome="failed")
        == (NOW - 2 * DAY).timestamp()
    )
    verified = "backup_last_verified_timestamp_seconds"
    assert value(samples, verified, repository="local") == (NOW - 5 * H).timestamp()
    assert value(samples, verified, repository="far") is None
    assert value(samples, "open_alerts", database="shop", rule="size", severity="warning") == 1
    assert (
        value(samples, "critical_table_newest_row_timestamp_seconds", database="shop", table="public.ledger")
        == (NOW - 11 * H).timestamp()
    )


def test_a_newest_row_without_a_time_zone_is_no_moment() -> None:
    facts = everything()
    ((backup, inside),) = facts.contents.items()
    (size,) = inside.values()
    at = RowMoment(at=NOW, has_zone=False)
    without = replace(facts, contents={backup: {"public.ledger": replace(size, newest_row=at)}})
    row = "critical_table_newest_row_timestamp_seconds"
    assert value(read(without), row, database="shop", table="public.ledger") is None


def test_values_of_drills() -> None:
    samples = read(everything())
    place = {"database": "shop", "repository": "local"}
    passed = NOW - 3 * DAY + timedelta(minutes=51)
    assert value(samples, "drill_last_success_timestamp_seconds", **place) == passed.timestamp()
    assert value(samples, "drill_last_result", **place) == 0, (
        "a weekly one that passed says nothing of the daily ones"
    )
    assert value(samples, "drills_up", repository="local") == 1
    assert value(samples, "drills_up", repository="far") is None, "nobody looked"
    assert value(samples, "restore_duration_seconds", database="shop") == 3000
    assert value(samples, "rto_target_seconds", database="shop") == 14400
    assert value(samples, "restore_forecast_seconds", database="shop", bound="expected") == pytest.approx(
        3000
    )
    high = value(samples, "restore_forecast_seconds", database="shop", bound="high")
    assert high is not None
    assert 3000 < high < 4000
    assert value(samples, "drill_next_due_timestamp_seconds", database="shop") == (NOW + 9 * DAY).timestamp()
    facts = everything()
    mended = (*(facts.repositories["local"].drills or ()), drill_record(ago=H))
    repositories = {**facts.repositories, "local": replace(facts.repositories["local"], drills=mended)}
    assert value(read(replace(facts, repositories=repositories)), "drill_last_result", **place) == 1
    away = repository_facts("local", drills_error=StoreUnavailable("away"))
    samples = read(facts_of(away, plans=()))
    assert value(samples, "drills_up", repository="local") == 0
    assert value(samples, "drill_last_result", **place) is None


def test_every_metric_is_on_its_page_and_the_other_way_round() -> None:
    controls = control_families([ControlStatus(control="C4", result="pass", made=NOW)])
    families = [*metrics_of(everything(), collect_seconds=0.5), *controls]
    without = [family.name for family in families if not family.samples]
    assert without == []  # else the facts above prove nothing about them
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `pgstow_")]
    assert sorted(rows) == sorted(family.name for family in families)


def test_what_is_not_known_has_no_value() -> None:
    samples = read(facts_of(AWAY("local"), AWAY("far"), runs=None))
    assert value(samples, "repository_up", repository="local") == 0
    assert value(samples, "history_up") == 0
    names = {name for name, _ in samples}
    assert not names & {
        "pgstow_repository_backups",
        "pgstow_backup_lacking",
        "pgstow_rpo_achieved_seconds",
        "pgstow_newest_backup_timestamp_seconds",
    }


def test_databases_that_are_gone_vanish() -> None:
    both = [one(NOW - H), one(NOW - H, name="books")]
    places = repository_facts("local", both), repository_facts("far", both)
    databases = [DatabaseFacts(name="shop"), DatabaseFacts(name="books")]
    before = facts_of(*places, databases=databases)
    assert value(read(before), "rpo_achieved_seconds", database="books") == 3600
    after = read(replace(before, databases=(databases[0],)))
    assert value(after, "rpo_achieved_seconds", database="books") is None
    assert value(after, "rpo_achieved_seconds", database="shop") == 3600


def test_hostile_names_stay_labels() -> None:
    name = 'x"} 1\npgstow_forged{a="\\'
    table = TableSize(rows=1, size_bytes=1)
    backup = one(NOW - H, run="r")
    facts = facts_of(
        repository_facts("local", [backup]),
        repository_facts("far", [backup]),
        databases=[DatabaseFacts(name="shop", critical=(name,))],
        contents={"r": {name: table}},
    )
    samples = read(facts)
    assert value(samples, "critical_table_missing", database="shop", table=name) == 0
    assert not any("forged" in found for found, _ in samples)


def test_no_label_holds_the_id_of_a_backup() -> None:
    facts = everything()
    ids = {record.id for each in facts.repositories.values() for record in each.backups or ()}
    values = {text for _, labels in read(facts) for _, text in labels}
    assert not ids & values


def test_no_label_is_one_of_prometheus_itself() -> None:
    """A scrape would rename it."""
    names = {name for _, labels in read(everything()) for name, _ in labels}
    assert not names & {"job", "instance", "le", "quantile"}


# -- over HTTP


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.getheader("Content-Type")


def test_served() -> None:
    board = MetricsBoard(None)
    with serve_metrics("127.0.0.1:0", board.text) as port:
        assert get(port)[:2] == (200, b"")
        board.publish(metrics_of(everything(), collect_seconds=0.1))
        status, body, content_type = get(port, "/metrics?x=1")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert body == board.text()
        assert b"pgstow_backup_size_bytes" in body
        assert get(port, method="HEAD")[:2] == (200, b"")
        assert get(port, "/")[0] == 404
        assert get(port, "/metrics/../secret")[0] == 404
    with pytest.raises(OSError, match="refused"):
        get(port)


def test_a_failure_tells_no_details() -> None:
    def fail() -> bytes:
        raise RuntimeError("password=hunter2")

    with serve_metrics("localhost:0", fail) as port:
        status, body, _ = get(port)
    assert status == 500
    assert b"hunter2" not in body


def test_a_client_that_says_nothing_stops_neither_others_nor_the_end() -> None:
    before = set(threading.enumerate())
    with serve_metrics("127.0.0.1:0", lambda: b"x 1\n") as port:
        silent = socket.create_connection(("127.0.0.1", port))
        assert get(port)[1] == b"x 1\n"
    silent.close()

    def answering() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if "process_request_thread" in one.name} - before

    # the one that waits for the silent client ends by itself; the others are at their ends
    until(lambda: len(answering()) <= 1, lambda: f"the end of {answering()}")


def test_an_address_in_use_is_told() -> None:
    with serve_metrics("127.0.0.1:0", lambda: b"") as port:
        address = f"127.0.0.1:{port}"
        with (
            pytest.raises(PgstowError, match=f"cannot be served at {address}: ") as raised,
            serve_metrics(address, lambda: b""),
        ):
            pass
    assert raised.value.hint


@pytest.mark.parametrize("address", ["", "9187", "host:port", "host:99999", "http://host:1", "::1:9187"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address"), serve_metrics(address, lambda: b""):
        pass


def test_textfile_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "pgstow.prom"
    board = MetricsBoard(path)
    board.publish(metrics_of(everything(), collect_seconds=0.1))
    with path.open("rb") as old:
        board.publish(metrics_of(facts_of(), collect_seconds=0.1))
        assert b"public.gone" in old.read()  # a reader that had it open sees the old one, whole
    assert path.read_bytes() == board.text()
    assert b"public.gone" not in board.text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_textfile_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PgstowError, match="cannot be written"):
        write_textfile(tmp_path / "none" / "pgstow.prom", b"")
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(PgstowError, match="cannot be written"):
        write_textfile(tmp_path / "folder.prom", b"")
    assert [each.name for each in tmp_path.iterdir()] == ["folder.prom"]
