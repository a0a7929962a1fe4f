"""A bucket as anyone else sees it: botocore's own client, none of our code. For servers that we cannot look into."""

import contextlib
from typing import Any

from tests.fakes.script import Version


class Bucket:
    """Create, list and read one bucket with a botocore client, which `close` closes."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def create(self) -> None:
        """Make the bucket."""
        self._client.create_bucket(Bucket=self.name)

    def names(self) -> list[str]:
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
        return {key: [self.get(key)] for key in self.names()}
