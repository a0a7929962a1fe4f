"""A store of each S3 client on an adversary, inside the test's own process: its deadlines shortened, its puts bounded.

Owns what all of these tests ask after a misfortune: that the put has ended by itself, that nothing was called stored
that is not, and that the next put is served as if nothing had been.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.errors import StoreError
from services.uploader.store import Store, clients
from services.uploader.store.options import StoreOptions
from shared.telemetry import UploaderMetrics
from tests.fakes.s3_adversary import BUCKET, Act, Adversary
from tests.harness.store_stands import CLIENTS

BODY = b'{"reading": 1}'
BOUND_S = 8.0
"""For one put: below the deadlines of a client (10 s), which must not be what ends it; far above what it takes."""

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Adverse:
    """Opens stores of one client on an adversary."""

    def __init__(self, client: str, adversary: Adversary, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.server = adversary
        self._monkeypatch = monkeypatch
        for name, value in _ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

    def read_timeout(self, seconds: float) -> None:
        """Shorten the wait for a byte."""
        self._monkeypatch.setattr(clients, "READ_TIMEOUT_S", seconds)

    def connect_timeout(self, seconds: float) -> None:
        """Shorten the wait for a connection, TLS and all."""
        self._monkeypatch.setattr(clients, "CONNECT_TIMEOUT_S", seconds)

    @asynccontextmanager
    async def open(self, endpoint_url: str = "", **options: Any) -> AsyncIterator[Store]:
        """A store, on the adversary's first address unless another endpoint is given."""
        made = StoreOptions(
            bucket=BUCKET, endpoint_url=endpoint_url or self.server.endpoint_url, path_style=True, **options
        )
        restarts = UploaderMetrics(CollectorRegistry()).store_restarts
        async with CLIENTS[self.client].open_store(made, restarts) as store:
            yield store

    async def put(self, store: Store, key: str, body: bytes = BODY) -> None:
        """Put; what is called stored must be stored.

        Raises:
            StoreError: the put's own.
            AssertionError: it did not end, or it was called stored and is not.

        """
        try:
            async with asyncio.timeout(BOUND_S):
                await store.put(key, body, {"spillway-id": key})
        except TimeoutError:
            raise AssertionError(f"the put of {key} has no end") from None
        assert body in self.server.bodies(key), f"{key} was called stored, and is not"

    async def fails(self, store: Store, *acts: Act, body: bytes = BODY) -> StoreError:
        """Put while these are the next acts; the error. The next put must be served at once."""
        self.server.then(*acts)
        with pytest.raises(StoreError) as caught:
            await self.put(store, "unlucky", body)
        assert not self.server.acts, f"{len(self.server.acts)} acts were not asked for"
        await self.serves(store)
        return caught.value

    async def serves(self, store: Store, key: str = "next") -> None:
        """The next put is stored by one request."""
        await self.put(store, key)
        assert self.server.bodies(key) == [BODY]

    async def stored_at_last(self, store: Store, key: str, body: bytes = BODY) -> list[StoreError]:
        """Put as the uploader does, again and again, until it is stored; the errors on the way."""
        errors: list[StoreError] = []
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.put(store, key, body)
                except StoreError as error:
                    errors.append(error)
                    await asyncio.sleep(0.02)
                else:
                    return errors
