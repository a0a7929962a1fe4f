"""The reference client of S3: one long-lived aiobotocore client, tuned as DESIGN §7 says, its errors translated once.

One put is one request. The client never retries (`total_max_attempts=1`: a retry hidden here would hide SlowDown from
the uploader), follows no redirect, and carries no `Expect: 100-continue` (a round trip a put).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from botocore.exceptions import ClientError
from prometheus_client import Counter

from services.uploader.store.botocore_errors import translate
from services.uploader.store.clients import RAISED, Clients, status_of
from services.uploader.store.existing import Existing
from services.uploader.store.options import StoreOptions
from services.uploader.store.proof import check
from services.uploader.store.put_parameters import SUM_PARAMETER, every_put
from services.uploader.store.renewing import RenewingStore, renewing

_PRECONDITION_FAILED = 412


class AiobotocoreStore:
    """Puts objects with one aiobotocore S3 client. Made by `open_client`; safe for many puts at once."""

    def __init__(self, client: Any, options: StoreOptions) -> None:
        self._client = client
        self._bucket = options.bucket
        self._kind = options.checksum
        self._sum_parameter = SUM_PARAMETER.get(options.checksum, "")
        self._every_put = every_put(options)
        self._existing = Existing(client, options)

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
            check(self._kind, key, sent, self._existing.answered(answer))
            return
        await self._existing.compare(key, body, sent)


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
        async with clients.open() as opened:
            yield AiobotocoreStore(opened.client, options)

    return renewing(open_client, restarts)
