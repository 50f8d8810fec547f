"""pgstow's own commands, changed where a test needs it.

``python -m support.stopping_run serve SHAPE -- ARGUMENTS`` is ``pgstow serve`` of a host with that workflow shape, whose
runs stop themselves (with ``serve-on`` they do not): it starts them by ``... run MARKER -- ARGUMENTS``. A run of a database whose name is that of a point,
or begins with it and a dash, sends itself SIGSTOP when it comes there, once for all that share the file MARKER. Points: ``begin`` (before anything is
read), ``rows`` (before the first pack is stored), ``claim`` (before it is sure to publish), ``record`` (published, but not
written down), ``copy`` (before a repository is given a backup that it had missed), ``drill`` (restored, but not checked).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pgstow.app import drill_run, plan_jobs, run_history
from pgstow.cli.main import main
from pgstow.repository import Repository
from pgstow.store.local import LocalStore


def _stop_once(marker: Path) -> None:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def _before(owner: Any, name: str, when: Callable[..., bool], marker: Path) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def stopping(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            _stop_once(marker)
        return inner(*args, **kwargs)

    setattr(owner, name, stopping)


def _arrange_stop(point: str, marker: Path) -> None:
    if point == "begin":
        _before(plan_jobs, "backup_to", lambda *_: True, marker)
    elif point == "rows":
        _before(LocalStore, "put", lambda _self, name, *_: name.startswith("data/"), marker)
    elif point == "claim":
        _before(LocalStore, "put", lambda _self, name, *_: name.startswith("pgstow/runs/"), marker)
    elif point == "copy":
        _before(Repository, "save_copied_snapshot", lambda *_: True, marker)
    elif point == "drill":
        _before(drill_run, "check_restored", lambda *_: True, marker)
    elif point == "record":
        _before(run_history.RunHistory, "save", lambda _self, record, *_: record.outcome == "done", marker)


def _change_serve(shape: int, *, has_stops: bool) -> None:
    marker = Path(os.environ["PGSTOW_STATE_DIR"]).parent / f"stopped-{os.getpid()}"
    stopping = {"program": (sys.executable, "-m", "support.stopping_run", "run", str(marker), "--")}
    module: Any = import_module("pgstow.cli.serve")
    request = module.ServeRequest

    def changed(**fields: Any) -> Any:
        return request(**{**fields, **(stopping if has_stops else {}), "shape": shape})

    module.ServeRequest = changed


if __name__ == "__main__":
    what, detail, _, *arguments = sys.argv[1:]
    if what in ("serve", "serve-on"):
        _change_serve(int(detail), has_stops=what == "serve")
    elif "--database" in arguments:
        name = arguments[arguments.index("--database") + 1]
        _arrange_stop(name.partition("-")[0], Path(f"{detail}-{name}"))
    sys.argv = ["pgstow", *arguments]
    sys.exit(main())
