"""Measure pgstow and its peers on this machine, judge the targets, and write the results down.

Without options: a database of about two gigabytes, three runs, every case; this takes about three quarters
of an hour and 40 GB of disk. Such a full measurement writes bench/results/latest.json, docs/benchmarks.md and its
picture. Any other one (--quick, --only, other sizes), and one in which somebody failed, writes to build/bench instead.

Exit status: 0 when every target that was measured was met, 3 when one was missed, 1 when somebody or the
bench failed, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import cases, changes, chart, drills, growth, machine, marketplace, report, servers
from bench.memory import TERABYTE, memory_case
from bench.results import Results
from bench.targets import judge
from pgstow.core.errors import PgstowError
from pgstow.postgres.server import Cluster

_PROJECT: Final = Path(__file__).resolve().parents[1]
_CASES: Final = ("backup", "restore", "drill", "distance", "changes", "tables", "memory", "growth")
_MAIN_CASES: Final = frozenset({"backup", "restore", "drill", "distance", "changes"})
_SIDE_CASES: Final = frozenset({"restore", "tables", "memory", "growth"})
_GROWTH_STEPS: Final = (1 / 16, 1 / 4, 1)  # of the largest database
_DISK_BYTES_A_ROW: Final = 1600  # database, its kept copy, its log, everybody's repositories, a restored copy
_TARGET_MISSED: Final = 3
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    rows: int
    runs: int
    only: frozenset[str]
    contestants: frozenset[str]
    small_tables: int
    memory_bytes: int
    growth_bytes: int
    index_of_bytes: int
    work: Path
    keep: bool
    is_full: bool
    command: str


def parse(arguments: Sequence[str]) -> Options:
    """Return the options; exits as argparse does on a bad one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, help=f"rows of the main database (default {marketplace.FULL_ROWS:,})"
    )
    parser.add_argument("--runs", type=int, help="runs of every case (default 3)")
    parser.add_argument(
        "--only", action="append", choices=_CASES, default=[], help="one case; may be repeated"
    )
    parser.add_argument(
        "--contestant", action="append", default=[], metavar="NAME",
        help="one contestant, by the beginning of its name in the JSON file; may be repeated",
    )  # fmt: skip
    parser.add_argument("--tables", type=int, help="tables of the many-tables database (default 10,000)")
    parser.add_argument("--memory-gb", type=float, help="large database of the memory case (default 10)")
    parser.add_argument("--growth-gb", type=float, help="largest database of the growth case (default 8)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and one run, to try the bench itself"
    )
    parser.add_argument("--keep", action="store_true", help="keep the main database for the next time")
    parser.add_argument("--work-dir", type=Path, help="where everything is put (default: below /var/tmp)")
    given = parser.parse_args(arguments)
    sizes = (200_000, 1, 300, 0.3, 0.05) if given.quick else (marketplace.FULL_ROWS, 3, 10_000, 10.0, 8.0)
    changed = (given.rows, given.tables, given.growth_gb, *given.only, *given.contestant)
    return Options(
        rows=given.rows or sizes[0],
        runs=given.runs or sizes[1],
        only=frozenset(given.only or _CASES),
        contestants=frozenset(given.contestant),
        small_tables=given.tables or sizes[2],
        memory_bytes=round((given.memory_gb or sizes[3]) * 1e9),
        growth_bytes=round((given.growth_gb or sizes[4]) * 1e9),
        index_of_bytes=TERABYTE // 100 if given.quick else TERABYTE,
        work=given.work_dir.resolve() if given.work_dir else Path(f"/var/tmp/pgstow-bench-{os.getuid()}"),
        keep=given.keep,
        is_full=not given.quick and not any(changed),
        command=shlex.join(["python", "-m", "bench", *_without_folder(arguments)]),
    )


