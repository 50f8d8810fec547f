"""Making an ``ObjectStore`` from a bucket and the environment.

The variables are those of the vendors' own tools. For S3 the shared configuration files count too, and
credentials come from botocore, so everything ``aws`` can log in with works here: static keys, profiles,
single sign-on, assumed roles, credential processes, container and instance roles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import botocore.session
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from pgstow.core.errors import Interrupted, StoreDenied, UsageError
from pgstow.store.objects import Client, ObjectStore

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, S3Config

__all__ = [
    "Endpoint",
    "Scheme",
    "authority_of",
    "endpoint_of",
    "endpoint_url_of",
    "has_proxy",
    "let_interruption_through",
    "open_bucket",
    "s3_client",
]

Scheme = Literal["s3", "gs", "az"]

_NO_RETRY: Any = {"max_retries": 0}  # RetryingStore is the one place
# Botocore hands out credentials that are good for ten minutes at least; obstore must not keep them longer.
_CREDENTIALS_TTL = timedelta(minutes=5)
_TRUE = frozenset({"1", "true", "yes", "on"})

# Settings of the vendors that are passed through as they are.
_S3_VARIABLES = (
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_REQUEST_PAYER",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_UNSIGNED_PAYLOAD",
)
_GCS_VARIABLES = {
    "GOOGLE_APPLICATION_CREDENTIALS": "application_credentials",
    "GOOGLE_BASE_URL": "base_url",
    "GOOGLE_BEARER_TOKEN": "bearer_token",
    "GOOGLE_SERVICE_ACCOUNT": "service_account",
    "GOOGLE_SERVICE_ACCOUNT_PATH": "service_account",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "service_account_key",
    "GOOGLE_SKIP_SIGNATURE": "skip_signature",
}
_AZURE_VARIABLES = {
    "AZURE_ACCOUNT_NAME": "account_name",  # restic's names
    "AZURE_ACCOUNT_KEY": "account_key",
    "AZURE_ACCOUNT_SAS": "sas_key",
    "AZURE_STORAGE_ACCOUNT": "account_name",  # the az command's
    "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
    "AZURE_STORAGE_KEY": "account_key",
    "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_key",
    "AZURE_STORAGE_ENDPOINT": "endpoint",
    "AZURE_STORAGE_TOKEN": "token",
    "AZURE_CLIENT_ID": "client_id",
    "AZURE_CLIENT_SECRET": "client_secret",
    "AZURE_TENANT_ID": "tenant_id",
    "AZURE_FEDERATED_TOKEN_FILE": "federated_token_file",
    "AZURE_STORAGE_USE_EMULATOR": "use_emulator",
}


def open_bucket(scheme: Scheme, bucket: str, prefix: str, environ: Mapping[str, str]) -> ObjectStore:
    """Return the store below ``prefix`` in ``bucket``; asks no server yet.

    Raises UsageError on settings that cannot be right and StoreDenied when there are no credentials.
    """
    location = f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")
    try:
        client, uploads = _BUILDERS[scheme](bucket, prefix or None, environ)
    except BotoCoreError as exc:
        raise UsageError(f"{location}: {exc}") from exc
    except (BaseError, ValueError) as exc:
        # The first line names the setting; what follows may hold its value.
        raise UsageError(f"{location}: {str(exc).splitlines()[0]}") from None
    return ObjectStore(client, location=location, uploads=uploads)


def _s3_clients(bucket: str, prefix: str | None, environ: Mapping[str, str]) -> tuple[S3Store, S3Store]:
    session = _aws_session(environ)
    profile = session.get_scoped_config()
    config: dict[str, Any] = {
        name.removeprefix("AWS_").lower(): environ[name] for name in _S3_VARIABLES if environ.get(name)
    }
    config["region"] = _s3_region(session, environ)
    config["disable_bulk_delete"] = True  # imitations differ there, and we delete one at a time
    endpoint = _s3_endpoint(session, environ)
    _address(config, bucket, endpoint, _addressing_style(profile, environ))
    if endpoint is None:
        config.setdefault("checksum_algorithm", "SHA256")  # buckets with Object Lock insist on one
    provider = _s3_login(config, session, environ)
    authority = environ.get("AWS_CA_BUNDLE") or profile.get("ca_bundle") or environ.get("SSL_CERT_FILE")
    options = _http_options(environ, endpoint, authority)

    def client(options: ClientConfig) -> S3Store:
        typed: S3Config = config  # type: ignore[assignment]  # built key by key
        return S3Store(
            bucket,
            prefix=prefix,
            config=typed,
            client_options=options,
            retry_config=_NO_RETRY,
            credential_provider=provider,
        )

    return client(_reading(options)), client(_uploading(options))


def s3_client(environ: Mapping[str, str]) -> Any:  # noqa: ANN401  botocore has no types
    """Return botocore's own client, for what obstore cannot ask of S3. It tries nothing again.

    Raises UsageError, StoreDenied.
    """
    try:
        session = _aws_session(environ)
        profile = session.get_scoped_config()
        login: dict[str, Any] = {}
        _s3_login(login, session, environ)
        endpoint = _s3_endpoint(session, environ)
        style = _addressing_style(profile, environ) or ("path" if endpoint is not None else "auto")
        authority = environ.get("AWS_CA_BUNDLE") or profile.get("ca_bundle") or environ.get("SSL_CERT_FILE")
        return session.create_client(
            "s3",
            region_name=_s3_region(session, environ),
            endpoint_url=endpoint,
            aws_access_key_id=login.get("access_key_id"),
            aws_secret_access_key=login.get("secret_access_key"),
            aws_session_token=login.get("session_token"),
            verify=authority or None,
            config=BotoConfig(
                s3={"addressing_style": style},
                retries={"total_max_attempts": 1},
                connect_timeout=10,
                read_timeout=30,
                proxies=_proxies(environ),
            ),
        )
    except BotoCoreError as exc:
        raise UsageError(f"S3: {exc}") from exc


def let_interruption_through(exc: Exception) -> None:
    """Raise the interruption that botocore has wrapped into an error of its own, if it has: nobody must take it for one."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, Interrupted):
            raise cause
        cause = cause.__cause__ or cause.__context__


