"""What the repositories of a plan are brought after a run, and what must not come back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pgstow.app import catching_up, copy
from pgstow.app.catching_up import CaughtUp, Lacking, bring, find_lacking
from pgstow.app.plan_parts import PlanParts
from pgstow.app.retention import RetentionRequest, apply_retention
from pgstow.app.run_plan import PlanOrder, PlanRun, catch_up_after
from pgstow.catalog.backups import list_backups
from pgstow.config.references import Reference
from pgstow.config.settings import PlanSettings, RepositorySettings, Settings
from pgstow.core.errors import Interrupted, StoreError
from pgstow.core.progress import SilentProgress
from pgstow.repository import Repository
from pgstow.retention import RetentionPolicies, RetentionPolicy, RetentionRule
from pgstow.state.database import open_state
from pgstow.state.runs import DestinationResult, RunRecord, Runs
from pgstow.state.spool import Spool
from pgstow.store.local import LocalStore
from support.backups import Notes
from support.copying import quick_locks
from support.dated_backups import backup_id, save_dated
from support.repositories import init_repository
from support.restic import PASSWORD
from support.team import team_settings
from support.waiting import until

NOW = datetime.now(UTC).replace(microsecond=0)
POLICY = RetentionPolicy(
    rules={"daily": RetentionRule(days=5), "critical": RetentionRule(days=2)}, promotes=False
)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_locks():
        yield


class Team:
    """Repositories near, far and third in folders, all of one plan; ``days`` old backups go where a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories = {
            name: init_repository(LocalStore(folder / name)) for name in ("near", "far", "third")
        }
        self.kinds: dict[str, tuple[str, ...]] = {}

    def save(self, days: float, *names: str, **given: object) -> str:
        for name in names:
            self.repositories[name].load_index()
            save_dated(self.repositories[name], int(days * 10), NOW - timedelta(days=days), **given)  # type: ignore[arg-type]
        return backup_id(int(days * 10))

    @property
    def settings(self) -> Settings:
        places = [
            RepositorySettings(
                name=name,
                location=str(self.folder / name),
                password=Reference(where="password", text="${PASSWORD}"),
                kinds=self.kinds.get(name),
            )
            for name in self.repositories
        ]
        plans = [
            PlanSettings(name=kind, kind=kind, databases=("shop",), repositories=tuple(self.repositories))
            for kind in ("daily", "critical")
        ]
        return team_settings(
            repositories={one.name: one for one in places},
            plans={plan.name: plan for plan in plans},
            retention=POLICY,
        )

    def parts(self, **given: object) -> PlanParts:
        values: dict[str, object] = {
            "settings": self.settings, "environ": {"PASSWORD": PASSWORD}, "tools": (), "username": "u",
            "hostname": "h", "host_id": "h", "state": None, "spool": Spool(self.folder / "spool"),
            "progress": SilentProgress(), "conceal": lambda _: None,
        }  # fmt: skip
        return PlanParts(**{**values, **given})  # type: ignore[arg-type]

    def lacking(self, *reached: str) -> Lacking | None:
        chosen = {name: self.repositories[name] for name in reached}
        settings = self.settings
        return find_lacking(settings.databases["shop"], chosen, settings)

    def wanted(self, *reached: str) -> dict[str, set[str]]:
        """Return the ids that each of these is to be brought."""
        found = self.lacking(*reached)
        targets = found.targets if found is not None else {}
        return {name: {each for ids in sources.values() for each in ids} for name, sources in targets.items()}

    def expire(self, name: str) -> None:
        request = RetentionRequest(policy=RetentionPolicies(default=POLICY))
        apply_retention(self.repositories[name], request, SilentProgress(), planned=None, prune=None)

    def hold(self, name: str, held: str) -> None:
        self.repositories[name].marks().hold(held, at=NOW, by="tester", reason="case 7")

    def ids(self, name: str) -> set[str]:
        return {each.id for each in list_backups(self.repositories[name])}


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def bring_all(team: Team, *reached: str) -> CaughtUp:
    caught, found = CaughtUp(), team.lacking(*reached)
    assert found is not None
    bring(found, team.settings.databases["shop"], team.parts(), caught)
    return caught


