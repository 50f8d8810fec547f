"""Copies of small files of a bucket: what only reads backups uses them, what examines the store does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pgstow.core.secrets import Secret
from pgstow.postgres.conninfo import ConnInfo
from pgstow.postgres.server import Cluster
from pgstow.repository import Repository
from pgstow.store.opening import open_store
from support.command import Pgstow
from support.s3 import S3Bucket

PASSWORD = "correct horse battery"


@pytest.fixture
def pgstow(s3_bucket: S3Bucket, tmp_path: Path) -> Pgstow:
    store = open_store(s3_bucket.location, s3_bucket.environ)
    Repository.init(store, Secret(PASSWORD), hostname="h", username="u")
    given = {"PGSTOW_REPOSITORY": s3_bucket.location, "PGSTOW_PASSWORD": PASSWORD}
    return Pgstow({**s3_bucket.environ, **given, "PGSTOW_CACHE_DIR": str(tmp_path / "cache")})


def test_a_snapshot_damaged_in_the_bucket_is_seen_by_verify_though_a_copy_is_whole(
    pgstow: Pgstow, s3_bucket: S3Bucket, pg15: Cluster, database: Callable[..., ConnInfo], tmp_path: Path
) -> None:
    assert pgstow("backup", database(pg15).connect_string(), "--name", "shop").code == 0
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("snapshots/*"))
    stored = s3_bucket.keys()
    (name,) = [key for key in stored if key.startswith("backups/snapshots/")]
    assert kept == [name.rpartition("/")[2]]

    s3_bucket.client().put_object(Bucket=s3_bucket.name, Key=name, Body=b"damaged")
    assert len(pgstow("list", "--json").json()["backups"]) == 1
    assert pgstow("verify").code == 1
    assert pgstow("repo", "check").code == 1
