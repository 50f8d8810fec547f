"""Before a drill begins it is told how long it will take, and whether its target is in danger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgstow.app.drill_forecast import against_target, forecast_drill, forecast_text
from pgstow.catalog.drills import DrillRecord
from pgstow.catalog.manifest import LargeObjectsRecord, Manifest, TableRecord
from support.drilling import drill_record

MIB = 1 << 20


def manifest(size_bytes: int, name: str = "shop") -> Manifest:
    """What a forecast looks at."""
    table = TableRecord.model_construct(size_bytes=size_bytes - MIB)
    return Manifest.model_construct(
        name=name, tables=(table,), large_objects=LargeObjectsRecord(count=1, size_bytes=MIB)
    )


def drills(count: int = 3, **more: Any) -> list[DrillRecord]:
    return [
        drill_record(ago=timedelta(days=day), **{"size_bytes": 100 * MIB, "proven_s": 60.0, **more})
        for day in range(1, count + 1)
    ]


def test_it_goes_by_drills_of_this_database_in_such_a_place() -> None:
    others = [*drills(5, backup_name="other", proven_s=900.0), *drills(5, place="database", proven_s=900.0)]
    found = forecast_drill([*others, *drills()], manifest(100 * MIB), place="throwaway")
    assert found is not None and found.seconds == pytest.approx(60.0)
    assert "about 1 min 00 s" in forecast_text(found)
    assert "3 drills of PostgreSQL 16 in a throwaway server" in forecast_text(found)


@pytest.mark.parametrize(
    ("earlier", "size"),
    [
        (drills(2), 100 * MIB),
        (drills(3, outcome="failed", proven_s=None), 100 * MIB),
        (drills(3), 900 * MIB),
        ([], 5),
    ],
)
def test_nothing_is_said_that_nobody_knows(earlier: list[DrillRecord], size: int) -> None:
    assert forecast_drill(earlier, manifest(size), place="throwaway") is None


@pytest.mark.parametrize(
    ("target_s", "said"),
    [(None, None), (600.0, None), (61.0, "may be missed"), (50.0, "will probably be missed")],
)
def test_the_target(target_s: float | None, said: str | None) -> None:
    found = forecast_drill(drills(), manifest(100 * MIB), place="throwaway")
    assert found is not None
    feared = against_target(found, target_s)
    assert (feared is None) is (said is None)
    assert feared is None or (said is not None and said in feared)
