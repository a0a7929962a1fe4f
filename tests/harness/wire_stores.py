"""Stores of the wire client on a server of the test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry

from services.uploader.store import wire
from services.uploader.store.options import StoreOptions
from services.uploader.store.renewing import RenewingStore
from shared.telemetry import UploaderMetrics
from tests.harness.raw_s3 import RawS3


@contextlib.asynccontextmanager
async def opened(
    server: RawS3, endpoint_url: str = "", *, connections_max: int = 8, **more: object
) -> AsyncIterator[RenewingStore]:
    """A store on `server`, by its own endpoint unless another is given; all of its use is bounded by 20 s."""
    options = StoreOptions(
        bucket="bucket",
        endpoint_url=endpoint_url or server.endpoint_url,
        path_style=True,
        connections_max=connections_max,
        **more,  # type: ignore[arg-type]
    )
    async with (
        asyncio.timeout(20),
        wire.open_store(options, UploaderMetrics(CollectorRegistry()).store_restarts) as store,
    ):
        yield store
