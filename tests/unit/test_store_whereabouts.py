"""Where a store is, as far as location and settings tell: nothing is guessed that they do not."""

from __future__ import annotations

import pytest

from pgstow.core.errors import UsageError
from pgstow.store.whereabouts import Whereabouts, whereabouts

NO_FILES = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}


@pytest.mark.parametrize(
    ("location", "environ", "expected"),
    [
        ("/srv/backups", {}, Whereabouts(provider="folder", transport="none")),
        ("file:///srv/backups", {}, Whereabouts(provider="folder", transport="none")),
        (
            "s3://bucket/shop",
            {"AWS_REGION": "eu-west-1"},
            Whereabouts(provider="s3", transport="https", region="eu-west-1"),
        ),
        (
            "s3://bucket/shop",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
            Whereabouts(provider="s3 at 127.0.0.1", transport="http"),
        ),
        (
            "s3://bucket/shop",
            {"AWS_ENDPOINT_URL_S3": "https://store.example", "AWS_DEFAULT_REGION": "fsn1"},
            Whereabouts(provider="s3 at store.example", transport="https", region="fsn1"),
        ),
        ("gs://bucket/shop", {}, Whereabouts(provider="gs", transport="https")),
        (
            "az://container/shop",
            {"AZURE_STORAGE_ACCOUNT": "backups"},
            Whereabouts(provider="az", transport="https", account="backups"),
        ),
    ],
)
def test_whereabouts(location: str, environ: dict[str, str], expected: Whereabouts) -> None:
    assert whereabouts(location, NO_FILES | environ) == expected


def test_an_endpoint_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        whereabouts("s3://bucket", NO_FILES | {"AWS_ENDPOINT_URL": "https://user:hunter22@store.example"})
    assert "hunter22" not in str(caught.value)
