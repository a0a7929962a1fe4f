"""What lies in a bucket, asked by the one client that can: HEAD, GET and LIST. Writes nothing, retries nothing.

For whoever compares the bucket with the topic. Needs s3:GetObject and s3:ListBucket: without the second S3 answers 403
for an object that is not there.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from botocore.exceptions import ClientError

from services.uploader.errors import StoreError, TransientError
from services.uploader.store.botocore_errors import translate
from services.uploader.store.checksum import Answered, Checksum
from services.uploader.store.clients import RAISED, Clients, status_of
from services.uploader.store.found import Digest, Head, Listed
from services.uploader.store.options import StoreOptions

_FORBIDDEN = 403
_NOT_FOUND = 404
_PIECE_BYTES = 256 * 1024

_SUM_FIELD = {Checksum.CRC32: "ChecksumCRC32", Checksum.SHA256: "ChecksumSHA256"}


class BucketObjects:
    """`found.Objects` by an aiobotocore client. Made by `open_objects`."""

    def __init__(self, client: Any, options: StoreOptions) -> None:
        self._client = client
        self._bucket = options.bucket
        self._sum_field = _SUM_FIELD.get(options.checksum, "")

    async def head(self, key: str) -> Head | None:
        """See `found.Objects.head`."""
        try:
            answer = await self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except RAISED as error:
            self._unless_absent(error)
            return None
        if "ContentLength" not in answer:
            raise TransientError("unexpected_answer", f"a HEAD of {key} that tells no size: not an answer of S3")
        answered = Answered(
            answer.get("ETag", ""),
            answer.get("ServerSideEncryption", ""),
            "SSECustomerAlgorithm" in answer,
            answer.get(self._sum_field, "") if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else "",
        )
        return Head(answer["ContentLength"], answered, answer.get("Metadata", {}))

    async def digest(self, key: str) -> Digest | None:
        """See `found.Objects.digest`."""
        md5, size = hashlib.md5(usedforsecurity=False), 0
        try:
            answer = await self._client.get_object(Bucket=self._bucket, Key=key)
            async with answer["Body"] as stream:
                while piece := await stream.read(_PIECE_BYTES):
                    md5.update(piece)
                    size += len(piece)
        except RAISED as error:
            self._unless_absent(error)
            return None
        return Digest(size, base64.b64encode(md5.digest()).decode())

    async def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        """See `found.Objects.page`."""
        try:
            answer = await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
        except RAISED as error:
            raise self._refused(error) from error
        found = [Listed(item["Key"], item["Size"], item.get("ETag", "")) for item in answer.get("Contents", [])]
        return found, bool(answer.get("IsTruncated", False))

    def _unless_absent(self, error: Exception) -> None:
        """Return where the answer is that there is no such object.

        Raises:
            StoreError: it is another one.

        """
        if isinstance(error, ClientError) and status_of(error) == _NOT_FOUND and _code(error) != "NoSuchBucket":
            return
        raise self._refused(error) from error

    def _refused(self, error: Exception) -> StoreError:
        found = translate(error, self._bucket)
        if isinstance(error, ClientError) and status_of(error) == _FORBIDDEN:
            return type(found)(found.reason, f"{found} (to look needs s3:GetObject and s3:ListBucket)")
        return found


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@asynccontextmanager
async def open_objects(options: StoreOptions) -> AsyncIterator[BucketObjects]:
    """A client for questions, for as long as the context lasts.

    Raises:
        ConfigurationError: AWS's variables or files make none.

    """
    async with Clients(options).open() as opened:
        yield BucketObjects(opened.client, options)
