"""Jobs in the order of their needs, and never two that are in each other's way."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.catalog.manifest import TableRecord
from pgstow.core.schedule import Job, Schedule
from pgstow.postgres.archive import Section, Toc, TocEntry
from pgstow.postgres.loading import LoadTable
from pgstow.restore import contents
from pgstow.restore.builds import Build, Validation, select_builds
from pgstow.restore.job_plan import Reading, plan_jobs
from pgstow.restore.load_tasks import LoadTask
from pgstow.restore.sent_rows import SentRows
from support.archives import entry, header


def run(jobs: list[Job[str]], workers: int) -> list[list[str]]:
    """Work everything off and return what was under way together, step by step."""
    schedule = Schedule(jobs)
    stopped = threading.Event()
    steps: list[list[str]] = []
    running: list[Job[str]] = []
    done = 0
    while done < len(jobs):
        while len(running) < workers and (job := schedule._pop()) is not None:
            running.append(job)
        steps.append([job.work for job in running])
        schedule.done(running.pop(0))
        done += 1
    assert schedule.take(stopped) is None
    return steps


def job(key: int, cost: float = 1, **more: object) -> Job[str]:
    sets = {name: frozenset(value) for name, value in more.items() if isinstance(value, set)}
    return Job(key=key, work=str(key), cost=cost, tier=int(str(more.get("tier", 0))), **sets)


def test_the_longest_chain_goes_first() -> None:
    jobs = [job(1, 5), job(2, 1), job(3, 9, after={2}), job(4, 6)]
    assert [step[0] for step in run(jobs, 1)] == ["2", "3", "4", "1"]


def test_a_lower_tier_goes_first() -> None:
    jobs = [job(1, 5, tier=1), job(2, 1, tier=0), job(3, 9, tier=2)]
    assert [step[0] for step in run(jobs, 1)] == ["2", "1", "3"]


def test_an_unknown_need_counts_as_done() -> None:
    assert run([job(1, after={99})], 1) == [["1"]]


def test_a_table_is_owned_by_one_or_shared_by_many() -> None:
    jobs = [job(1, 9, shares={7}), job(2, 8, shares={7}), job(3, 7, owns={7}), job(4, 1)]
    assert run(jobs, 4)[0] == ["1", "2", "4"]


def test_circles_are_found_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="circle"):
        Schedule([job(1, after={2}), job(2, after={1})])


def test_stopping_ends_the_wait() -> None:
    schedule = Schedule([job(1), job(2, after={1})])
    stopped = threading.Event()
    assert schedule.take(stopped) is not None
    stopped.set()
    assert schedule.take(stopped) is None


@st.composite
def graphs(draw: st.DrawFn) -> list[Job[str]]:
    tables = st.frozensets(st.integers(0, 3), max_size=2)
    jobs = []
    for key in range(draw(st.integers(1, 12))):
        after = draw(st.frozensets(st.integers(0, key - 1), max_size=3)) if key else frozenset()
        shares, owns = draw(tables), draw(tables)
        made = job(key, draw(st.integers(0, 9)), tier=draw(st.integers(0, 2)))
        jobs.append(replace(made, after=after, shares=shares - owns, owns=owns))
    return jobs


@given(graphs(), st.integers(1, 4))
def test_every_job_runs_once_in_order_and_unhindered(jobs: list[Job[str]], workers: int) -> None:
    steps = run(jobs, workers)

    by_work = {each.work: each for each in jobs}
    started: list[str] = []
    ended: set[int] = set()
    for step in steps:
        started += [work for work in step if work not in started]
        under_way = [by_work[work] for work in step]
        for each in under_way:
            assert each.after <= ended
            for other in under_way:
                if other is not each:
                    assert not each.owns & (other.owns | other.shares)
        ended.add(under_way[0].key)
    assert sorted(started) == sorted(by_work)


def test_what_can_be_built_early() -> None:
    def post(dump_id: int, desc: bytes, *needs: int, **changes: object) -> TocEntry:
        made = {"defn": b"CREATE ...;" if desc == b"INDEX" else b"ALTER TABLE ONLY ...;", **changes}
        return entry(dump_id, desc, b"t x", section=Section.POST_DATA, dependencies=needs, **made)

    entries = (
        entry(1), entry(2), entry(3, tag=b"root"), entry(4, tag=b"part"), entry(5, b"MATERIALIZED VIEW"), entry(6, b"FUNCTION"),
        entry(7, b"TABLE ATTACH", dependencies=(4, 3)),
        post(10, b"CONSTRAINT", 1), post(11, b"INDEX", 2, 6), post(12, b"FK CONSTRAINT", 2, 10, 1), post(13, b"INDEX", 4),
        post(14, b"INDEX", 5), post(15, b"INDEX", 1, tablespace=b"fast"), post(16, b"TRIGGER", 1), post(17, b"CONSTRAINT", 2, 15),
        post(18, b"FK CONSTRAINT", 1, 3), post(19, b"STATISTICS", 1),
        entry(8, b"OPERATOR CLASS"), post(22, b"INDEX", 1, 8),
        post(20, b"INDEX", 2), post(21, b"CONSTRAINT", 1, defn=b"ALTER TABLE t ADD CONSTRAINT x NOT NULL a NOT VALID;"),
    )  # fmt: skip
    toc = Toc(header=header(), entries=entries)

    builds = select_builds(toc, entries[7:])

    assert [build.entry.dump_id for build in builds] == [10, 12, 20]
    assert (builds[1].tables, builds[1].builds) == (frozenset({1, 2}), frozenset({10}))


@pytest.mark.parametrize(
    ("tag", "definition", "is_split"),
    [
        (
            b"orders fk",
            b"ALTER TABLE ONLY orders ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES clients(id);\n",
            True,
        ),
        (b"orders fk", b"ALTER TABLE ONLY ... REFERENCES clients(id) DEFERRABLE INITIALLY DEFERRED;", True),
        (b"orders fk", b"ALTER TABLE ONLY ... REFERENCES clients(id) NOT VALID;\n", False),
        (b"orders fk", b"ALTER TABLE ONLY ... REFERENCES clients(id) NOT ENFORCED;\n", False),
        (
            b"orders of fk",
            b"ALTER TABLE ONLY ... REFERENCES clients(id);",
            False,
        ),  # table "orders", or table "orders of"
        (b"others fk", b"ALTER TABLE ONLY ... REFERENCES clients(id);", False),
    ],
)
def test_a_foreign_key_is_set_first_and_validated_later(
    tag: bytes, definition: bytes, is_split: bool
) -> None:
    tables = (entry(1, tag=b"orders"), entry(2, tag=b"clients"), entry(3, tag=b"orders of"))
    key = entry(10, b"FK CONSTRAINT", tag, section=Section.POST_DATA, dependencies=(1, 2, 3), defn=definition)
    toc = Toc(header=header(), entries=(*tables, key))

    [build] = select_builds(toc, [key])
    jobs = plan_jobs(toc, [], [build])

    if not is_split:
        assert (build.statement, [job.work for job in jobs]) == (definition, [build])
        assert jobs[0].owns == {1, 2, 3}
        return
    assert build.statement == definition.rstrip()[:-1] + b" NOT VALID;"
    assert build.constraint == b"fk"
    add, check = jobs
    assert (add.work, add.owns) == (build, {1, 2, 3})
    assert (check.work, check.after, check.owns, check.shares) == (Validation(build), {add.key}, {1}, {2, 3})


def load_of(table: TocEntry, size_bytes: int) -> LoadTask:
    name = table.tag.decode()
    data = entry(
        table.dump_id + 100,
        b"TABLE DATA",
        table.tag,
        section=Section.DATA,
        copy_stmt=b"COPY public.%s (a) FROM stdin;\n" % table.tag,
        dependencies=(table.dump_id,),
    )
    record = TableRecord(
        dump_id=data.dump_id,
        member="",
        oid=table.oid,
        schema="public",
        name=name,
        rows=0,
        size_bytes=size_bytes,
        read_by="copy",
        seconds=0,
    )
    made = LoadTable(oid=table.oid, qualified=b"public." + table.tag, is_plain=True, is_extension_owned=False)
    return LoadTask(entry=data, record=record, table=made, is_ours=True, via_root=False)


def test_tables_are_read_back_once_loaded_and_by_nobody_who_would_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a constraint that locks out readers keeps them waiting; an index, a foreign key or statistics do not."""
    monkeypatch.setattr(contents, "_PART_PAGES", 100)
    big, small, tiny = entry(1, tag=b"big"), entry(2, tag=b"small"), entry(3, tag=b"tiny")
    key = entry(
        10, b"CONSTRAINT", b"big pk", section=Section.POST_DATA, dependencies=(1,),
        defn=b"ALTER TABLE ONLY big ADD CONSTRAINT pk PRIMARY KEY (a);",
    )  # fmt: skip
    index = entry(11, b"INDEX", b"i", section=Section.POST_DATA, dependencies=(1,), defn=b"CREATE INDEX ...;")
    reference = entry(
        12, b"FK CONSTRAINT", b"small fk", section=Section.POST_DATA, dependencies=(2, 1, 10),
        defn=b"ALTER TABLE ONLY small ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES big(a);",
    )  # fmt: skip
    toc = Toc(header=header(), entries=(big, small, tiny, key, index, reference))
    tasks = [load_of(big, 250 * 8192), load_of(small, 20), load_of(tiny, 10)]
    builds = select_builds(toc, [key, index, reference])

    jobs = plan_jobs(toc, tasks, builds, SentRows(tasks).targets)

    loads = {tuple(task.entry.tag for task in one.work): one for one in jobs if isinstance(one.work, list)}
    reads = [one for one in jobs if isinstance(one.work, Reading)]
    of_big, [of_small] = reads[:3], reads[3:]
    assert [(part.first, part.end) for one in of_big for part in one.work.parts] == [
        (0, 100),
        (100, 200),
        (200, None),
    ]
    assert all(one.after == {loads[b"big",].key} for one in of_big)
    assert [part.target.table.qualified for part in of_small.work.parts] == [b"public.small", b"public.tiny"]
    assert of_small.after == {loads[b"small", b"tiny"].key}
    assert len({one.key for one in jobs}) == len(jobs)

    in_the_way = {
        one.work.entry.dump_id if isinstance(one.work, Build) else type(one.work).__name__
        for one in jobs
        for read in reads
        if one.owns & (read.owns | read.shares) or read.owns & one.shares
    }
    assert in_the_way == {10}
