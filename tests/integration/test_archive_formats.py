"""Archives of real servers: read, rewritten, restored, and dropped again."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgstow.app.export import export
from pgstow.core.errors import ArchiveError, ProcessFailed
from pgstow.core.process import run, running
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import (
    Toc,
    copy_columns,
    copy_target,
    drop_only,
    is_load_via_root,
    large_object_ids,
    list_file,
    read_custom_toc,
    read_directory_toc,
    write_custom_archive,
    write_directory_toc,
)
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.restore.export import ExportFormat, ExportRequest, export_backup
from support.archives import FolderFiles
from support.backups import capture_into, memory_repository, tools_for
from support.every_kind import create_every_kind

pytestmark = pytest.mark.integration

DatabaseFactory = Callable[..., ConnInfo]

# What drops badly: entries that depend on each other in circles, names made of the words that pg_restore
# searches for, statements that know no IF EXISTS, constraints that belong to others.
HARD_TO_DROP = """
CREATE TABLE public."DROP CONSTRAINT" (id int CONSTRAINT "DROP CONSTRAINT x" PRIMARY KEY);
CREATE TABLE public.refers (id int CONSTRAINT "a DROP CONSTRAINT" REFERENCES public."DROP CONSTRAINT");
CREATE DOMAIN public."ALTER DOMAIN x DROP CONSTRAINT y" AS int;
ALTER DOMAIN public."ALTER DOMAIN x DROP CONSTRAINT y" ADD CONSTRAINT late CHECK (VALUE > 0) NOT VALID;
CREATE TABLE public.serials (id serial PRIMARY KEY, n numeric(10, 2), c text COLLATE "POSIX");
CREATE VIEW public.needs_key AS SELECT id, n, c AS "odd 'name'" FROM public.serials GROUP BY id;
CREATE TABLE public.circle (a int, b text);
CREATE VIEW public.circle_view AS SELECT a, b FROM public.circle;
CREATE FUNCTION public.circle_function(v public.circle_view) RETURNS text LANGUAGE sql STABLE AS 'SELECT v.b';
CREATE OR REPLACE VIEW public.circle_view AS SELECT a, b, public.circle_function(NULL) AS f FROM public.circle;
CREATE FUNCTION public.score(c public.circle) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT length(c.b)';
CREATE INDEX circle_score ON public.circle (public.score(circle));
CREATE TABLE public.z_root (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.a_part PARTITION OF public.z_root FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE public.zz_part PARTITION OF public.z_root DEFAULT PARTITION BY HASH (id);
CREATE TABLE public.b_leaf PARTITION OF public.zz_part FOR VALUES WITH (modulus 1, remainder 0);
CREATE INDEX z_root_at ON public.z_root (at);
CREATE TABLE public.to_part (id int, at date, FOREIGN KEY (id, at) REFERENCES public.z_root);
CREATE FUNCTION public.noop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER on_root AFTER INSERT ON public.z_root FOR EACH ROW EXECUTE FUNCTION public.noop();
ALTER TABLE public.a_part DISABLE TRIGGER on_root;
CREATE FOREIGN TABLE public.far (id serial) SERVER elsewhere;
ALTER TABLE public.far ADD CONSTRAINT far_check CHECK (id > 0) NOT VALID;
CREATE TYPE public.pair AS (a int, b int);
CREATE FUNCTION public.to_pair(int) RETURNS public.pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1, 1)::public.pair';
CREATE CAST (int AS public.pair) WITH FUNCTION public.to_pair(int);
CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere;
CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE public.in_other_heap (id int) USING other_heap;
SELECT lo_from_bytea(4294967000, 'far up');
SELECT lo_create(910000 + i) FROM generate_series(1, 250) AS i;
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A database that holds every kind of thing, its tools, and what pg_dump -Fd makes of it."""

    conninfo: ConnInfo
    tools: ClientTools
    folder: Path

    @property
    def toc(self) -> Toc:
        return read_directory_toc((self.folder / "toc.dat").read_bytes())


def dump(tools: ClientTools, conninfo: ConnInfo, *options: str) -> bytes:
    """Return what pg_dump writes to standard output."""
    with conninfo.tool_env(PGTZ="UTC") as env:
        return run([tools.pg_dump, *options], env=env)


def restore(tools: ClientTools, target: ConnInfo, *arguments: str | Path, piped: bytes | None = None) -> None:
    """Run pg_restore; ProcessFailed with its words, and no warning passes either."""
    name = target.dbname
    assert name is not None
    command = [tools.pg_restore, "--exit-on-error", f"--dbname={name}", *arguments]
    with target.tool_env() as env:
        done = subprocess.run(
            command, env={**os.environ, **env}, input=piped, capture_output=True, check=False
        )
    if done.returncode:
        raise ProcessFailed(done.stderr.decode())
    assert not done.stderr


def content(tools: ClientTools, conninfo: ConnInfo) -> list[tuple[bytes, bytes]]:
    """Return the whole content of a database in a form that can be compared: pg_dump's lines.

    Rows come with their COPY statement and in no order: those of a table that is partitioned by the hash of an
    enum lie elsewhere after a restore.
    """
    found = []
    table = b""
    for line in without_nonce(dump(tools, conninfo)).splitlines():
        if line.startswith(b"COPY ") and line.endswith(b" FROM stdin;"):
            table = line
        found.append((table, line))
        if line == b"\\.":
            table = b""
    return [one for one in found if not one[0]] + sorted(one for one in found if one[0])


def without_nonce(script: bytes) -> bytes:
    return re.sub(rb"(?m)^\\(un)?restrict \w+$", b"", script)


@pytest.fixture(scope="module")
def source(
    cluster: Cluster, shared_database: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory
) -> Source:
    """A source that tests only read from."""
    conninfo = shared_database(cluster)
    folder = tmp_path_factory.mktemp("archive") / "source"
    create_every_kind(conninfo)
    with psycopg.connect(conninfo.connect_string(), autocommit=True) as connection:
        connection.execute(HARD_TO_DROP)
        connection.execute("CREATE EXTENSION IF NOT EXISTS " + an_extension(connection))
        # pg_dump numbers functions as its query returns them, and that changes with the plan once the catalogs have
        # statistics: without this, when autovacuum came by between two dumps their numbers differed.
        connection.execute("VACUUM ANALYZE")
    tools = tools_for(conninfo)
    dump(tools, conninfo, "-Fd", "-Z0", f"--file={folder}")
    return Source(conninfo=conninfo, tools=tools, folder=folder)


@pytest.fixture
def copy(source: Source, cluster: Cluster, database: DatabaseFactory) -> ConnInfo:
    """A copy of the source's database that a test may change."""
    return database(cluster, options=f"TEMPLATE {source.conninfo.dbname}")


