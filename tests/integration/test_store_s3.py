"""Object stores over real HTTP and TLS: replies of all kinds, lost ones, proxies, certificates, other clouds."""

from __future__ import annotations

import logging
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from pgstow.core.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pgstow.store.api import Store
from pgstow.store.opening import open_store
from pgstow.store.probing import probe_conditional_put
from pgstow.store.retrying import RetryingStore
from support.bucket_server import Answer, BucketServer, bucket_server, s3_error
from support.s3 import S3Bucket

SECRET_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEBYaDExampleSessionToken0123456789+/=" * 4
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": TOKEN,
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
RESET = Answer(status=0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a proxy of this machine out of the way of the loopback address."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[BucketServer]:
    with bucket_server() as running:
        yield running


@pytest.fixture
def store(server: BucketServer) -> Store:
    return open_store("s3://bucket/prefix", {**ENVIRON, "AWS_ENDPOINT_URL": server.url})


def impatient(store: Store) -> RetryingStore:
    return RetryingStore(store, sleep=lambda _seconds: None)


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("data/x", b"12345"),
    "create": lambda store: store.put("data/x", b"12345", if_absent=True),
    "get": lambda store: store.get("data/x"),
    "range": lambda store: store.get_range("data/x", 0, 3),
    "list": lambda store: list(store.list("data/")),
    "delete": lambda store: store.delete("data/x"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (s3_error(500, "InternalError"), StoreUnavailable),
        (s3_error(502, "BadGateway"), StoreUnavailable),
        (s3_error(503, "SlowDown"), StoreUnavailable),
        (s3_error(504, "GatewayTimeout"), StoreUnavailable),
        (s3_error(429, "TooManyRequests"), StoreUnavailable),
        (s3_error(400, "RequestTimeout"), StoreUnavailable),
        (s3_error(409, "ConditionalRequestConflict"), StoreUnavailable),
        (RESET, StoreUnavailable),
        (s3_error(403, "AccessDenied"), StoreDenied),
        (s3_error(403, "RequestTimeTooSkewed"), StoreDenied),
        (s3_error(401, "Unauthorized"), StoreDenied),
        (s3_error(400, "ExpiredToken", f"<Token-0>{TOKEN}</Token-0>"), StoreDenied),
        (s3_error(507, "XMinioStorageFull"), StoreFull),
        (s3_error(403, "QuotaExceeded"), StoreFull),
        (s3_error(404, "NoSuchBucket"), StoreError),
        (s3_error(501, "NotImplemented"), StoreError),
        (s3_error(301, "PermanentRedirect"), StoreError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or f"{value.status}",
)
def test_replies_are_translated_without_secrets(
    server: BucketServer, store: Store, operation: str, answer: Answer, expected: type[StoreError]
) -> None:
    server.always = answer

    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](store)

    assert type(caught.value) is expected
    assert "s3://bucket/prefix" in str(caught.value)
    assert len(server.requests) == 1  # obstore's own retry is off
    shown = (
        "".join(traceback.format_exception(caught.value)) + repr(caught.value.facts) + str(caught.value.hint)
    )
    assert TOKEN not in shown
    assert SECRET_KEY not in shown
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (s3_error(404, "NoSuchBucket"), "bucket does not exist"),
        (s3_error(301, "PermanentRedirect"), "AWS_REGION"),
        (s3_error(403, "RequestTimeTooSkewed"), "clock"),
        (s3_error(403, "AccessDenied"), "credentials"),
    ],
    ids=["bucket", "region", "clock", "credentials"],
)
def test_hints_say_what_to_do(server: BucketServer, store: Store, answer: Answer, hint: str) -> None:
    server.always = answer

    with pytest.raises(StoreError) as caught:
        store.get("config")

    assert hint in str(caught.value.hint)


def test_what_the_server_says_is_shown_but_for_what_looks_secret(server: BucketServer, store: Store) -> None:
    body = f"<Error><Code>AccessDenied</Code><Message>user backup may not s3:PutObject, key {SECRET_KEY}</Message></Error>"
    server.always = Answer(status=403, body=body)

    with pytest.raises(
        StoreDenied, match=r"HTTP 403 AccessDenied \(user backup may not s3:PutObject, key \.\.\.\)"
    ):
        store.put("config", b"1")


@pytest.mark.parametrize("code", ["OperationAborted", "BlobImmutableDueToPolicy", "Conflict"])
def test_a_conflict_is_an_existing_object_only_when_absence_was_the_condition(
    server: BucketServer, store: Store, code: str
) -> None:
    server.always = s3_error(409, code)

    with pytest.raises(StoreError) as caught:
        store.put("config", b"1")

    assert not isinstance(caught.value, ObjectExists)


