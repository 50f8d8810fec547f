"""A dump that somebody else made, drilled in one step and without a repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pgstow.app.drill import drill_dump
from pgstow.app.drill_request import DrillRequest
from pgstow.catalog.assertions import Assertion
from pgstow.core.confinement import can_confine
from pgstow.core.errors import PgstowError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import read_directory_toc, write_directory_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from support.backups import tools_for
from support.foreign_dumps import dump_to
from support.restoring import execute, fetch


@pytest.fixture
def dump(pg15: Cluster, database: Callable[..., ConnInfo], tmp_path: Path) -> Path:
    source = database(pg15, "bank")
    execute(
        source,
        "CREATE TABLE ledger (id int PRIMARY KEY, amount int);"
        "INSERT INTO ledger SELECT i, i FROM generate_series(1, 1000) i; CREATE INDEX ON ledger (amount)",
    )
    place = tmp_path / "old.dump"
    with source.tool_env() as env:
        subprocess.run([tools_for(source).pg_dump, "-Fc", "-f", place], env=env, check=True)
    return place


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The system's temporary folder; pytest, whose ``tmp_path`` is made first, keeps its own elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="drills-"))
    folder.chmod(0o711)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def request(pg15: Cluster, *assertions: Assertion) -> DrillRequest:
    server = ConnInfo.parse(pg15.conninfo())
    return DrillRequest(host="host", username="anna", server=server, assertions=assertions)


def test_a_dump_in_one_step(
    dump: Path, pg15: Cluster, client_tools: list[ClientTools], temporary: Path
) -> None:
    sound = Assertion(name="sum", sql="SELECT sum(amount) FROM public.ledger", equals="500500")
    told = drill_dump(str(dump), request(pg15, sound), client_tools, SilentProgress(), environ={})
    record = told.record
    assert record.outcome == "passed", (record.error, record.issues)
    assert (record.selected, record.repository, record.backup_name) == ("file", str(dump), "bank")
    assert [(one.name, one.rows, one.is_equal) for one in record.tables] == [("ledger", 1000, True)]
    assert [one.name for one in record.phases][:2] == ["import", "look-up"]
    assert told.unsaved is None and told.kept_in is None
    assert list(temporary.iterdir()) == []
    left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgstow%'"
    assert fetch(ConnInfo.parse(pg15.conninfo()), left) == [(0,)]


def test_a_dump_that_was_cut_off(
    dump: Path, pg15: Cluster, client_tools: list[ClientTools], temporary: Path
) -> None:
    """There is nothing to restore: that is told before a drill begins."""
    dump.write_bytes(dump.read_bytes()[:-700])
    with pytest.raises(PgstowError):
        drill_dump(str(dump), request(pg15), client_tools, SilentProgress(), environ={})
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not can_confine(), reason="this system has no Landlock")
def test_a_dump_that_means_harm_does_none(
    pg15: Cluster,
    database: Callable[..., ConnInfo],
    client_tools: list[ClientTools],
    temporary: Path,
    tmp_path: Path,
) -> None:
    """Its statements run as the superuser of the throwaway server, which can do nothing to the machine."""
    tmp_path.chmod(0o777)
    marker, source = tmp_path / "marker", database(pg15)
    execute(source, "CREATE TABLE t (id int)")
    place = dump_to(tmp_path / "evil.dir", source, tools_for(source), "-Fd")
    toc = read_directory_toc((place / "toc.dat").read_bytes())
    harm = f"COPY (SELECT 1) TO PROGRAM 'touch {marker}';".encode()
    entries = (replace(one, defn=harm) if one.desc == b"TABLE" else one for one in toc.entries)
    (place / "toc.dat").write_bytes(write_directory_toc(replace(toc, entries=tuple(entries))))
    wanted = DrillRequest(host="host", username="anna", server_path=os.environ["PATH"])
    record = drill_dump(str(place), wanted, client_tools, SilentProgress(), environ={}).record
    assert record.outcome == "failed"
    assert re.search("could not (execute command|close pipe)", record.error or ""), record.error
    assert not marker.exists()
    assert list(temporary.iterdir()) == []