def an_extension(connection: psycopg.Connection) -> str:
    """Return an extension this server has."""
    found = connection.execute(
        "SELECT name FROM pg_available_extensions WHERE name IN ('hstore', 'vector') ORDER BY 1 LIMIT 1"
    ).fetchone()
    assert found is not None
    return str(found[0])


def custom(source: Source) -> bytes:
    """Return our custom archive of the source."""
    files = FolderFiles(source.folder)
    out = io.BytesIO()
    write_custom_archive(files.toc, files.stream, lambda name: (source.folder / name).stat().st_size, out)
    return out.getvalue()


def test_toc_of_a_real_archive(source: Source) -> None:
    data = (source.folder / "toc.dat").read_bytes()
    toc = read_directory_toc(data)
    assert write_directory_toc(toc) == data
    major = source.tools.version[0]
    assert toc.header.version[:2] == {14: (1, 14), 15: (1, 14), 16: (1, 15), 17: (1, 16), 18: (1, 16)}[major]
    assert (toc.encoding, toc.has_standard_strings, toc.search_path) == ("UTF8", True, b"")
    assert toc.header.dbname == (source.conninfo.dbname or "").encode()
    for stream_options in (["-Fc", "-Z0"], ["-Fc", "-Z6"]):
        with (
            source.conninfo.tool_env(PGTZ="UTC") as env,
            running([source.tools.pg_dump, *stream_options], env=env) as process,
        ):
            other = read_custom_toc(process.stdout)  # from a pipe, in the middle of the dump
        assert other.header.is_compressed == (stream_options[1] != "-Z0")
        made = other.as_directory()
        assert [str(entry) for entry in made.entries] == [str(entry) for entry in toc.entries]
        assert made.entries == toc.entries
        same_moment = replace(made, header=replace(made.header, created=toc.header.created))
        assert write_directory_toc(same_moment) == data
        with pytest.raises(ArchiveError, match="format number"):
            read_directory_toc(data[:10] + b"\x01" + data[11:])


def test_every_table_can_be_copied_by_what_its_entry_says(source: Source) -> None:
    toc = source.toc
    with psycopg.connect(source.conninfo.connect_string()) as connection:
        connection.execute("SET search_path = ''")
        for entry in toc.table_data():
            statement = b"COPY " + copy_target(entry) + b" " + copy_columns(entry) + b" TO STDOUT"
            if is_load_via_root(entry):  # names the root, which COPY TO refuses; the columns are its own too
                statement = b"COPY (SELECT FROM " + copy_target(entry) + b") TO STDOUT"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                rows = b"".join(copy)
            if not is_load_via_root(entry):
                member = (source.folder / (entry.file_name or b"").decode()).read_bytes()
                assert rows + b"\\.\n\n\n" == member
    assert sum(is_load_via_root(entry) for entry in toc.table_data()) == 2


