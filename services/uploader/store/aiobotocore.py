"""The reference client of S3: one long-lived aiobotocore client, tuned as DESIGN §7 says, its errors translated once.

One put is one request. The client never retries (`total_max_attempts=1`: a retry hidden here would hide SlowDown from
the uploader), follows no redirect, and carries no `Expect: 100-continue` (a round trip a put).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from botocore.exceptions import ClientError
from prometheus_client import Counter

from services.uploader.errors import PoisonRecord, TransientError
from services.uploader.store.botocore_errors import translate
from services.uploader.store.checksum import Answered, Checksum, Verdict, compare
from services.uploader.store.clients import RAISED, Clients, status_of
from services.uploader.store.options import StoreOptions
from services.uploader.store.renewing import RenewingStore, renewing

CONTENT_TYPE = "application/octet-stream"

_PRECONDITION_FAILED = 412
_NOT_FOUND = 404

# The parameter of a PUT that carries a sum, which is also the field of the answer.
_SUM_PARAMETER = {
    Checksum.MD5: "ContentMD5",
    Checksum.CRC32: "ChecksumCRC32",
    Checksum.SHA256: "ChecksumSHA256",
}


class AiobotocoreStore:
    """Puts objects with one aiobotocore S3 client. Made by `open_client`; safe for many puts at once."""

    def __init__(self, client: Any, options: StoreOptions) -> None:
        self._client = client
        self._bucket = options.bucket
        self._kind = options.checksum
        self._sum_parameter = _SUM_PARAMETER.get(options.checksum, "")
        self._every_put = _every_put(options)

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store one object; see `services.uploader.store.Store.put`."""
        fields = {**self._every_put, "Key": key, "Body": body, "Metadata": metadata}
        sent = self._kind.of(body)
        if sent:
            fields[self._sum_parameter] = sent
        try:
            answer = await self._client.put_object(**fields)
        except ClientError as error:
            if status_of(error) != _PRECONDITION_FAILED or "IfNoneMatch" not in self._every_put:
                raise translate(error, self._bucket) from error
        except RAISED as error:
            raise translate(error, self._bucket) from error
        else:
            self._check(key, sent, self._answered(answer))
            return
        await self._compare_with_existing(key, body, sent)

    def _check(self, key: str, sent: str, answered: Answered) -> None:
        """Count an answer as success only if S3 gave it, and of these bytes."""
        verdict, answer = compare(self._kind, sent, answered)
        if verdict is Verdict.DIFFERENT:
            message = f"S3 says that {key} has {self._kind} {answer}, and {sent} was sent"
            if self._kind is Checksum.MD5:
                message += f" (ETag {answered.etag}); if this server's ETags are no MD5s, set S3_CHECKSUM=crc32"
            raise TransientError("checksum_mismatch", message)
        if verdict is Verdict.UNPROVEN and not answered.etag:
            raise TransientError("unexpected_answer", f"a success for {key} without an ETag: not an answer of S3")

    async def _compare_with_existing(self, key: str, body: bytes, sent: str) -> None:
        """An object is at the key of a create-only put: return if it has these bytes.

        Raises:
            PoisonRecord: it has others; nobody will ever store these at this key.
            StoreError: it could not be asked.

        """
        try:
            head = await self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            verdict, found = compare(self._kind, sent, self._answered(head))
            size = head["ContentLength"]
            if size != len(body):
                verdict, found = Verdict.DIFFERENT, f"{size} bytes"
            elif not body:
                verdict = Verdict.SAME  # the probe, and an empty payload: an archived object could not be read
            elif verdict is Verdict.UNPROVEN:
                answer = await self._client.get_object(Bucket=self._bucket, Key=key)
                async with answer["Body"] as stream:
                    verdict = Verdict.SAME if await stream.read() == body else Verdict.DIFFERENT
                found = "other bytes of the same size"
        except ClientError as error:
            if status_of(error) == _NOT_FOUND:
                raise TransientError("precondition_failed", f"the object at {key} went while it was asked") from error
            raise translate(error, self._bucket) from error
        except RAISED as error:
            raise translate(error, self._bucket) from error
        if verdict is not Verdict.SAME:
            raise PoisonRecord("conflict", f"another object is at {key}: {found}, not {len(body)} bytes {sent}")

    def _answered(self, answer: Mapping[str, Any]) -> Answered:
        return Answered(
            answer.get("ETag", ""),
            answer.get("ServerSideEncryption", ""),
            "SSECustomerAlgorithm" in answer,
            answer.get(self._sum_parameter, ""),
        )


def _every_put(options: StoreOptions) -> dict[str, Any]:
    """The parameters that are the same for every object."""
    fields = {
        "Bucket": options.bucket,
        "ContentType": CONTENT_TYPE,
        "ServerSideEncryption": options.sse,
        "SSEKMSKeyId": options.sse_kms_key_id,
        "StorageClass": options.storage_class,
        "Tagging": options.tags,
        "ACL": options.acl,
        "IfNoneMatch": "*" if options.create_only else None,
    }
    return {name: value for name, value in fields.items() if value}


def open_store(options: StoreOptions, restarts: Counter) -> AbstractAsyncContextManager[RenewingStore]:
    """A store on aiobotocore clients, the last of which is closed when the context ends.

    Args:
        options: where the objects go, and how.
        restarts: counts clients that were made anew, by `reason`.

    Raises:
        ConfigurationError: on entering: AWS's variables or files make no client (an unknown AWS_PROFILE, say).

    """
    clients = Clients(options)

    @asynccontextmanager
    async def open_client() -> AsyncIterator[AiobotocoreStore]:
        async with clients.open() as client:
            yield AiobotocoreStore(client, options)

    return renewing(open_client, restarts)