def _proxies(environ: Mapping[str, str]) -> dict[str, str] | None:
    found = {kind: _variable(environ, f"{kind}_proxy") for kind in ("http", "https")}
    return {kind: proxy for kind, proxy in found.items() if proxy} or None


def _gcs_clients(bucket: str, prefix: str | None, environ: Mapping[str, str]) -> tuple[GCSStore, GCSStore]:
    config: Any = {key: environ[name] for name, key in _GCS_VARIABLES.items() if environ.get(name)}
    options = _http_options(environ, config.get("base_url"), environ.get("SSL_CERT_FILE"))

    def client(options: ClientConfig) -> GCSStore:
        typed: GCSConfig = config
        return GCSStore(bucket, prefix=prefix, config=typed, client_options=options, retry_config=_NO_RETRY)

    return client(_reading(options)), client(_uploading(options))


def _azure_clients(
    container: str, prefix: str | None, environ: Mapping[str, str]
) -> tuple[AzureStore, AzureStore]:
    config: Any = {key: environ[name] for name, key in _AZURE_VARIABLES.items() if environ.get(name)}
    options = _http_options(environ, config.get("endpoint"), environ.get("SSL_CERT_FILE"))

    def client(options: ClientConfig) -> AzureStore:
        typed: AzureConfig = config
        return AzureStore(
            container, prefix=prefix, config=typed, client_options=options, retry_config=_NO_RETRY
        )

    return client(_reading(options)), client(_uploading(options))