def test_large_objects_of_the_entries_are_those_of_the_lists(source: Source) -> None:
    toc = source.toc
    found: list[int] = []
    for entry in toc.large_object_data():
        lines = (source.folder / (entry.file_name or b"").decode()).read_text().splitlines()
        listed = [int(line.split()[0]) for line in lines]
        assert list(large_object_ids(toc, entry)) == listed
        found += listed
    assert sorted(found) == sorted([900001, 900002, 900003, 4294967000, *range(910001, 910251)])


def test_our_custom_archive_restores_to_the_same_content(
    source: Source, cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    archive = custom(source)
    expected = content(source.tools, source.conninfo)
    piped, parallel = database(cluster), database(cluster)
    restore(source.tools, piped, piped=archive)
    assert content(source.tools, piped) == expected
    (tmp_path / "ours.dump").write_bytes(archive)
    restore(source.tools, parallel, "--jobs=3", tmp_path / "ours.dump")
    assert content(source.tools, parallel) == expected


def test_newer_tools_read_our_custom_archive_too(
    source: Source, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    archive = tmp_path / "ours.dump"
    archive.write_bytes(custom(source))
    newer = [tools for tools in client_tools if tools.version[0] >= source.tools.version[0]]
    assert newer
    for tools in newer:
        ours = run([tools.pg_restore, "--file=-", archive])
        theirs = run([tools.pg_restore, "--file=-", source.folder])
        assert without_nonce(ours) == without_nonce(theirs)


def test_a_list_file_chooses_exactly_its_entries(source: Source, tmp_path: Path) -> None:
    chosen = [entry for entry in source.toc.entries if entry.desc in {b"SEQUENCE SET", b"SEQUENCE"}]
    (tmp_path / "list").write_bytes(list_file(chosen))
    listed = run([source.tools.pg_restore, "--list", f"--use-list={tmp_path / 'list'}", source.folder])
    ids = [int(line.split(b";")[0]) for line in listed.splitlines() if line[:1].isdigit()]
    assert ids == [entry.dump_id for entry in chosen]


def drop_all(source: Source, target: ConnInfo, tmp_path: Path, *options: str) -> None:
    folder = tmp_path / "drops"
    folder.mkdir(exist_ok=True)
    (folder / "toc.dat").write_bytes(write_directory_toc(drop_only(source.toc)))
    restore(source.tools, target, "--clean", "--if-exists", *options, folder)


def test_drop_only_leaves_an_empty_database(
    source: Source, copy: ConnInfo, cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    empty = content(source.tools, database(cluster))
    for options in ((), (), ("--single-transaction",), ("--no-owner",)):  # the second finds nothing to drop
        drop_all(source, copy, tmp_path, *options)
        assert content(source.tools, copy) == empty
    restore(source.tools, copy, source.folder)
    drop_all(source, copy, tmp_path, "--single-transaction")
    assert content(source.tools, copy) == empty


def test_drop_only_copes_with_a_target_that_moved_on(
    source: Source, copy: ConnInfo, cluster: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    empty = content(source.tools, database(cluster))
    with psycopg.connect(copy.connect_string(), autocommit=True) as connection:
        for change in (
            'DROP VIEW needs_key; CREATE VIEW needs_key AS SELECT 1::int2 AS other, c COLLATE "C" FROM serials',
            "ALTER TABLE serials DROP COLUMN id CASCADE",
            "ALTER TABLE app.orders DROP CONSTRAINT orders_account_fkey",
            "ALTER TABLE z_root DETACH PARTITION a_part",
            'DROP DOMAIN "ALTER DOMAIN x DROP CONSTRAINT y"',
            "SELECT lo_unlink(900001)",
            "DROP FOREIGN TABLE far",
            "DROP TABLE app.kinds CASCADE",
        ):
            connection.execute(change)
    drop_all(source, copy, tmp_path)
    assert content(source.tools, copy) == empty


def test_drop_only_does_not_drop_what_it_does_not_know(
    source: Source, copy: ConnInfo, tmp_path: Path
) -> None:
    with psycopg.connect(copy.connect_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.mine AS SELECT 1 AS precious")
        connection.execute("CREATE VIEW public.on_top AS SELECT * FROM app.accounts")
        with pytest.raises(ProcessFailed, match="on_top"):
            drop_all(source, copy, tmp_path, "--single-transaction")
        assert connection.execute("SELECT count(*) FROM public.mine, public.circle_view").fetchone() == (0,)


def test_exports_are_what_the_tools_make(source: Source, tmp_path: Path) -> None:
    def written(
        export_format: ExportFormat, name: str, *, data_only: bool = False, packed: bool = False
    ) -> Path:
        request = ExportRequest(
            format=export_format, output=tmp_path / name, data_only=data_only, gzip=packed
        )
        export_backup(
            FolderFiles(source.folder), request, pg_restore=source.tools.pg_restore, stdout=io.BytesIO(),
            progress=SilentProgress(),
        )  # fmt: skip
        return tmp_path / name

    folder = written(ExportFormat.DIRECTORY, "folder")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in source.folder.iterdir()
    }
    assert written(ExportFormat.CUSTOM, "custom").read_bytes() == custom(source)
    plain = written(ExportFormat.PLAIN, "plain.sql").read_bytes()
    assert without_nonce(plain) == without_nonce(run([source.tools.pg_restore, "--file=-", source.folder]))
    packed = gzip.decompress(written(ExportFormat.PLAIN, "plain.sql.gz", packed=True).read_bytes())
    assert without_nonce(packed) == without_nonce(plain)
    rows = written(ExportFormat.PLAIN, "rows.sql", data_only=True).read_bytes()
    assert b"\nCOPY app.orders (id, account, self) FROM stdin;\n1\t2\t\\N\n" in rows
    assert b"CREATE TABLE" not in rows


def test_export_of_a_backup_equals_pg_dump(
    source: Source, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    repository = memory_repository()
    backup = capture_into(repository, source.conninfo).manifest.backup_id
    request = ExportRequest(format=ExportFormat.DIRECTORY, output=tmp_path / "out")
    report = export(backup[:8], request, repository, client_tools, SilentProgress(), stdout=io.BytesIO())
    assert (report.backup_id, report.backup_name, report.output) == (backup, "test", tmp_path / "out")
    exported = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    expected = {path.name: path.read_bytes() for path in source.folder.iterdir()}
    assert report.size_bytes == sum(map(len, exported.values()))
    created = read_directory_toc(exported["toc.dat"]).header.created
    theirs = read_directory_toc(expected["toc.dat"])
    assert read_directory_toc(exported["toc.dat"]).entries == theirs.entries  # says which one differs
    expected["toc.dat"] = write_directory_toc(replace(theirs, header=replace(theirs.header, created=created)))
    assert exported.keys() == expected.keys()
    assert [name for name in expected if exported[name] != expected[name]] == []


def test_plain_export_with_tools_that_are_too_old_fails_with_their_words(
    pg18: Cluster, pg15: Cluster, database: DatabaseFactory, tmp_path: Path
) -> None:
    conninfo = database(pg18)
    dump(tools_for(conninfo), conninfo, "-Fd", "-Z0", f"--file={tmp_path / 'source'}")
    request = ExportRequest(format=ExportFormat.PLAIN, output=tmp_path / "out.sql")
    with pytest.raises(ProcessFailed, match="unsupported version"):
        export_backup(
            FolderFiles(tmp_path / "source"), request, pg_restore=tools_for(database(pg15)).pg_restore,
            stdout=io.BytesIO(), progress=SilentProgress(),
        )  # fmt: skip
    assert not (tmp_path / "out.sql").exists()


def test_damaged_real_archives_raise_archive_error_or_parse(source: Source) -> None:
    directory, custom_archive = (source.folder / "toc.dat").read_bytes(), custom(source)
    toc_end = len(directory) + 9 * len(source.toc.entries)

    @given(st.integers(0, len(directory) - 1))
    def truncated(end: int) -> None:
        with pytest.raises(ArchiveError):
            read_directory_toc(directory[:end])
        with pytest.raises(ArchiveError):
            read_custom_toc(io.BytesIO(custom_archive[: end // 2]))

    @given(st.lists(st.tuples(st.integers(0, toc_end), st.integers(0, 255)), min_size=1, max_size=5))
    def damaged(edits: list[tuple[int, int]]) -> None:
        for data, read in (
            (bytearray(directory), read_directory_toc),
            (bytearray(custom_archive), lambda broken: read_custom_toc(io.BytesIO(broken))),
        ):
            for place, value in edits:
                data[place % len(data)] = value
            try:
                toc = read(bytes(data))
            except ArchiveError:
                continue
            for entry in toc.table_data():
                try:
                    copy_columns(entry)
                except ArchiveError:
                    continue

    truncated()
    damaged()
