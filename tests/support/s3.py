"""An S3 server on the loopback address, spoken to over real HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import boto3


@dataclass(frozen=True)
class S3Bucket:
    """A fresh bucket: its location for pgstow and restic, and the environment that leads there."""

    name: str
    endpoint: str

    @property
    def location(self) -> str:
        """What ``--repo`` takes."""
        return f"s3://{self.name}/backups"

    @property
    def restic_location(self) -> str:
        """The same place as restic writes it."""
        return f"s3:{self.endpoint}/{self.name}/backups"

    @property
    def environ(self) -> Mapping[str, str]:
        return MappingProxyType(
            {
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing-secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        )

    def client(self) -> Any:
        """Return a boto3 client, to look at the bucket behind pgstow's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
        )

    def keys(self) -> list[str]:
        """Return every key in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]
