"""A repository of ours in S3, over HTTP, as restic finds it there."""

from __future__ import annotations

from pgstow.assurance.verify import verify
from pgstow.store.opening import open_retrying_store
from support.repositories import (
    contents,
    copy_text,
    init_repository,
    open_repository,
    random_bytes,
    read_files,
    save_backup,
)
from support.restic import Restic
from support.s3 import S3Bucket

FILES = {"3456.dat": [copy_text(20_000, 1), random_bytes(2_000_000, 2)], "toc.dat": [b"PGDMP"]}


def test_both_sides_read_and_write_it(restic: Restic, s3_bucket: S3Bucket) -> None:
    store = open_retrying_store(s3_bucket.location, s3_bucket.environ)
    repository = init_repository(store)
    with repository.lock():
        save_backup(repository, FILES)
    restic = restic.with_environ(**s3_bucket.environ)
    restic(s3_bucket.restic_location, "check", "--read-data")
    assert restic(s3_bucket.restic_location, "dump", "latest", "/shop/archive/3456.dat") == b"".join(
        FILES["3456.dat"]
    )
    restic(s3_bucket.restic_location, "tag", "--add", "seen")
    again = open_repository(open_retrying_store(s3_bucket.location, s3_bucket.environ))
    (snapshot,) = again.snapshots()
    assert snapshot.tags[-1] == "seen"
    assert read_files(again, snapshot) == {
        f"/shop/archive/{name}": data for name, data in contents(FILES).items()
    }
    assert verify(again, read_data=True).problems == ()
    stored = s3_bucket.keys()
    assert not any("/locks/" in key for key in stored)