def test_what_was_missed_comes_from_whoever_has_it(team: Team) -> None:
    first, second, third = team.save(3, "near", "far", "third"), team.save(2, "near"), team.save(1, "far")
    newest = team.save(0, "near", "far", "third")
    everything = {first, second, third, newest}
    caught = bring_all(team, "near", "far", "third")
    assert {name: set(ids) for name, ids in caught.brought.items()} == {
        "near": {third}, "far": {second}, "third": {second, third},
    }  # fmt: skip
    assert caught.warnings == []
    assert all(team.ids(name) == everything for name in ("near", "far", "third"))
    assert team.lacking("near", "far", "third") is None


def test_who_could_not_be_reached_neither_gives_nor_gets(team: Team) -> None:
    missed = team.save(1, "near", "third")
    team.save(0, "near", "far", "third")
    assert team.wanted("near", "third") == {}
    assert team.wanted("near", "far") == {"far": {missed}}
    assert team.wanted("far") == {}


def test_what_expired_does_not_come_back(team: Team) -> None:
    """Whether the source keeps it by a hold, or has not let it expire yet."""
    old, older, missed = team.save(8, "near", "far"), team.save(9, "near", "far"), team.save(2, "near")
    team.save(0, "near", "far")
    team.hold("near", old)
    team.expire("far")
    assert not team.ids("far") & {old, older}
    assert {old, older} <= team.ids("near")
    assert team.wanted("near", "far") == {"far": {missed}}
    team.hold("far", old)
    assert team.wanted("near", "far") == {"far": {missed, old}}, "somebody wants it there"


@pytest.mark.parametrize("tags", [["damaged"], []])
def test_nor_where_nothing_may_expire(team: Team, tags: list[str]) -> None:
    """The newest one is damaged there, or from the future: that keeps what is there, and brings nothing back."""
    old = team.save(8, "near", "far")
    team.save(1, "near", "far")
    team.expire("far")
    for name in ("near", "far"):
        team.repositories[name].load_index()
        save_dated(team.repositories[name], 99, NOW + timedelta(hours=0 if tags else 2), tags=tags)
    assert old not in team.ids("far")
    assert team.wanted("near", "far") == {}


def test_kinds_and_names(team: Team) -> None:
    """A repository gets the kinds that plans make into it, of this database."""
    critical = team.save(1, "near", kind="critical", is_partial=True)
    team.save(1.5, "near", kind="dr")  # made by hand
    team.save(1.6, "near", name="books")
    missed = team.save(1.7, "near")
    team.save(0, "near", "far")
    assert team.wanted("near", "far") == {"far": {critical, missed}}
    team.kinds = {"far": ("daily",)}
    assert team.wanted("near", "far") == {"far": {missed}}


def test_what_one_cannot_give_another_does(team: Team) -> None:
    """A source that lost its packs is no matter as long as there is a second one; else it is a warning."""
    missed = team.save(1, "near", "third")
    team.save(0, "near", "far", "third")
    shutil.rmtree(team.folder / "near" / "index")
    (team.folder / "near" / "index").mkdir()
    found = team.lacking("near", "far")
    assert found is not None
    caught = CaughtUp()
    bring(found, team.settings.databases["shop"], team.parts(), caught)
    assert caught.brought == {"far": []}
    (warning,) = caught.warnings
    assert warning.startswith(f"catch-up: far: near cannot give backup {missed[:8]}: ")
    caught = bring_all(team, "near", "far", "third")
    assert (caught.brought["far"], caught.warnings) == ([missed], [])


