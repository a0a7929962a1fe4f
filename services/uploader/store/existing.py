"""The object that stands at the key of a create-only put: asked by the aiobotocore client, whichever client wrote."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from services.uploader.errors import PoisonRecord, TransientError
from services.uploader.store.botocore_errors import translate
from services.uploader.store.checksum import Answered, Verdict, compare
from services.uploader.store.clients import RAISED, status_of
from services.uploader.store.options import StoreOptions
from services.uploader.store.put_parameters import SUM_PARAMETER

_NOT_FOUND = 404


class Existing:
    """Compares what was to be put with what is there."""

    def __init__(self, client: Any, options: StoreOptions) -> None:
        self._client = client
        self._bucket = options.bucket
        self._kind = options.checksum
        self._sum_field = SUM_PARAMETER.get(options.checksum, "")

    def answered(self, answer: Mapping[str, Any]) -> Answered:
        """What botocore's answer to a PUT or HEAD says of the object."""
        return Answered(
            answer.get("ETag", ""),
            answer.get("ServerSideEncryption", ""),
            "SSECustomerAlgorithm" in answer,
            answer.get(self._sum_field, ""),
        )

    async def compare(self, key: str, body: bytes, sent: str) -> None:
        """An object is at the key of a create-only put: return if it has these bytes.

        Raises:
            PoisonRecord: it has others; nobody will ever store these at this key.
            StoreError: it could not be asked.

        """
        try:
            head = await self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            verdict, found = compare(self._kind, sent, self.answered(head))
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
