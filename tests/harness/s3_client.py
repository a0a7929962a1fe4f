"""A bucket as anyone else sees it: botocore's own client, none of our code. For servers that we cannot look into."""

import contextlib
from collections.abc import Mapping

import botocore.session
from botocore.config import Config

from tests.fakes.script import Version


class Bucket:
    """Create, list and read one bucket. Holds connections until `close`."""

    def __init__(self, environment: Mapping[str, str], name: str) -> None:
        self.name = name
        self._client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=environment["S3_ENDPOINT_URL"],
            region_name=environment.get("AWS_DEFAULT_REGION", "us-east-1"),
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def create(self) -> None:
        """Make the bucket."""
        self._client.create_bucket(Bucket=self.name)

    def keys(self) -> list[str]:
        """Every key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def get(self, key: str) -> Version:
        """What lies at the key now."""
        found = self._client.get_object(Bucket=self.name, Key=key)
        with contextlib.closing(found["Body"]) as stream:
            return Version(stream.read(), found["Metadata"], found["ContentType"], 0)

    def versions(self) -> dict[str, list[Version]]:
        """The one version that can be read, by key."""
        return {key: [self.get(key)] for key in self.keys()}
