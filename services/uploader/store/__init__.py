"""The small protocol between the uploader and an S3 client, and the two clients that S3_CLIENT chooses between.

- the clients: `aiobotocore`, and `wire` with its `connections` and its requests (`signing`); chosen by `opening`;
- what both share: `options` and `put_parameters` (what a put carries), `answers` (what a refusal means), `checksum` and
  `proof` (what proves a success), `existing` (what stands at a create-only key), `botocore_errors`, `clients` (makes
  those of aiobotocore);
- what is around them: `renewing` and `renewal` (clients that come and go), `deadlines` (the last one of each put);
- what is asked of a bucket, by the operator's commands alone: `objects` and `found`.

A store is handed bytes and a key and raises `services.uploader.errors` by what is to be done. It never retries itself:
retries have one place (`services.uploader.retry`), or the limiter would not see SlowDown.
"""

from collections.abc import Mapping
from typing import Protocol


class Store(Protocol):
    """Where objects go. One instance serves all partitions of a process; `put` may run many times at once."""

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store one private object of `application/octet-stream`; return only when the store has said that it is kept.

        Args:
            key: the object's key, safe characters only.
            body: its exact bytes, may be empty.
            metadata: ASCII names and values kept with the object.

        Raises:
            TransientError: try the same put again.
            ConfigurationError: try again, and tell a person why.
            PoisonRecord: never try again.

        """
        ...
