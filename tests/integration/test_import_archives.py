"""Archives that pg_dump wrote become backups: imported, restored, compared with the database they came from."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from pgstow.app.export import export
from pgstow.app.import_dump import imported_for_drill
from pgstow.catalog.backups import list_backups
from pgstow.catalog.manifest import TableRecord
from pgstow.core.errors import ArchiveError, PgstowError, ToolMissing, UsageError
from pgstow.core.progress import SilentProgress
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.postgres.tools import ClientTools
from pgstow.restore.export import ExportFormat, ExportRequest
from support.backups import Notes, memory_repository, tools_for
from support.every_kind import create_every_kind
from support.foreign_dumps import dump_to, files_of_import, import_into, pack_tar
from support.restoring import assert_equal_rows, bring_back, execute, fetch
from support.s3 import S3Bucket

DatabaseFactory = Callable[..., ConnInfo]

_NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def source15(pg15: Cluster, shared_database: DatabaseFactory) -> ConnInfo:
    source = shared_database(pg15, "imported15")
    create_every_kind(source)
    return source


@pytest.fixture(scope="module")
def source18(pg18: Cluster, shared_database: DatabaseFactory) -> ConnInfo:
    source = shared_database(pg18, "imported18")
    create_every_kind(source)
    return source


@pytest.fixture(scope="module")
def source16(pg16: Cluster, shared_database: DatabaseFactory) -> ConnInfo:
    source = shared_database(pg16, "imported16")
    create_every_kind(source)
    return source


def _round_trip(
    dump: Path, source: ConnInfo, cluster: Cluster, database: DatabaseFactory, tools: list[ClientTools], form: str
) -> None:
    repository = memory_repository()
    imported = import_into(repository, dump, tools)
    manifest = imported.manifest
    assert manifest.imported is not None
    assert (manifest.imported.format, manifest.kind, manifest.name) == (form, "import", source.dbname)
    assert manifest.server.system_identifier is None
    assert not manifest.reuse.is_base
    target = database(cluster)
    bring_back(files_of_import(repository, imported), target)
    assert_equal_rows(source, target)


# what the releases here can write: lz4 and zstd only where they were built with them
@pytest.mark.parametrize("options", [(), ("-Z0",), ("-Z9",)], ids=["default", "plain", "gzip-9"])
def test_custom_archive_of_15(
    options: tuple[str, ...], source15: ConnInfo, pg15: Cluster, database: DatabaseFactory, client_tools: list[ClientTools], tmp_path: Path
) -> None:
    dump = dump_to(tmp_path / "d.dump", source15, tools_for(source15), "-Fc", *options)
    _round_trip(dump, source15, pg15, database, client_tools, "custom")
