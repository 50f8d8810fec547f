"""promtool judges what we tell Prometheus, and the alert rules and dashboard that are shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pgstow.app.metrics import metrics_of
from pgstow.monitor.metrics import metrics_text
from support.facts import facts_of

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "pgstow.rules.yml"
RULE_TESTS = RULES.with_name("pgstow.rules_test.yml")
DASHBOARD = ROOT / "deploy" / "grafana" / "pgstow.json"
UNAVAILABLE = ROOT / ".tools" / "unavailable"


@pytest.fixture(scope="module")
def promtool() -> str:
    """promtool as scripts/install-test-tools left it; its absence fails unless that script says why."""
    unpacked = ROOT / ".tools" / "prometheus" / "promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        lines = UNAVAILABLE.read_text().splitlines() if UNAVAILABLE.exists() else []
        for line in lines:
            if line.startswith("promtool\t"):
                pytest.skip(line.expandtabs(1))
        pytest.fail("promtool is not there; run scripts/install-test-tools", pytrace=False)
    return found


def judge(promtool: str, *arguments: str | Path, given: bytes | None = None) -> str:
    ended = subprocess.run(
        [promtool, *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.returncode == 0, ended.stdout.decode()
    return ended.stdout.decode()


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = YAML(typ="safe").load(RULES)["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def our_metrics() -> set[str]:
    return {family.name for family in metrics_of(facts_of(), collect_seconds=0.1)}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bpgstow_\w+", expression))


def test_our_output(promtool: str) -> None:
    text = metrics_text(metrics_of(facts_of(), collect_seconds=0.1))
    assert judge(promtool, "check", "metrics", given=text) == ""


def test_rules_fire_and_are_quiet(promtool: str) -> None:
    judge(promtool, "check", "rules", RULES)
    assert "SUCCESS" in judge(promtool, "test", "rules", RULE_TESTS)


def test_each_rule_is_tested_both_ways() -> None:
    fired, quiet = set(), set()
    for case in YAML(typ="safe").load(RULE_TESTS)["tests"]:
        for test in case["alert_rule_test"]:
            (fired if test["exp_alerts"] else quiet).add(test["alertname"])
    assert fired == quiet == set(alerts())


def test_each_rule_says_what_to_do() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert set(rule["annotations"]) == {"summary", "description"}, name


def test_rules_name_only_metrics_that_there_are() -> None:
    named = {name for rule in alerts().values() for name in metrics_in(rule["expr"])}
    assert named
    assert named <= our_metrics()


def expressions() -> Iterator[str]:
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_dashboard_shows_every_metric_that_there_is() -> None:
    shown = {name for expression in expressions() for name in metrics_in(expression)}
    assert shown <= our_metrics()
    left_out = our_metrics() - shown
    assert left_out == {
        "pgstow_rpo_achieved_seconds",  # its moment is shown, which stays true
        "pgstow_backup_next_due_timestamp_seconds",
        "pgstow_critical_table_missing",
        "pgstow_run_last_timestamp_seconds",
        "pgstow_build_info",
    }


def test_dashboard_asks_what_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$database", ".*")}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in judge(promtool, "check", "rules", path)


def test_dashboard_panels_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text())
    taken: dict[tuple[int, int], str] = {}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