@pytest.mark.parametrize("cut", [RESET, s3_error(500, "InternalError"), s3_error(503, "SlowDown")])
def test_a_passing_failure_is_hidden_by_retrying(server: BucketServer, store: Store, cut: Answer) -> None:
    server.answers = [cut, cut]
    impatient(store).put("data/x", b"12345")

    assert server.objects == {"/bucket/prefix/data/x": b"12345"}
    assert [request.method for request in server.requests] == ["PUT"] * 3


def test_a_create_whose_reply_was_lost_is_settled_by_reading_back(server: BucketServer, store: Store) -> None:
    server.answers = [Answer(status=0, work_first=True)]
    impatient(store).put("config", b"ours", if_absent=True)

    assert [request.method for request in server.requests] == ["PUT", "PUT", "GET"]
    assert server.objects == {"/bucket/prefix/config": b"ours"}


def test_a_create_whose_request_was_lost_does_not_claim_anothers_object(
    server: BucketServer, store: Store
) -> None:
    server.objects["/bucket/prefix/config"] = b"theirs"
    server.answers = [RESET]

    with pytest.raises(ObjectExists):
        impatient(store).put("config", b"ours", if_absent=True)

    assert server.objects == {"/bucket/prefix/config": b"theirs"}


def test_a_bare_store_does_not_assume_what_a_lost_reply_said(server: BucketServer, store: Store) -> None:
    server.answers = [Answer(status=0, work_first=True)]

    with pytest.raises(StoreUnavailable):
        store.put("config", b"ours", if_absent=True)


def test_a_reply_that_is_cut_off_is_tried_again(server: BucketServer, store: Store) -> None:
    store.put("data/x", b"12345")
    server.answers = [Answer(status=200, body="123", headers={"Content-Length": "5", "Connection": "close"})]

    with pytest.raises(StoreUnavailable):
        store.get("data/x")


def test_large_objects_are_one_request(server: BucketServer, store: Store) -> None:
    data = bytes(17 << 20)
    store.put("data/pack", data)

    assert [request.method for request in server.requests] == ["PUT"]
    assert store.get("data/pack") == data


def test_a_server_that_ignores_the_condition_is_found_out(server: BucketServer, store: Store) -> None:
    assert probe_conditional_put(store) is True
    server.answers = [None, Answer(status=200, headers={"ETag": '"x"'})]
    assert probe_conditional_put(store) is False
    server.answers = [s3_error(501, "NotImplemented")]
    assert probe_conditional_put(store) is False
    assert server.objects == {}


