"""What stores themselves tell an evidence report: until when they hold objects, what may be deleted, which TLS they speak."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from botocore.httpsession import URLLib3Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pgstow.app.evidence_repositories import Insides
from pgstow.app.evidence_stores import lock_facts, objects_of, store_facts
from pgstow.catalog.backups import list_backups
from pgstow.config.reading import read_settings
from pgstow.config.settings import Settings
from pgstow.core.errors import Interrupted, StoreError
from pgstow.evidence import facts as evidence
from pgstow.repository import Repository
from pgstow.store.deletion_rights import DeletionRights, probe_deletion_rights
from pgstow.store.object_lock import LockableBucket
from pgstow.store.opening import open_retrying_store
from pgstow.store.tls import negotiated_tls
from support.dated_backups import save_dated
from support.repositories import init_repository
from support.s3 import S3Bucket

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def locking_bucket(s3_bucket: S3Bucket) -> S3Bucket:
    bucket = S3Bucket(name=f"held-{uuid.uuid4().hex[:8]}", endpoint=s3_bucket.endpoint)
    bucket.client().create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=True)
    return bucket


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "password").write_text("a password of it")
    path = tmp_path / "pgstow.yaml"
    path.write_text(
        "databases: {shop: {url: postgresql://db.example/shop}}\n"
        f"repositories: {{far: {{location: {tmp_path}/far, password: file:{tmp_path}/password}}}}\n"
    )
    return read_settings(path)


def hold(bucket: S3Bucket, names: Iterable[str], days: int, mode: str = "COMPLIANCE") -> None:
    """Write objects anew, and have the bucket hold these versions for so long."""
    client = bucket.client()
    for name in names:
        place = {"Bucket": bucket.name, "Key": f"backups/{name}"}
        client.put_object(
            **place,
            Body=client.get_object(**place)["Body"].read(),
            ObjectLockMode=mode,
            ObjectLockRetainUntilDate=NOW + days * DAY,
            ChecksumAlgorithm="SHA256",
        )


def with_backup(bucket: S3Bucket) -> Repository:
    repository = init_repository(open_retrying_store(bucket.location, bucket.environ))
    repository.load_index()
    save_dated(repository, 1, NOW - timedelta(hours=1))
    return repository


def insides(bucket: S3Bucket, repository: Repository) -> Insides:
    return Insides(
        name="far",
        location=repository.store.location,
        repository=repository,
        records=tuple(list_backups(repository)),
        environ=bucket.environ,
    )


def locks(bucket: S3Bucket, repository: Repository, settings: Settings) -> evidence.LockFacts:
    (found,) = lock_facts([insides(bucket, repository)], settings, before=datetime.now(UTC))
    return found


# -- until when objects are held


def test_how_long_the_objects_of_a_backup_are_held_is_read_back(
    locking_bucket: S3Bucket, settings: Settings
) -> None:
    """Daily backups are kept for 30 days; the key that opens them belongs to what is needed."""
    repository = with_backup(locking_bucket)
    names = sorted(objects_of(repository, list_backups(repository)[0]))
    assert {name.partition("/")[0] for name in names} == {"data", "keys", "snapshots"}
    assert set(names) <= {info.name for info in repository.store.list("")}

    def found() -> tuple[bool | None, int, int, int]:
        told = locks(locking_bucket, repository, settings)
        return told.is_lockable, told.objects, told.held, told.liftable

    bare = locks(locking_bucket, repository, settings)
    assert (bare.is_lockable, bare.held, bare.earliest, bare.error) == (True, 0, None, None)
    hold(locking_bucket, names, 20)
    assert found() == (True, len(names), 0, 0)  # too short
    hold(locking_bucket, names, 31, "GOVERNANCE")
    assert found() == (True, len(names), 0, len(names))
    hold(locking_bucket, names[1:], 31)
    assert found() == (True, len(names), len(names) - 1, 1)
    hold(locking_bucket, names[:1], 31)
    whole = locks(locking_bucket, repository, settings)
    assert (whole.held, whole.liftable, whole.error) == (len(names), 0, None)
    assert whole.needed is not None and whole.earliest is not None and whole.earliest > whole.needed


def test_an_object_that_is_not_there_is_held_by_nothing(locking_bucket: S3Bucket) -> None:
    bucket = LockableBucket(locking_bucket.location, locking_bucket.environ)
    assert bucket.locks(["is/not/there"]) == {"is/not/there": None}


def test_places_that_hold_nothing_say_so(s3_bucket: S3Bucket, settings: Settings, tmp_path: Path) -> None:
    repository = with_backup(s3_bucket)
    without = locks(s3_bucket, repository, settings)
    assert (without.is_lockable, without.error) == (False, None)
    folder = replace(insides(s3_bucket, repository), location=str(tmp_path))
    (found,) = lock_facts([folder], settings, before=datetime.now(UTC))
    assert (found.is_lockable, found.error) == (False, "a folder: nothing in it is held until a day")
    azure = replace(folder, location="az://container/x")
    (unread,) = lock_facts([azure], settings, before=datetime.now(UTC))
    assert unread.is_lockable is None and "not read back yet" in (unread.error or "")


# -- what may be deleted


def test_credentials_that_may_delete_are_found_out_and_nothing_is_touched(s3_bucket: S3Bucket) -> None:
    repository = with_backup(s3_bucket)
    before = {info.name: repository.store.get(info.name) for info in repository.store.list("")}
    rights = probe_deletion_rights(s3_bucket.location, s3_bucket.environ)
    assert rights == DeletionRights(
        may_write=True, may_delete=True, may_delete_versions=True, keeps_versions=False
    )
    after = {info.name: repository.store.get(info.name) for info in repository.store.list("")}
    assert after == before


def test_in_a_bucket_with_versions_no_marker_is_left(locking_bucket: S3Bucket) -> None:
    assert probe_deletion_rights(locking_bucket.location, locking_bucket.environ).keeps_versions
    versions = locking_bucket.client().list_object_versions(Bucket=locking_bucket.name)
    left = [each["Key"] for kind in ("Versions", "DeleteMarkers") for each in versions.get(kind, ())]
    assert set(left) <= {"backups/pgstow/evidence-probe"}  # what the bucket keeps of our own object


class _Policed(BaseHTTPRequestHandler):
    """S3 as far as the probe asks it, with rights that a test sets. It notes what it was asked to delete."""

    denied: ClassVar[tuple[Callable[[str, str], bool], ...]] = ()
    asked: ClassVar[list[tuple[str, str]]] = []
    port: ClassVar[int]

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.asked.append((self.command, self.path))
        denied = any(each(self.command, self.path) for each in self.denied)
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        if denied:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        elif self.command != "GET":
            body = b""
        self.send_response(403 if denied else 204 if self.command == "DELETE" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = _answer  # noqa: N815  the names that the base class asks for

    def log_message(self, *_arguments: object) -> None:
        return


@pytest.fixture
def policed() -> Iterator[type[_Policed]]:
    class Handler(_Policed):
        asked: ClassVar[list[tuple[str, str]]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()


def rights_of(handler: type[_Policed], *denied: Callable[[str, str], bool]) -> DeletionRights:
    handler.denied = denied
    bucket = S3Bucket(name="policed", endpoint=f"http://127.0.0.1:{handler.port}")
    return probe_deletion_rights(bucket.location, bucket.environ)


def deletes(method: str, path: str) -> bool:
    return method == "DELETE" and "versionId" not in path and "pgstow" not in path


def deletes_versions(method: str, path: str) -> bool:
    return method == "DELETE" and "versionId" in path


@pytest.mark.parametrize(
    ("denied", "expected"),
    [
        ((deletes_versions,), (True, True, False)),
        ((deletes, deletes_versions), (True, False, False)),
        ((lambda method, _path: method == "PUT",), (False, False, False)),
        ((lambda method, path: deletes(method, path) and "/data/" in path,), (True, True, True)),
    ],
    ids=["hide", "nothing", "not even write", "in some folders"],
)
def test_what_a_policy_denies_is_found_out(
    policed: type[_Policed],
    denied: tuple[Callable[[str, str], bool], ...],
    expected: tuple[bool, bool, bool],
) -> None:
    rights = rights_of(policed, *denied)
    assert (rights.may_write, rights.may_delete, rights.may_delete_versions) == expected
    assert rights.keeps_versions is rights.may_write


def test_only_names_that_no_object_has_are_deleted(policed: type[_Policed]) -> None:
    rights_of(policed, deletes, deletes_versions)
    deleted = [path.partition("?")[0] for method, path in policed.asked if method == "DELETE"]
    others = [path for path in deleted if path != "/policed/backups/pgstow/evidence-probe"]
    assert len(set(others)) == 4
    for path in others:
        assert len(path.rpartition("/")[2]) == 64
        assert path.startswith(
            tuple(f"/policed/backups/{each}/" for each in ("data", "index", "keys", "snapshots"))
        )
    assert {path.partition("?")[0] for method, path in policed.asked if method == "PUT"} == {
        "/policed/backups/pgstow/evidence-probe"
    }


def test_a_bucket_that_does_not_answer_leaves_it_unknown(s3_bucket: S3Bucket) -> None:
    gone = S3Bucket(name="is-not-there", endpoint=s3_bucket.endpoint)
    with pytest.raises(StoreError, match="is-not-there"):
        probe_deletion_rights(gone.location, gone.environ)


def test_an_interruption_is_no_answer_of_a_bucket(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Botocore makes an error of its own of everything that is raised while it waits, of Ctrl-C too."""

    def interrupted(*_arguments: object, **_named: object) -> None:
        raise Interrupted("interrupted by SIGINT")

    monkeypatch.setattr(URLLib3Session, "_get_connection_manager", interrupted)
    with pytest.raises(Interrupted):
        probe_deletion_rights(s3_bucket.location, s3_bucket.environ)
    with pytest.raises(Interrupted):
        LockableBucket(s3_bucket.location, s3_bucket.environ).locks(["a"])


