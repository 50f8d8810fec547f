"""Archives that pg_dump wrote become backups with exactly its bytes, in whatever format and compression they come."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from pgstow.app.export import export
from pgstow.app.import_dump import imported_for_drill
from pgstow.catalog.backups import BackupFiles, list_backups
from pgstow.core.errors import ArchiveError, PgstowError, StoreError, ToolMissing, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.archive import read_directory_toc, write_directory_toc
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.repository import Repository
from pgstow.restore.export import ExportFormat, ExportRequest
from support.backups import memory_repository, pg_dump_directory, tools_for
from support.every_kind import create_every_kind
from support.foreign_dumps import dump_to, files_of_import, import_into, may_compress, pack_tar
from support.restoring import assert_equal_rows, bring_back, execute, fetch
from support.s3 import S3Bucket

DatabaseFactory = Callable[..., ConnInfo]


@dataclass(frozen=True)
class Dumped:
    """A database, and what ``pg_dump -Fd -Z0`` writes of it: what every import must hold."""

    source: ConnInfo
    tools: ClientTools
    members: dict[str, bytes]
    folder: Path


@pytest.fixture(scope="module", params=[15, 16, 18], ids=lambda major: f"pg_dump{major}")
def dumped(
    request: pytest.FixtureRequest, shared_database: DatabaseFactory, tmp_path_factory: pytest.TempPathFactory
) -> Dumped:
    cluster: Cluster = request.getfixturevalue(f"pg{request.param}")
    source = shared_database(cluster, f"dumped{request.param}")
    create_every_kind(source)
    folder = tmp_path_factory.mktemp("dumps")
    tools = tools_for(source)
    members = pg_dump_directory(tools, source, folder / "plain")
    return Dumped(source, tools, {n: d for n, d in members.items() if n != "toc.dat"}, folder)


def _members(files: BackupFiles) -> dict[str, bytes]:
    names = [name.removeprefix("archive/") for name, _ in files.members() if name.startswith("archive/")]
    return {name: b"".join(files.stream(f"archive/{name}")) for name in names if name != "toc.dat"}


def _check(
    repository: Repository, dump: Path, dumped: Dumped, form: str, client_tools: list[ClientTools]
) -> None:
    imported = import_into(repository, dump, client_tools)
    manifest = imported.manifest
    assert manifest.imported is not None
    assert (manifest.imported.format, manifest.kind, manifest.name) == (form, "import", dumped.source.dbname)
    assert _members(files_of_import(repository, imported)) == dumped.members, dump.name
    if len(list_backups(repository)) > 1:
        assert manifest.totals.new_bytes < 0.2 * manifest.totals.size_bytes, "the same rows are stored once"
    rows = {table.member: table.rows for table in manifest.tables}
    for name, data in dumped.members.items():
        if name[0].isdigit():
            assert rows[f"archive/{name}"] == data.count(b"\n") - 3, name


def _compressions(tools: ClientTools) -> Sequence[str]:
    """Return what this release may write; packages are built with what they like."""
    return ("-Z0", "-Z6") if tools.version[0] < 16 else ("-Zgzip", "-Zlz4", "-Zzstd")


def test_every_format_and_compression_holds_the_same(dumped: Dumped, client_tools: list[ClientTools]) -> None:
    repository, done = memory_repository(), set[str]()
    for number, compression in enumerate(_compressions(dumped.tools)):
        if not may_compress(dumped.tools, dumped.source, compression):
            continue
        custom = dump_to(dumped.folder / f"{number}.dump", dumped.source, dumped.tools, "-Fc", compression)
        folder = dump_to(dumped.folder / f"{number}.dir", dumped.source, dumped.tools, "-Fd", compression)
        done.add(compression)
        _check(repository, custom, dumped, "custom", client_tools)
        _check(repository, folder, dumped, "directory", client_tools)
        _check(repository, pack_tar(folder, dumped.folder / f"{number}.tar"), dumped, "tar", client_tools)
    assert done
    tar = dump_to(dumped.folder / "own.tar", dumped.source, dumped.tools, "-Ft")
    _check(repository, tar, dumped, "tar", client_tools)
    packed = dumped.folder / "own.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes(), 1))
    _check(repository, packed, dumped, "tar", client_tools)


@pytest.mark.parametrize("dumped", [18], indirect=True)
def test_an_import_is_restored_and_exported_like_any_backup(
    dumped: Dumped,
    database: DatabaseFactory,
    client_tools: list[ClientTools],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    dump = dump_to(tmp_path / "one.dump", dumped.source, dumped.tools, "-Fc")
    repository = memory_repository()
    imported = import_into(repository, dump, client_tools)
    cluster: Cluster = request.getfixturevalue(f"pg{dumped.tools.version[0]}")
    target = database(cluster)
    report = bring_back(files_of_import(repository, imported), target, compare=True)
    assert not report.is_partial
    assert_equal_rows(dumped.source, target)
    out = tmp_path / "again.dump"
    wanted = ExportRequest(format=ExportFormat.CUSTOM, output=out)
    with out.with_suffix(".none").open("wb") as nowhere:
        export(
            imported.manifest.backup_id, wanted, repository, client_tools, SilentProgress(), stdout=nowhere
        )
    again = import_into(repository, out, client_tools)
    assert _members(files_of_import(repository, again)) == dumped.members
    assert again.manifest.totals.new_bytes < 100_000  # toc.dat and the manifest


# -- one small database for everything else


@pytest.fixture(scope="module")
def small(pg15: Cluster, shared_database: DatabaseFactory) -> ConnInfo:
    source = shared_database(pg15, "small")
    execute(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE u (id int);"
        "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 40000) i; INSERT INTO u VALUES (1);"
        "CREATE INDEX ON u (id);"
        "SELECT lo_from_bytea(4711, 'large')",
    )
    return source


@pytest.fixture(scope="module")
def small_dumps(small: ConnInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, tools = tmp_path_factory.mktemp("small"), tools_for(small)
    dump_to(place / "small.dump", small, tools, "-Fc", "-Z1")
    dump_to(place / "small.dir", small, tools, "-Fd", "-Z1")
    return place


@pytest.fixture
def dump(small_dumps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy2(small_dumps / "small.dump", tmp_path))


@pytest.fixture
def folder(small_dumps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_dumps / "small.dir", tmp_path / "small.dir"))


def _refused(
    dump: Path | str, tools: list[ClientTools], message: str, kind: type[PgstowError] = ArchiveError
) -> None:
    repository = memory_repository()
    with pytest.raises(kind, match=message):
        import_into(repository, dump, tools)
    assert list_backups(repository) == []


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_newer_releases_compress_with(
    compression: str, small: ConnInfo, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    (tools,) = [one for one in client_tools if one.version[0] == 17][:1]
    repository = memory_repository()
    for form in ("-Fc", "-Fd"):
        dump = dump_to(tmp_path / f"dump{form}", small, tools, form, f"-Z{compression}")
        imported = import_into(repository, dump, client_tools)
        assert imported.manifest.imported is not None
        assert imported.manifest.imported.compression == compression
        assert imported.manifest.totals.rows == 40001
        assert imported.manifest.large_objects.size_bytes == len("large")


def test_a_cut_archive_is_refused_wherever_it_was_cut(
    dump: Path, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    data, short = dump.read_bytes(), tmp_path / "short.dump"
    for cut in (200, len(data) // 2, len(data) - 3):
        short.write_bytes(data[:cut])
        _refused(short, client_tools, r"ends in the middle|cut off|are missing")
    packed = gzip.compress(data, 1)
    for cut in (3, len(packed) // 2, len(packed) - 3):
        short.write_bytes(packed[:cut])
        _refused(short, client_tools, r"cut off|ends in the middle")


def test_a_changed_byte_in_compressed_rows_is_found(dump: Path, client_tools: list[ClientTools]) -> None:
    data = bytearray(dump.read_bytes())
    data[len(data) // 2] ^= 0x40
    dump.write_bytes(data)
    _refused(dump, client_tools, r"\.dat is (damaged|cut off)|data of .* is damaged|holds")


def test_a_directory_without_a_member_or_with_a_link_is_refused(
    folder: Path, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    member = max(folder.glob("*.dat.gz"), key=lambda path: path.stat().st_size)
    elsewhere = tmp_path / "elsewhere.gz"
    shutil.move(member, elsewhere)
    _refused(folder, client_tools, r"\d+.dat is missing from the dump")
    member.symlink_to(elsewhere)
    _refused(folder, client_tools, "is a symbolic link")
    (folder / "toc.dat").unlink()
    _refused(folder, client_tools, "holds no toc.dat")


def test_entries_that_wait_for_each_other_keep_nobody_waiting(
    folder: Path, pg15: Cluster, database: DatabaseFactory, client_tools: list[ClientTools]
) -> None:
    toc = read_directory_toc((folder / "toc.dat").read_bytes())
    built = {e.desc: e.dump_id for e in toc.entries if e.desc in (b"INDEX", b"CONSTRAINT")}
    other = {built[b"INDEX"]: built[b"CONSTRAINT"], built[b"CONSTRAINT"]: built[b"INDEX"]}
    entries = (
        replace(e, dependencies=(*e.dependencies, other[e.dump_id])) if e.dump_id in other else e
        for e in toc.entries
    )
    (folder / "toc.dat").write_bytes(write_directory_toc(replace(toc, entries=tuple(entries))))
    repository = memory_repository()
    imported = import_into(repository, folder, client_tools)
    target = database(pg15)
    bring_back(files_of_import(repository, imported), target, jobs=2, compare=True)
    assert fetch(
        target, "SELECT count(*) FROM pg_index WHERE indrelid IN ('t'::regclass, 'u'::regclass)"
    ) == [(2,)]


def test_rows_as_inserts_are_refused_with_a_way_out(
    small: ConnInfo, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    dump = dump_to(tmp_path / "inserts.dump", small, tools_for(small), "-Fc", "--inserts", "--table=u")
    _refused(dump, client_tools, "as INSERT statements")


def test_an_archive_that_no_pg_restore_here_reads_is_refused(dump: Path) -> None:
    _refused(dump, [], "no pg_dump of release 15 or newer was found", ToolMissing)


def test_what_is_not_there_is_a_usage_error(client_tools: list[ClientTools], tmp_path: Path) -> None:
    _refused(tmp_path / "nothing.dump", client_tools, "cannot be read: No such file", UsageError)


def test_a_similar_dump_stores_little(
    pg15: Cluster, database: DatabaseFactory, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    source = database(pg15)
    execute(
        source,
        "CREATE TABLE t AS SELECT i, md5(i::text) || md5('a' || i) AS note FROM generate_series(1, 50000) i",
    )
    repository, tools = memory_repository(), tools_for(source)
    first = import_into(repository, dump_to(tmp_path / "first", source, tools, "-Fc", "-Z1"), client_tools)
    execute(source, "DELETE FROM t WHERE i BETWEEN 45000 AND 45010; INSERT INTO t VALUES (0, 'new')")
    second = import_into(repository, dump_to(tmp_path / "second", source, tools, "-Fc", "-Z1"), client_tools)
    assert second.manifest.totals.new_bytes < 0.6 * first.manifest.totals.new_bytes


def test_when_the_dump_was_made(dump: Path, client_tools: list[ClientTools]) -> None:
    repository = memory_repository()
    imported = import_into(repository, dump, client_tools)
    modified = datetime.fromtimestamp(dump.stat().st_mtime, UTC)
    assert abs((imported.manifest.snapshot_taken - modified).total_seconds()) < 120
    assert imported.manifest.imported is not None
    assert imported.manifest.imported.is_dated
    given = import_into(repository, dump, client_tools, taken=datetime(2020, 5, 4, tzinfo=UTC))
    assert given.manifest.snapshot_taken == datetime(2020, 5, 4, tzinfo=UTC)


def test_times_that_another_zone_wrote_compare_as_equal(
    pg15: Cluster, database: DatabaseFactory, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    source = database(pg15)
    execute(source, f"ALTER DATABASE {source.dbname} SET timezone = 'America/New_York'")
    execute(
        source, "CREATE TABLE t AS SELECT now() + i * interval '5 days' AS at FROM generate_series(1, 100) i"
    )
    with psycopg.connect(source.connect_string()) as connection, source.tool_env() as env:
        path = tmp_path / "zoned.dump"
        command = [tools_for(source).pg_dump, "-Fc", "-f", path]
        subprocess.run(command, env={**os.environ, **env}, check=True)
        assert connection.info.timezone.key == "America/New_York"
    repository = memory_repository()
    imported = import_into(repository, path, client_tools)
    assert imported.manifest.settings == {"timezone": "America/New_York"}
    bring_back(files_of_import(repository, imported), database(pg15), compare=True)


def test_from_a_bucket_as_object_and_as_folder(
    dump: Path, folder: Path, s3_bucket: S3Bucket, client_tools: list[ClientTools]
) -> None:
    client = s3_bucket.client()
    client.put_object(Bucket=s3_bucket.name, Key="old/small.dump", Body=dump.read_bytes())
    for path in folder.iterdir():
        client.put_object(Bucket=s3_bucket.name, Key=f"old/small.dir/{path.name}", Body=path.read_bytes())
    repository = memory_repository()
    for key in ("old/small.dump", "old/small.dir"):
        imported = import_into(
            repository, f"s3://{s3_bucket.name}/{key}", client_tools, environ=dict(s3_bucket.environ)
        )
        assert sum(table.rows for table in imported.manifest.tables) == 40001
    with pytest.raises(StoreError, match="not"):
        import_into(repository, f"s3://{s3_bucket.name}/none", client_tools, environ=dict(s3_bucket.environ))


def test_a_drill_gets_a_repository_that_is_gone_afterwards(
    dump: Path, client_tools: list[ClientTools]
) -> None:
    with imported_for_drill(str(dump), client_tools, SilentProgress()) as (repository, backup_id):
        place = Path(repository.store.location)
        assert place.parent.stat().st_mode & 0o777 == 0o700
        (record,) = list_backups(repository)
        assert record.id == backup_id
    assert not place.parent.exists()
    places = []

    def failing() -> None:
        with imported_for_drill(str(dump), client_tools, SilentProgress()) as (repository, _):
            places.append(Path(repository.store.location))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        failing()
    assert not places[0].parent.exists()
