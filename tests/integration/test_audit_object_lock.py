"""Anchors of the audit trail in a bucket with Object Lock, and in one without."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgstow.app.audit import anchor_now, verify_trail
from pgstow.audit.trail import FOLDER
from pgstow.core.errors import StoreError
from pgstow.repository import Repository
from pgstow.store.object_lock import LockableBucket
from pgstow.store.opening import open_retrying_store
from support.repositories import init_repository
from support.s3 import S3Bucket
from support.trails import Host, kinds


@pytest.fixture
def locking_bucket(s3_bucket: S3Bucket) -> S3Bucket:
    bucket = S3Bucket(name=f"locked-{uuid.uuid4().hex[:8]}", endpoint=s3_bucket.endpoint)
    bucket.client().create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=True)
    return bucket


def repository_in(bucket: S3Bucket) -> Repository:
    return init_repository(open_retrying_store(bucket.location, bucket.environ))


def test_an_anchor_is_locked_and_survives_its_removal(locking_bucket: S3Bucket, tmp_path: Path) -> None:
    repository = repository_in(locking_bucket)
    host = Host(tmp_path / "one", now=datetime.now(UTC))
    host.writes(repository, "init", "restore")
    written = anchor_now(repository, host.journal, locking_bucket.environ, now=datetime.now(UTC))
    assert written.locked_until is not None
    assert written.locked_until > datetime.now(UTC) + timedelta(days=399)

    elsewhere = Host(tmp_path / "auditor").journal  # remembers nothing
    checked = verify_trail(repository, elsewhere, locking_bucket.environ)
    assert checked.verdict.is_intact
    for info in list(repository.store.list(FOLDER)):  # everything, as who may delete can
        repository.store.delete(info.name)
    assert not list(repository.store.list(FOLDER))
    checked = verify_trail(repository, elsewhere, locking_bucket.environ)
    assert kinds(checked.verdict.problems) == ["truncated"]
    assert "kept version" in checked.verdict.problems[0].message


def test_an_object_that_the_bucket_locks_by_its_own_rule(locking_bucket: S3Bucket) -> None:
    """Its rule is what counts, not what was asked for."""
    client = locking_bucket.client()
    client.put_object_lock_configuration(
        Bucket=locking_bucket.name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    client.put_object(Bucket=locking_bucket.name, Key="backups/x", Body=b"x", ChecksumAlgorithm="SHA256")
    bucket = LockableBucket(locking_bucket.location, locking_bucket.environ)
    until = bucket.lock("x", datetime.now(UTC) + timedelta(days=400))
    assert until is not None
    assert until < datetime.now(UTC) + timedelta(days=31)


def test_a_bucket_without_object_lock(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    repository = repository_in(s3_bucket)
    host = Host(tmp_path / "one", now=datetime.now(UTC))
    host.writes(repository, "init")
    written = anchor_now(repository, host.journal, s3_bucket.environ, now=datetime.now(UTC))
    assert written.locked_until is None
    assert verify_trail(repository, host.journal, s3_bucket.environ).verdict.is_intact


def test_a_bucket_that_says_no(s3_bucket: S3Bucket) -> None:
    gone = S3Bucket(name="is-not-there", endpoint=s3_bucket.endpoint)
    with pytest.raises(StoreError, match="is-not-there"):
        LockableBucket(gone.location, gone.environ).lock("x", datetime.now(UTC))