def test_a_failure_keeps_what_was_brought_before_it(team: Team) -> None:
    first, second = team.save(2, "near"), team.save(1, "near")
    team.save(0, "near", "far")
    honest = Repository.save_copied_snapshot
    calls: list[bytes] = []

    def failing(self: Repository, content: bytes, **of: Any) -> str:
        calls.append(content)
        if len(calls) == 2:
            raise StoreError("gone away")
        return honest(self, content, **of)

    with patch.object(Repository, "save_copied_snapshot", failing):
        caught = bring_all(team, "near", "far")
    assert (caught.brought, caught.warnings) == ({"far": [first]}, ["catch-up: far: gone away"])
    assert bring_all(team, "near", "far").brought == {"far": [second]}


def test_who_is_being_pruned_is_waited_for(team: Team) -> None:
    missed = team.save(1, "near")
    team.save(0, "near", "far")
    found, database = team.lacking("near", "far"), team.settings.databases["shop"]
    assert found is not None
    with ExitStack() as pruning, ThreadPoolExecutor() as threads:
        pruning.enter_context(team.repositories["far"].lock(exclusive=True))
        bring(found, database, team.parts(), at_once := CaughtUp())
        waits = Notes()
        bringing = threads.submit(
            bring, found, database, team.parts(progress=waits), later := CaughtUp(), wait_s=60.0
        )
        until(lambda: any("waiting" in note for note in waits.notes), "one that waits")
        pruning.close()
        bringing.result()
    assert (at_once.brought, later.brought, later.warnings) == ({"far": []}, {"far": [missed]}, [])
    assert at_once.warnings[0].startswith("catch-up: far: target: ")


def test_what_cannot_be_told_is_a_warning(team: Team) -> None:
    team.save(0, "near", "far")
    with patch.object(catching_up, "list_backups", side_effect=StoreError("gone away")):
        found = team.lacking("near", "far")
    assert found is not None
    assert found.warnings == ["catch-up: near: gone away", "catch-up: far: gone away"]


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_record_of_the_run_tells(team: Team, is_interrupted: bool) -> None:
    """Its outcome stays, whatever came of it."""
    missed = team.save(1, "near")
    team.save(0, "near", "far")
    settings = team.settings
    order = PlanOrder(plan=settings.plans["daily"], database=settings.databases["shop"])
    destinations = tuple(DestinationResult(repository=name, snapshot_id=name) for name in ("near", "far"))
    record = RunRecord(
        id=Runs.new_id(), plan="daily", job="backup", kind="daily", database="shop", due=None, started=NOW,
        host="h", finished=NOW, outcome="done", warnings=("other",), destinations=destinations,
    )  # fmt: skip
    run = PlanRun(record=record, lacking=team.lacking("near", "far"))
    with closing(open_state(None, {"PGSTOW_STATE_DIR": str(team.folder / "state")})) as state:
        parts = team.parts(state=state)
        if is_interrupted:
            with (
                patch.object(copy, "copy_snapshots", side_effect=Interrupted("by you")),
                pytest.raises(Interrupted),
            ):
                catch_up_after(order, run, parts)
        else:
            assert catch_up_after(order, run, parts).record.destinations[1].caught_up == (missed,)
        known = Runs(state).get(record.id)
    assert known is not None
    assert known.outcome == "done"
    assert [one.caught_up for one in known.destinations] == [(), () if is_interrupted else (missed,)]
    assert known.warnings == (("other", "catch-up: far: interrupted") if is_interrupted else ("other",))


def test_a_record_that_waited_for_the_state_database(team: Team) -> None:
    destinations = (DestinationResult(repository="far", snapshot_id="s", caught_up=("a", "b")),)
    record = RunRecord(
        id=Runs.new_id(), plan="daily", job="backup", kind="daily", database="shop", due=None, started=NOW,
        host="h", finished=NOW, outcome="done", destinations=destinations,
    )  # fmt: skip
    spool = Spool(team.folder / "spool")
    spool.keep(record)
    with closing(open_state(None, {"PGSTOW_STATE_DIR": str(team.folder / "state")})) as state:
        assert spool.deliver(Runs(state)) == 1
        assert Runs(state).get(record.id) == record
