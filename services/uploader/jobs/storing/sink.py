"""The store side of a job: the same store, keys, limit and workers as `run`, told apart by what they count in.

Owns nothing that lives: opens it, hands out a `Sink`, closes it.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from services.uploader.health import StoreHealth
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.storing.gate import JobGate
from services.uploader.jobs.storing.rate import Rate
from services.uploader.jobs.storing.tally import CountingStore, PoisonList, Tally
from services.uploader.keys import KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Sink, read_record
from services.uploader.settings import UploaderSettings
from services.uploader.store.checksum import Checksum
from services.uploader.store.objects import open_objects
from services.uploader.store.opening import open_store
from services.uploader.store.options import StoreOptions
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.record import Record
from shared.telemetry import UploaderMetrics


@dataclass(frozen=True, slots=True)
class JobSink:
    """A sink with what counts behind it. `readiness` tells under `s3` why puts fail."""

    sink: Sink
    tally: Tally
    readiness: Readiness
    registry: CollectorRegistry

    @property
    def tombstones(self) -> int:
        """Records without a value, which need no object."""
        return round(self.registry.get_sample_value("spillway_uploader_tombstones_total") or 0)


@contextlib.asynccontextmanager
async def open_sink(
    settings: UploaderSettings,
    keys: KeyTemplate,
    *,
    only_missing: bool,
    rate_per_s: float | None = None,
    replaces: bool = True,
    read: Callable[[ConsumerRecord], Record] = read_record,
) -> AsyncIterator[JobSink]:
    """A sink for one run.

    Args:
        settings: of the uploader, with the bucket to write to.
        keys: of the objects.
        only_missing: ask before each put whether the object is there, and spare the put where it is.
        rate_per_s: puts a second at most; None: no limit but S3's.
        replaces: whether an object with other bytes is written over, with `only_missing`.
        read: makes a record of what is polled.

    Raises:
        ConfigurationError: AWS's variables or files make no client.

    """
    registry, readiness, tally = CollectorRegistry(), Readiness(), Tally()
    metrics = UploaderMetrics(registry)
    options = StoreOptions.of(settings, settings.max_uploads + 1)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, options, metrics.store_restarts))
        checker = None
        if only_missing:
            objects = await stack.enter_async_context(open_objects(options))
            checker = Checker(objects, Checksum(settings.s3_checksum))
        gated = only_missing or rate_per_s is not None
        rate, limit = (
            None if rate_per_s is None else Rate(rate_per_s),
            UploadLimit(Limiter(settings.max_uploads), metrics),
        )
        sink = Sink(
            CountingStore(store, tally),
            keys,
            StoreHealth(readiness, metrics),
            limit,
            PoisonList(tally),
            metrics,
            settings.max_workers,
            read,
            JobGate(tally, limit, checker=checker, rate=rate, replaces=replaces) if gated else None,
        )
        yield JobSink(sink, tally, readiness, registry)