def test_a_refused_connection_may_pass(unused_port: int) -> None:
    store = open_store("s3://bucket", {**ENVIRON, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port}"})

    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.get("config")


@pytest.fixture
def unused_port() -> int:
    with bucket_server() as server:
        return int(server.url.rpartition(":")[2])


def test_requests_go_through_the_proxy_but_for_excluded_hosts(server: BucketServer) -> None:
    environ = {**ENVIRON, "AWS_ENDPOINT_URL": "http://s3.example.invalid", "HTTP_PROXY": server.url}
    open_store("s3://bucket", environ).put("config", b"1")

    assert [request.target for request in server.requests] == ["http://s3.example.invalid/bucket/config"]
    excluded = open_store("s3://bucket", {**environ, "NO_PROXY": ".example.invalid"})
    with pytest.raises(StoreUnavailable, match="cannot be resolved") as caught:
        excluded.get("config")
    assert "AWS_ENDPOINT_URL" in str(caught.value.hint)
    assert len(server.requests) == 1


def test_a_profile_signs_the_requests(server: BucketServer, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"[profile backup]\nregion = eu-west-3\nendpoint_url = {server.url}\n")
    (tmp_path / "credentials").write_text(
        "[backup]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = from-the-file\n"
    )
    environ = {
        "AWS_PROFILE": "backup",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    open_store("s3://bucket", environ).put("config", b"1")

    (request,) = server.requests
    assert "Credential=AKIDPROFILE/" in request.headers["authorization"]
    assert "/eu-west-3/s3/" in request.headers["authorization"]


def test_credentials_that_cannot_be_had_are_said(server: BucketServer, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\nregion = eu-west-3\n"
        "[sso-session s]\nsso_start_url = https://sso.example\nsso_region = eu-west-3\n"
    )
    environ = {
        "AWS_PROFILE": "sso",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_ENDPOINT_URL": server.url,
    }

    with pytest.raises(StoreDenied, match="credentials"):
        open_store("s3://bucket", environ).get("config")

    assert server.requests == []


# -- a bucket with history, on moto


def test_keys_that_are_no_objects_of_ours_are_not_shown(s3_bucket: S3Bucket) -> None:
    store = open_store(s3_bucket.location, s3_bucket.environ)
    store.put("data/ab/object", b"1")
    client = s3_bucket.client()
    for key in ("backups/data/", "backups/data/naïve", "backups-2/data/other", "elsewhere"):
        client.put_object(Bucket=s3_bucket.name, Key=key, Body=b"")

    assert [info.name for info in store.list("data/")] == ["data/ab/object"]


def test_a_key_that_leads_upwards_stops_a_listing(s3_bucket: S3Bucket) -> None:
    store = open_store(s3_bucket.location, s3_bucket.environ)
    s3_bucket.client().put_object(Bucket=s3_bucket.name, Key="backups/data/../../etc/passwd", Body=b"")

    with pytest.raises(StoreError, match="whose name no store can have"):
        list(store.list("data/"))


def test_the_root_of_a_bucket_is_a_store(s3_bucket: S3Bucket) -> None:
    store = open_store(f"s3://{s3_bucket.name}", s3_bucket.environ)
    store.put("data/object", b"1")

    assert s3_bucket.keys() == ["data/object"]
    assert [info.name for info in store.list("")] == ["data/object"]


def test_a_bucket_that_is_not_there(s3_server: str) -> None:
    store = open_store("s3://nosuchbucket", {**ENVIRON, "AWS_ENDPOINT_URL": s3_server})

    for operation in ("put", "create", "get", "range", "list", "delete"):
        with pytest.raises(StoreError) as caught:
            OPERATIONS[operation](store)
        assert type(caught.value) is StoreError
        assert "bucket does not exist" in str(caught.value.hint)


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_endpoint(authority: trustme.CA) -> Iterator[str]:
    """Return the address of moto behind TLS, with a certificate of a private authority."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_certificate_authority_is_trusted_when_told_so(
    s3_bucket: S3Bucket, tls_endpoint: str, authority: trustme.CA, tmp_path: Path, variable: str
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    environ = {**s3_bucket.environ, "AWS_ENDPOINT_URL": tls_endpoint, variable: str(tmp_path / "ca.pem")}
    store = open_store(s3_bucket.location, environ)

    store.put("config", b"over TLS", if_absent=True)

    assert store.get("config") == b"over TLS"
    assert s3_bucket.keys() == ["backups/config"]


def test_an_unknown_certificate_authority_is_refused_at_once(s3_bucket: S3Bucket, tls_endpoint: str) -> None:
    store = open_store(s3_bucket.location, {**s3_bucket.environ, "AWS_ENDPOINT_URL": tls_endpoint})

    with pytest.raises(StoreError, match="certificate of the endpoint is not trusted") as caught:
        impatient(store).put("config", b"1")

    assert type(caught.value) is StoreError
    assert "AWS_CA_BUNDLE" in str(caught.value.hint)


def test_https_to_a_server_without_tls_is_refused_at_once(server: BucketServer) -> None:
    endpoint = server.url.replace("http:", "https:")
    store = open_store("s3://bucket", {**ENVIRON, "AWS_ENDPOINT_URL": endpoint})

    with pytest.raises(StoreError, match="does not speak TLS") as caught:
        store.get("config")

    assert type(caught.value) is StoreError


# -- other clouds


@pytest.fixture(params=["gs", "az"])
def other_cloud(request: pytest.FixtureRequest, server: BucketServer) -> Store:
    if request.param == "gs":
        return open_store(
            "gs://bucket/prefix", {"GOOGLE_BASE_URL": server.url, "GOOGLE_BEARER_TOKEN": "testing"}
        )
    environ = {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "AZURE_STORAGE_ENDPOINT": server.url,
    }
    return open_store("az://container/prefix", environ)


def test_other_clouds_speak_the_same_store(other_cloud: Store, server: BucketServer) -> None:
    other_cloud.put("config", b"0123456789", if_absent=True)
    with pytest.raises(ObjectExists):
        other_cloud.put("config", b"other", if_absent=True)
    other_cloud.put("data/x", b"1")
    other_cloud.put("data/x", b"2")

    assert other_cloud.get("config") == b"0123456789"
    assert other_cloud.get_range("config", 3, 4) == b"3456"
    assert other_cloud.stat("config").size_bytes == 10
    assert other_cloud.get("data/x") == b"2"
    other_cloud.delete("data/x")
    other_cloud.delete("data/x")
    with pytest.raises(ObjectNotFound):
        other_cloud.get("data/x")
    server.always = s3_error(404, "ContainerNotFound")
    with pytest.raises(StoreError, match="cannot delete"):
        other_cloud.delete("data/x")
    server.always = s3_error(503, "ServerBusy")
    with pytest.raises(StoreUnavailable):
        other_cloud.put("data/x", b"1")
    server.always = s3_error(409, "BlobImmutableDueToPolicy")
    with pytest.raises(StoreDenied):
        other_cloud.put("config", b"overwritten")
