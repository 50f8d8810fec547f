"""What the results say: targets, tables, the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import write_document
from bench.results import DrillEntry, Entry, GrowthEntry, PhaseEntry, Results, Series, TrafficEntry
from bench.tables import tables, tables_about_changes
from bench.targets import judge

MARKS = (
    "<!-- bench: from here to the end mark, written by python -m bench -->",
    "<!-- bench: end -->",
)


def series(
    case: str, contestant: str, *, wall_s: float, server_cpu_s: float = 1.0, stored: int = 100
) -> Series:
    entry = Entry(
        wall_s=wall_s, cpu_s=1.0, server_cpu_s=server_cpu_s, peak_bytes=50_000_000, stored_bytes=stored
    )
    return Series(
        case=case, contestant=contestant, title=contestant, command=f"{contestant} run", entries=[entry]
    )


def results_of(*all_series: Series) -> Results:
    about = {"cores": 2, "processor": "a processor", "memory_gb": 8, "system": "a system", "versions": {}}
    return Results(
        options={"command": "python -m bench", "runs": 1}, machine=about, settings={}, series=list(all_series)
    )


CHANGED = (
    series("unchanged", "pgstow", wall_s=2.0, server_cpu_s=2.0),
    series("unchanged", "restic-0.14", wall_s=12.0, server_cpu_s=9.0),
    series("unchanged", "restic-0.18", wall_s=10.0, server_cpu_s=8.0),
    series("unchanged", "full-read", wall_s=9.0, server_cpu_s=5.0),
    series("everywhere", "pgstow", wall_s=11.0),
    series("everywhere", "into-empty", wall_s=10.0),
    series("updated", "pgstow", wall_s=5.0, stored=120),
    series("updated", "restic-0.18", wall_s=5.0, stored=100),
    series("first-distance", "folder", wall_s=10.0),
    series("first-distance", "bucket", wall_s=12.0),
    series("first-distance", "late", wall_s=13.0),
)  # fmt: skip


def test_targets_about_changes_are_held_against_the_best_peer() -> None:
    judged = {
        (target.name, target.against): (target.value, target.verdict)
        for target in judge(results_of(*CHANGED))
        if target.is_about_changes
    }
    server = "nothing changed: processor time of the server"
    late = "first backup, 50 ms away: seconds"
    assert judged == {
        ("nothing changed: seconds", "restic-0.18"): (0.2, "pass"),
        (server, "full-read"): (0.4, "miss"),
        (server, "restic-0.18"): (0.25, "pass"),
        ("every page range changed: seconds", "into-empty"): (1.1, "pass"),
        ("1 % added: seconds", "restic"): (None, "not measured"),
        ("1 % added: stored", "restic"): (None, "not measured"),
        ("1 % updated: stored", "restic-0.18"): (1.2, "miss"),
        (late, "folder"): (1.3, "miss"),
        (late, "bucket"): (pytest.approx(13 / 12), "pass"),
    }


def test_only_what_was_measured_has_tables() -> None:
    assert [table.heading for table in tables(results_of(*CHANGED))] == []
    job = results_of(series("first", "pgstow", wall_s=1.0))
    assert len(list(tables(job))) == 2
    assert list(tables_about_changes(job)) == []


def test_the_document_has_a_section_about_changes(tmp_path: Path) -> None:
    results = results_of(*CHANGED)
    results.traffic.append(TrafficEntry(what="unchanged", title="pgstow", server_bytes=6_100_000))
    results.growth.append(
        GrowthEntry(
            database_bytes=2_000_000_000, rows=13_000_000, first_s=9.0, first_peak_bytes=110_000_000, again_s=2.0,
            again_cpu_s=1.0, again_server_cpu_s=2.5, again_peak_bytes=70_000_000, repository_bytes=500_000_000,
            index_bytes=150_000, first_requests={"PUT": 40, "GET": 3}, again_requests={"PUT": 5, "GET": 14},
        )
    )  # fmt: skip
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n" + "\n".join(MARKS) + "\nafter\n")
    write_document(results, document, "picture.png")
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    section = text.partition("## Reading only what changed\n")[2]
    assert "| nothing changed | pgstow | 6.1 |" in section
    assert "| 2.00 GB | 13.0 | 9.0 | 110 | 2.0 | 1.0 | 2.5 | 70 | 500.0 | 0.150 |" in section
    assert "| 2.00 GB, unchanged | 5 | 14 | 0 | 0 | 0 | 19 |" in section
    assert "- pgstow, another backup: `pgstow run`" in text


def test_the_drill_in_the_middle_shows_what_it_was_spent_on() -> None:
    """Two phases that overlap: two sessions worked on the first one."""
    results = results_of(series("drill", "pgstow", wall_s=12.0), series("drill", "plain", wall_s=10.0))
    for wall_s in (99.0, 12.0, 11.0):
        phases = [
            PhaseEntry(name="content", begun_s=5.0, seconds=6.0, busy_s=5.0),
            PhaseEntry(name="loading", begun_s=1.0, seconds=8.0, busy_s=wall_s + 3.0),
        ]
        results.drills.append(DrillEntry(wall_s=wall_s, phases=phases))

    _drill, shown, targets = tables(results)

    assert "of 12.0 seconds" in shown.heading
    assert list(shown.rows) == [
        ("loading", "1.0", "9.0", "15.0", "75%"),
        ("content", "5.0", "11.0", "5.0", "25%"),
    ]
    judged = {row[0]: row[2:] for row in targets.rows}
    assert judged["drill, every row compared"] == ("1.25", "1.20", "pass")
