"""The line for Nagios, and small pictures."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.text import Text

from pgstow.cli.output import Output
from pgstow.cli.status_check import check_outcome, unknown_outcome
from pgstow.cli.status_document import status_document
from pgstow.cli.status_view import sparkline, status_view
from pgstow.core.errors import StoreUnavailable
from pgstow.monitor.facts import DatabaseFacts, Facts
from pgstow.monitor.storage import StorageFacts
from pgstow.monitor.verdict import judge
from support.drilling import drill_record
from support.facts import AWAY, NIGHTLY, facts_of, one, repository_facts, run
from support.policies import NOW, daily

# Of the guidelines: 'label'=value[UOM];[warn];[crit];[min];[max], numbers of digits, minus and point.
PERFORMANCE = re.compile(
    r"'(?:[^'=|]|'')+'=-?[0-9.]+(?:s|B)?;(?:[0-9.]*:?)?;(?:[0-9.]*)?;(?:[0-9.]*)?(?:;[0-9.]*)?"
)


def checked(facts: Facts) -> tuple[int, str]:
    output = Output(command="status", stdout=io.StringIO(), secrets={"hunter2"})
    verdict = judge(facts)
    outcome = check_outcome(verdict, status_document(verdict, output), output)
    output.result(outcome)
    text = output.stdout.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 1
    return outcome.exit_code, text.rstrip("\n")


def performance(line: str) -> list[str]:
    text, _, data = line.partition(" | ")
    assert "|" not in text
    found = PERFORMANCE.findall(data)
    assert " ".join(found) == data
    return found


def test_what_drills_say() -> None:
    """Beside each database, when anybody looked; and in the line for Nagios."""
    drills = tuple(
        drill_record(ago=timedelta(days=9 - number), size_bytes=5000, proven_s=3000 + number)
        for number in range(3)
    )
    shop = DatabaseFacts(name="shop", rpo_s=86400.0, rto_s=14400.0)
    plan = replace(NIGHTLY, plan="drill", job="drill", kind="drill", next_due=NOW + timedelta(days=9))
    nights = daily(5, size_bytes=5000)
    places = repository_facts("local", nights, drills=drills), repository_facts("far", nights, drills=())
    facts = facts_of(*places, databases=[shop], plans=[NIGHTLY, plan])
    _, line = checked(facts)
    assert "'shop rto'=3002s;;14400;0" in performance(line)
    told = shown(facts)
    assert "last drill passed 11-14 12:51; achieved RTO 50 min of 4 h; forecast 50 min (4" in told
    assert "from 3 drills of PostgreSQL 16 in a throwaway server; next drill 11-30 12:00" in told
    failed = drill_record("failed", ago=timedelta(hours=2), backup_id="gone")
    near = repository_facts("local", nights, drills=(*drills, failed))
    assert "last drill failed 11-21 10:51, passed 11-14 12:51" in shown(
        facts_of(near, places[1], databases=[shop])
    )
    away = repository_facts("local", nights, drills_error=StoreUnavailable("away"))
    assert "drills unknown" in shown(facts_of(away, databases=[shop], plans=()))
    assert "never drilled" in shown(
        facts_of(repository_facts("local", nights, drills=()), databases=[shop], plans=())
    )
    assert "drill" not in shown(facts_of()), "nobody looked"


def shown(facts: Facts) -> str:
    output = Output(command="status", stdout=io.StringIO(), secrets=set())
    lines = [each.plain for each in status_view(judge(facts), output) if isinstance(each, Text)]
    return "\n".join(lines)


def test_ok() -> None:
    disk = StorageFacts(where="disk of /srv", free_bytes=400, total_bytes=1000)
    nights = daily(5, size_bytes=5000)
    code, line = checked(
        facts_of(repository_facts("local", nights, storage=(disk,)), repository_facts("far", nights))
    )
    assert code == 0
    assert line.startswith("PGSTOW OK - shop: newest backup 9 h 59 min old | ")
    assert performance(line) == [
        "'shop age'=35993s;;;0",
        "'shop rpo'=35993s;;86400;0",
        "'shop size'=5000B;;;0",
        "'disk of /srv free'=400B;100:;;0;1000",
    ]


def test_levels() -> None:
    assert checked(facts_of(runs=[run("failed")]))[0] == 1
    assert checked(facts_of(repository_facts("local"), repository_facts("far")))[0] == 2
    assert checked(facts_of(repository_facts("local", daily(3)), AWAY("far")))[0] == 3


def test_one_line_whatever_the_words() -> None:
    failed = run("failed", error="no | pipe\nsecond line \x1b[31m hunter2")
    code, line = checked(facts_of(runs=[failed]))
    assert code == 1
    assert r"no / pipe\nsecond line \x1b[31m ***" in line
    performance(line)


def test_many_reasons_are_counted() -> None:
    names = [f"db{number}" for number in range(30)]
    facts = facts_of(
        repository_facts("local", [one(NOW - timedelta(days=9), name=name) for name in names]),
        plans=(),
        databases=[DatabaseFacts(name=name, rpo_s=3600.0) for name in names],
    )
    code, line = checked(facts)
    assert code == 2
    assert "and 26 more" in line
    assert len(performance(line)) == 90


def test_an_error_is_unknown() -> None:
    output = Output(command="status", stdout=io.StringIO())
    outcome = unknown_outcome(StoreUnavailable("the bucket does not answer"), output)
    assert outcome.exit_code == 3
    assert output.stdout.getvalue() == "PGSTOW UNKNOWN - the bucket does not answer\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), ""), ((5,), "▄"), ((5, 5), "▄▄"), ((0, 7), "▁█"), ((0, 1, 2, 3, 4, 5, 6, 7), "▁▂▃▄▅▆▇█")],
)
def test_sparkline(values: tuple[float, ...], expected: str) -> None:
    assert sparkline(values) == expected