_BUILDERS: dict[Scheme, Callable[[str, str | None, Mapping[str, str]], tuple[Client, Client]]] = {
    "s3": _s3_clients,
    "gs": _gcs_clients,
    "az": _azure_clients,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Who answers for a bucket: the service, or the host of an endpoint of one's own. None is unknown."""

    provider: str
    is_plain: bool = False  # http, without TLS
    region: str | None = None
    account: str | None = None


def endpoint_of(scheme: Scheme, environ: Mapping[str, str]) -> Endpoint:
    """Return who answers for buckets with these settings; nobody is asked. Raises UsageError."""
    if scheme == "s3":
        try:
            session = _aws_session(environ)
            endpoint = _s3_endpoint(session, environ)
            if endpoint is None:
                return Endpoint(provider="s3", region=_s3_region(session, environ))
        except BotoCoreError as exc:
            raise UsageError(f"S3: {exc}") from exc
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        return _own_endpoint("s3", endpoint, region=region or None)
    if scheme == "gs":
        base = environ.get("GOOGLE_BASE_URL")
        return _own_endpoint("gs", base) if base else Endpoint(provider="gs")
    account = next(
        (
            environ[name]
            for name, key in _AZURE_VARIABLES.items()
            if key == "account_name" and environ.get(name)
        ),
        None,
    )
    endpoint = environ.get("AZURE_STORAGE_ENDPOINT")
    return (
        _own_endpoint("az", endpoint, account=account)
        if endpoint
        else Endpoint(provider="az", account=account)
    )


def endpoint_url_of(scheme: Scheme, environ: Mapping[str, str]) -> str:
    """Return the address that requests for buckets go to with these settings. Raises UsageError, StoreDenied."""
    if scheme == "s3":
        return str(s3_client(environ).meta.endpoint_url)
    if scheme == "gs":
        return environ.get("GOOGLE_BASE_URL") or "https://storage.googleapis.com"
    account = endpoint_of("az", environ).account
    return environ.get("AZURE_STORAGE_ENDPOINT") or f"https://{account}.blob.core.windows.net"


def authority_of(scheme: Scheme, environ: Mapping[str, str]) -> str | None:
    """Return the file with the certificates of authorities that the settings name; None: the system's own."""
    given = None
    if scheme == "s3":
        given = environ.get("AWS_CA_BUNDLE") or _aws_session(environ).get_scoped_config().get("ca_bundle")
    found = given or environ.get("SSL_CERT_FILE")
    return str(found) if found else None


def has_proxy(environ: Mapping[str, str]) -> bool:
    """Whether requests over https may go through a proxy."""
    return any(_variable(environ, name) for name in ("https_proxy", "all_proxy"))


def _own_endpoint(
    scheme: Scheme, endpoint: str, *, region: str | None = None, account: str | None = None
) -> Endpoint:
    parts = urlsplit(endpoint)
    return Endpoint(
        provider=f"{scheme} at {parts.hostname or 'an unknown host'}",
        is_plain=parts.scheme == "http",
        region=region,
        account=account,
    )


def _aws_session(environ: Mapping[str, str]) -> botocore.session.Session:
    session = botocore.session.Session(
        profile=environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    )
    for variable, name in (
        ("AWS_CONFIG_FILE", "config_file"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"),
    ):
        if environ.get(variable):
            session.set_config_variable(name, environ[variable])
    return session


def _s3_login(
    config: dict[str, Any], session: botocore.session.Session, environ: Mapping[str, str]
) -> Boto3CredentialProvider | None:
    """Put static keys into ``config``, or return who supplies changing ones."""
    if _is_true(environ.get("AWS_SKIP_SIGNATURE")):
        config["skip_signature"] = True
        return None
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        config["access_key_id"] = environ["AWS_ACCESS_KEY_ID"]
        config["secret_access_key"] = environ["AWS_SECRET_ACCESS_KEY"]
        if environ.get("AWS_SESSION_TOKEN"):
            config["session_token"] = environ["AWS_SESSION_TOKEN"]
        return None
    if session.get_credentials() is None:
        raise StoreDenied(
            "no AWS credentials found",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    return Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL)


def _s3_region(session: botocore.session.Session, environ: Mapping[str, str]) -> str:
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return named or session.get_config_variable("region") or "us-east-1"


def _s3_endpoint(session: botocore.session.Session, environ: Mapping[str, str]) -> str | None:
    """Return the endpoint in the order of the AWS tools: service before global, variable before file."""
    if _is_true(environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")):
        return None
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    endpoint = (
        environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or services.get("s3", {}).get("endpoint_url")
        or profile.get("endpoint_url")
    )
    if not endpoint:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise UsageError(
            "the S3 endpoint must be http://HOST or https://HOST, without a user or password",
            hint="look at AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the AWS profile",
        )
    return str(endpoint).rstrip("/")


def _addressing_style(profile: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        return "virtual" if _is_true(environ["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]) else "path"
    settings = profile.get("s3")
    return settings.get("addressing_style") if isinstance(settings, dict) else None


def _address(config: dict[str, Any], bucket: str, endpoint: str | None, style: str | None) -> None:
    """Say where the bucket is: in the host name or in the path.

    On AWS in the host name, except where a dot in it would not match the certificate. Imitations are
    asked by path unless told otherwise, because few have a host name for every bucket.
    """
    is_virtual = style == "virtual" or (style != "path" and endpoint is None and "." not in bucket)
    config["virtual_hosted_style_request"] = is_virtual
    if endpoint is None:
        return
    if is_virtual:  # obstore wants the bucket in the endpoint then
        parts = urlsplit(endpoint)
        endpoint = urlunsplit(parts._replace(netloc=f"{bucket}.{parts.netloc}"))
    config["endpoint"] = endpoint
    config["aws_endpoint_url_s3"] = endpoint  # else obstore lets the variable of that name win over ours


def _http_options(environ: Mapping[str, str], endpoint: str | None, authority: str | None) -> ClientConfig:
    """Return what every client needs: proxy, certificate authority, and whether http is allowed."""
    is_plain = endpoint is not None and endpoint.startswith("http://")
    options: ClientConfig = {"connect_timeout": timedelta(seconds=10), "allow_http": is_plain}
    proxy = _variable(environ, "http_proxy" if is_plain else "https_proxy") or _variable(environ, "all_proxy")
    if proxy:
        options["proxy_url"] = proxy
        if excludes := _variable(environ, "no_proxy"):
            options["proxy_excludes"] = excludes
    if authority:
        try:
            options["root_certificate"] = Path(authority).read_bytes()
        except OSError as exc:
            raise UsageError(f"the CA bundle {authority} cannot be read: {exc.strerror}") from exc
    return options


def _reading(options: ClientConfig) -> ClientConfig:
    """Give up on a reply that stalls; one that flows may take long."""
    return {**options, "read_timeout": timedelta(minutes=2), "timeout": timedelta(minutes=30)}


def _uploading(options: ClientConfig) -> ClientConfig:
    """No stall limit: to obstore an upload is one long wait for the reply. 16 MiB need 9 kB/s."""
    return {**options, "timeout": timedelta(minutes=30)}


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return a proxy variable, which people write in either case (lower wins, as in curl)."""
    return environ.get(name) or environ.get(name.upper())


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() in _TRUE