def test_a_folder_is_what_who_writes_there_can_empty(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    repository = with_backup(s3_bucket)
    folder = replace(insides(s3_bucket, repository), location=str(tmp_path))
    rights = store_facts(folder, probes_deletion=False)["deletion"]
    assert rights == evidence.DeletionFacts(is_folder=True, may_write=True)
    bucket = insides(s3_bucket, repository)
    assert store_facts(bucket, probes_deletion=False)["deletion"] is None  # asked for by who makes the report
    assert store_facts(bucket, probes_deletion=True)["deletion"].may_delete_versions


# -- which TLS is spoken


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the loopback address, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store of a test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_negotiated_version_is_the_stores(authority: Path, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                plain, _address = listener.accept()
                try:
                    with context.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(1)
                except OSError:  # who does not trust the certificate hangs up
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        bucket = S3Bucket(name="x", endpoint=f"https://127.0.0.1:{listener.getsockname()[1]}")
        trusting = {**bucket.environ, "AWS_CA_BUNDLE": str(authority)}
        try:
            assert negotiated_tls(bucket.location, trusting) == version.name.replace("_", ".")
        finally:
            with pytest.raises(StoreError, match="is unknown"):  # a certificate that nobody vouches for
                negotiated_tls(bucket.location, bucket.environ)
            thread.join()


def test_what_is_not_reached_by_tls_or_not_directly_is_not_known(tmp_path: Path, s3_bucket: S3Bucket) -> None:
    assert negotiated_tls(str(tmp_path), {}) is None
    assert negotiated_tls(s3_bucket.location, s3_bucket.environ) is None  # http
    proxied = {
        **s3_bucket.environ,
        "AWS_ENDPOINT_URL": "https://127.0.0.1:9",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    with pytest.raises(StoreError, match="through a proxy"):
        negotiated_tls(s3_bucket.location, proxied)