def _without_folder(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without --work-dir, which is nobody else's concern."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--work-dir"):
            kept.append(argument)
        skip = argument == "--work-dir"
    return kept


def run_cases(bench: cases.Bench, options: Options) -> None:
    """Run the cases that were asked for; the changes come last, as they change the main database."""
    facts = bench.results.database
    with ExitStack() as stack:
        side = (
            stack.enter_context(servers.server(options.work / "side")) if options.only & _SIDE_CASES else None
        )
        if options.only & _MAIN_CASES:
            main = stack.enter_context(_main_server(bench, options))
            source = main.conninfo("bench")
            size = servers.database_bytes(source)
            facts |= {"rows": options.rows, "tables": len(marketplace.TABLES), "bytes": size}
            if "backup" in options.only:
                cases.backup_case(bench, main, source)
            if "restore" in options.only and side:
                cases.restore_case(bench, main, source, side)
            if "drill" in options.only:
                drills.drill_case(bench, main, source)
            if "distance" in options.only:
                growth.distance_case(bench, main, source)
            if "changes" in options.only:
                changes.changes_case(bench, main, source, options.rows)
            main.stop()
            shutil.rmtree(bench.work / "contestants", ignore_errors=True)
        if "tables" in options.only and side:
            source = servers.create_database(side, "tables")
            marketplace.load_many_tables(source, options.small_tables)
            facts["small_tables"] = options.small_tables
            cases.tables_case(bench, side, source)
            servers.drop_database(side, "tables")
        if "memory" in options.only and side:
            memory_case(bench, side, size_bytes=options.memory_bytes, index_of_bytes=options.index_of_bytes)
        if "growth" in options.only and side:
            sizes = [round(options.growth_bytes * step) for step in _GROWTH_STEPS]
            growth.growth_case(bench, side, sizes)


def _main_server(bench: cases.Bench, options: Options) -> servers.ServerBlock:
    def fill(cluster: Cluster) -> None:
        bench.progress.print(f"loading {options.rows:,} rows", highlight=False)
        marketplace.load(servers.create_database(cluster, "bench"), options.rows)

    major = servers.server_binaries().version[0]
    mark = f"rows {options.rows} generator {marketplace.GENERATOR_VERSION} PostgreSQL {major}"
    kept = options.work / "kept" if options.keep else None
    return servers.kept_server(options.work / "main", kept, mark, fill)


def write_down(results: Results, options: Options) -> Path:
    """Write JSON, picture and document; return the folder of the JSON file."""
    if options.is_full and not results.failures:
        folder, document, picture = (
            _PROJECT / "bench" / "results",
            _PROJECT / "docs" / "benchmarks.md",
            "images",
        )
    else:
        folder = _PROJECT / "build" / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        document, picture = folder / "benchmarks.md", "."
        shutil.copyfile(_PROJECT / "docs" / "benchmarks.md", document)
    results.write(folder / "latest.json")
    chart.draw(results, document.parent / picture / "benchmarks.png")
    report.write_document(results, document, f"{picture}/benchmarks.png")
    return folder


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # ended by a time limit: stop the servers, clean up
    progress = Console(stderr=True)
    try:
        machine.install_peers()
        machine.compile_ourselves()
        programs = machine.find_programs()
        _check_room(options)
        asked = {"command": options.command, "runs": options.runs}
        results = Results(options=asked, machine=machine.describe(programs), settings=dict(servers.SETTINGS))
        bench = cases.Bench(
            programs=programs,
            chosen=options.contestants,
            runs=options.runs,
            work=options.work,
            results=results,
            progress=progress,
        )
        try:
            run_cases(bench, options)
        finally:
            _clean(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except PgstowError as error:
        progress.print(
            f"{error.message}" + (f"\nHINT: {error.hint}" if error.hint else ""), style="red", markup=False
        )
        return 1
    targets = judge(results)
    results.targets = [target.as_json() for target in targets]
    folder = write_down(results, options)
    report.print_report(results, Console())
    progress.print(f"written to {folder.relative_to(_PROJECT)}", highlight=False)
    if results.failures:
        return 1
    return _TARGET_MISSED if any(target.verdict == "miss" for target in targets) else 0


def _check_room(options: Options) -> None:
    """Refuse before anything is made when the disk cannot hold it."""
    options.work.mkdir(parents=True, exist_ok=True)
    options.work.chmod(0o755)  # the server's account must be able to pass through
    needed = options.rows * _DISK_BYTES_A_ROW if options.only & _MAIN_CASES else 0
    # The databases on the side come one after another; a growing one has its log and a repository beside it.
    memory = options.memory_bytes * 2 if "memory" in options.only else 0
    needed += max(memory, options.growth_bytes * 3 if "growth" in options.only else 0)
    if shutil.disk_usage(options.work).free < needed:
        raise PgstowError(
            f"{options.work} needs {needed / 1e9:.0f} GB of free space", hint="give another --work-dir"
        )


def _clean(options: Options) -> None:
    """Leave nothing behind but the kept database."""
    for name in (
        "main",
        "side",
        "side-by-side",
        "drill",
        "contestants",
        "physical-restore",
        *(() if options.keep else ("kept",)),
    ):
        shutil.rmtree(options.work / name, ignore_errors=True)
    if not any(options.work.iterdir()):
        options.work.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
