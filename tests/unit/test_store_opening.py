"""Locations and environments: what leads where, with which settings, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from pgstow.core.errors import StoreDenied, UsageError
from pgstow.store.local import LocalStore
from pgstow.store.objects import ObjectStore
from pgstow.store.opening import open_retrying_store, open_store
from pgstow.store.retrying import RetryingStore

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/not/a/real/key",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
AZURE = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}


def s3(environ: dict[str, str], location: str = "s3://bucket/prefix") -> Any:
    store = open_store(location, {**KEYS, **environ})
    assert isinstance(store, ObjectStore)
    return store._client


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/srv/backups", "/srv/backups"),
        ("/srv/../srv/./backups/", "/srv/backups"),
        ("file:///srv/my%20backups", "/srv/my backups"),
        ("file://localhost/srv/backups", "/srv/backups"),
        ("~/backups", "/home/me/backups"),
        ("~", "/home/me"),
        ("backups", "{cwd}/backups"),
        ("./with:colon", "{cwd}/with:colon"),
        (".", "{cwd}"),
    ],
)
def test_folders(location: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    store = open_store(location, {"HOME": "/home/me"})

    assert isinstance(store, LocalStore)
    assert store.location == expected.format(cwd=tmp_path)


@pytest.mark.parametrize(
    ("location", "environ", "expected"),
    [
        ("s3://bucket", KEYS, "s3://bucket"),
        ("s3://bucket/", KEYS, "s3://bucket"),
        ("S3://bucket/some/prefix/", KEYS, "s3://bucket/some/prefix"),
        ("gs://bucket/prefix", {"GOOGLE_SKIP_SIGNATURE": "true"}, "gs://bucket/prefix"),
        ("az://container/prefix", AZURE, "az://container/prefix"),
    ],
)
def test_buckets(location: str, environ: dict[str, str], expected: str) -> None:
    store = open_store(location, environ)

    assert isinstance(store, ObjectStore)
    assert store.location == expected
    for client in (store._client, store._uploads):
        assert client.retry_config["max_retries"] == 0


@pytest.mark.parametrize(
    "location",
    [
        "",
        "  ",
        "ftp://host/path",
        "sftp:user@host:/path",
        "s3:https://host/bucket",
        "s3:host/bucket",
        "rest:http://host/",
        "s3://",
        "s3:///prefix",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://buc ket/a",
        "s3://bucket:9000/a",
        "gs://bücket",
        "file://host/path",
        "file:relative",
        "file:///path?query",
        "nul\0byte",
    ],
)
def test_what_cannot_be_a_location_is_refused_with_the_accepted_forms(location: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(location, KEYS)

    assert caught.value.hint is not None
    for form in ("/path", "file:///", "s3://", "gs://", "az://"):
        assert form in caught.value.hint


@pytest.mark.parametrize(
    "location",
    ["s3://AKID:hunter2@bucket/prefix", "az://c/p?sig=hunter2", "s3://hunter2@bucket", "gs://b/p#hunter2"],
)
def test_secrets_in_a_location_are_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(location, KEYS)

    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value.hint)


def test_every_kind_gets_the_same_retry() -> None:
    for location in ("/srv/backups", "s3://bucket"):
        store = open_retrying_store(location, KEYS)
        assert isinstance(store, RetryingStore)
        assert store.location == location


def test_aws_itself_is_addressed_by_host_name_over_https_with_checksums() -> None:
    client = s3({"AWS_REGION": "eu-central-1"})

    assert client.config["region"] == "eu-central-1"
    assert client.config["virtual_hosted_style_request"] in (True, "true")
    assert client.config["checksum_algorithm"].lower() == "sha256"
    assert "endpoint" not in client.config
    assert client.client_options["allow_http"] in (False, "false")


def test_a_dot_in_the_bucket_would_not_match_the_certificate() -> None:
    assert s3({}, "s3://my.bucket").config["virtual_hosted_style_request"] in (False, "false")


@pytest.mark.parametrize(
    ("environ", "endpoint", "allow_http"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000", True),
        ({"AWS_ENDPOINT_URL": "https://minio.example/"}, "https://minio.example", False),
        (
            {"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_S3": "https://s3.example"},
            "https://s3.example",
            False,
        ),
        (
            {"AWS_ENDPOINT_URL": "https://oss.example", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"},
            "https://bucket.oss.example",
            False,
        ),
    ],
)
def test_endpoints(environ: dict[str, str], endpoint: str, allow_http: bool) -> None:
    client = s3(environ)

    assert client.config["endpoint"] == endpoint
    assert client.config["virtual_hosted_style_request"] in (
        "bucket" in endpoint,
        str("bucket" in endpoint).lower(),
    )
    assert client.client_options["allow_http"] in (allow_http, str(allow_http).lower())
    assert "checksum_algorithm" not in client.config


@pytest.mark.parametrize(
    "endpoint", ["minio.example:9000", "ftp://host", "https://user:hunter2@host", "https://"]
)
def test_a_bad_endpoint_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(UsageError, match="endpoint") as caught:
        s3({"AWS_ENDPOINT_URL": endpoint})

    assert "hunter2" not in str(caught.value)


def test_a_profile_supplies_keys_region_and_endpoint(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile backup]\nregion = eu-west-3\nservices = mine\ns3 =\n  addressing_style = virtual\n"
        "[services mine]\ns3 =\n  endpoint_url = https://s3.example\n"
    )
    (tmp_path / "credentials").write_text(
        "[backup]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = from-the-file\n"
    )
    environ = {
        "AWS_PROFILE": "backup",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    store = open_store("s3://bucket", environ)
    assert isinstance(store, ObjectStore)
    client: Any = store._client

    assert client.config["region"] == "eu-west-3"
    assert client.config["endpoint"] == "https://bucket.s3.example"
    credential = client.credential_provider()
    assert credential["access_key_id"] == "AKIDPROFILE"
    assert credential["secret_access_key"] == "from-the-file"


def test_keys_in_the_environment_win_over_a_profile(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile backup]\nregion = eu-west-3\n")

    client = s3({"AWS_PROFILE": "backup", "AWS_CONFIG_FILE": str(tmp_path / "config")})

    assert client.credential_provider is None
    assert client.config["access_key_id"] == "AKIDEXAMPLE"
    assert client.config["region"] == "eu-west-3"


def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        s3({"AWS_PROFILE": "nosuch"})


def test_no_credentials_are_said_before_anything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    environ = {key: value for key, value in KEYS.items() if "FILE" in key}

    with pytest.raises(StoreDenied, match="no AWS credentials") as caught:
        open_store("s3://bucket", environ)

    assert "AWS_PROFILE" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("endpoint", "environ", "proxy", "excludes"),
    [
        ("https://s3.example", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128", None),
        (
            "https://s3.example",
            {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"},
            "http://low:1",
            None,
        ),
        ("https://s3.example", {"HTTP_PROXY": "http://proxy:3128"}, None, None),
        ("http://s3.example", {"HTTP_PROXY": "http://proxy:3128"}, "http://proxy:3128", None),
        ("https://s3.example", {"ALL_PROXY": "http://all:1", "NO_PROXY": ".local"}, "http://all:1", ".local"),
        ("https://s3.example", {}, None, None),
    ],
)
def test_proxies(endpoint: str, environ: dict[str, str], proxy: str | None, excludes: str | None) -> None:
    options = s3({"AWS_ENDPOINT_URL": endpoint, **environ}).client_options

    assert options.get("proxy_url") == proxy
    assert options.get("proxy_excludes") == excludes


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_ca_bundle_is_read(variable: str, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))

    options = s3({variable: str(bundle)}).client_options

    assert bytes(options["root_certificate"]) == bundle.read_bytes()


def test_a_ca_bundle_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"/nonexistent/ca\.pem cannot be read"):
        s3({"AWS_CA_BUNDLE": "/nonexistent/ca.pem"})


def test_encryption_settings_are_passed_on() -> None:
    client = s3({"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms", "AWS_SSE_KMS_KEY_ID": "key-1"})

    assert client.config["server_side_encryption"] == "aws:kms"
    assert client.config["sse_kms_key_id"] == "key-1"


@pytest.mark.parametrize("prefix", ["AZURE_ACCOUNT_{}", "AZURE_STORAGE_ACCOUNT_{}"])
def test_azure_accounts_by_either_name(prefix: str) -> None:
    store = open_store("az://container", {prefix.format("NAME"): "acct", prefix.format("KEY"): "a2V5"})
    assert isinstance(store, ObjectStore)
    client: Any = store._client

    assert client.config["account_name"] == "acct"


def test_azure_without_an_account_is_refused() -> None:
    with pytest.raises(UsageError, match="Account must be specified"):
        open_store("az://container", {})


def test_bad_google_key_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "hunter2"}'})

    assert "hunter2" not in str(caught.value)
