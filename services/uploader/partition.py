"""One assigned partition: its window, its queue, and the workers that put its records into S3.

Owns everything of one partition during one assignment. Does not poll and does not commit: the consumer does, and asks
this object for room and for the committable offset. What completes after `close()` changes nothing that is committed.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import ConsumerRecord, TopicPartition

from services.uploader.health import StoreHealth
from services.uploader.keys import KeyTemplate
from services.uploader.retry import decide, reason
from services.uploader.store import Store
from services.uploader.window import Run, Window
from shared.record import Record, decode
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sink:
    """What every partition of a process puts its records with."""

    store: Store
    keys: KeyTemplate
    health: StoreHealth
    metrics: UploaderMetrics
    max_workers: int


class Partition:
    """One partition during one assignment. Lives on the event loop's thread; its workers are tasks of `group`."""

    def __init__(self, tp: TopicPartition, sink: Sink, group: asyncio.TaskGroup) -> None:
        self.tp = tp
        self.window = Window()
        self.positioned = False  # True once it is known where to start: only then it may be polled
        self.committed: int | None = None  # the group's commit of this partition, as far as this assignment knows
        self.positioning: asyncio.Task[None] | None = None  # finds where to start; ends with the assignment
        self._sink = sink
        self._group = group
        self._queue: deque[tuple[Run, ConsumerRecord]] = deque()  # admitted, no worker has it yet
        self._workers: set[asyncio.Task[None]] = set()  # at most max_workers; each leaves when the queue is empty
        self._on_wire: set[asyncio.Task[None]] = set()  # those inside a put; the others idle in backoff
        self.closed = False  # set once; nothing is stored from then on but what is on the wire

    def start_at(self, offset: int, committed: int | None) -> None:
        """The first offset to read is known; from now on the partition may be polled."""
        self.window.follow(offset)
        self.committed = committed
        self.positioned = True

    def stored_since_commit(self) -> int:
        """Offsets between the last commit and the committable one; holes count."""
        committable = self.window.committable
        return 0 if committable is None or self.committed is None else committable - self.committed

    def admit(self, records: Sequence[ConsumerRecord]) -> None:
        """Admit polled records, in order. Synchronous on purpose: nothing may run between the poll and this.

        Raises:
            ValueError: offsets do not go up.

        """
        for record in records:
            size = len(record.value or b"")
            self._queue.append((self.window.admit(record.offset, size), record))
        for _ in range(min(self._sink.max_workers - len(self._workers), len(self._queue))):
            worker = self._group.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def close(self, timeout_s: float) -> None:
        """Stop: workers that sleep in backoff leave at once, those on the wire get `timeout_s` seconds.

        What is not stored by then is left to the partition's next owner, who writes the same bytes to the same key.
        """
        self.closed = True
        self.positioned = False
        self._queue.clear()
        if self.positioning is not None:
            self.positioning.cancel()
        workers = set(self._workers)
        for worker in workers - self._on_wire:
            worker.cancel()
        if workers:
            _, late = await asyncio.wait(workers, timeout=timeout_s)
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late)

    async def _work(self) -> None:
        try:
            await self._work_off_queue()
        finally:
            # Here, and not only in a done callback: `admit` may run between this end and the callback, count a worker
            # that is gone, and leave the queue to nobody.
            worker = asyncio.current_task()
            if worker is not None:
                self._workers.discard(worker)

    async def _work_off_queue(self) -> None:
        while self._queue and not self.closed:
            run, raw = self._queue.popleft()
            record = decode(
                topic=raw.topic,
                partition=raw.partition,
                offset=raw.offset,
                timestamp_ms=raw.timestamp,
                value=raw.value,
                headers=raw.headers,
            )
            if record.value is None:
                self._sink.metrics.tombstones.inc()
            elif not await self._store(record, record.value):
                return
            self.window.complete(run)

    async def _store(self, record: Record, body: bytes) -> bool:
        """Put until it is stored (True), or until the partition closes (False)."""
        key = self._sink.keys.key(record)
        attempt = 0
        while not self.closed:
            attempt += 1
            error = await self._attempt(key, body, record)
            if error is None:
                return True
            retry = decide(error, attempt, random.random())  # noqa: S311 - jitter, not a secret
            why = reason(error)
            self._sink.metrics.retries.labels(kind=retry.kind, reason=why).inc()
            self._sink.health.failed(why, str(error), time.monotonic())
            log.debug(
                "put failed, trying again",
                extra={"key": key, "attempt": attempt, "delay_s": round(retry.delay_s, 3), "cause": str(error)},
            )
            if not self.closed:
                await asyncio.sleep(retry.delay_s)
        return False

    async def _attempt(self, key: str, body: bytes, record: Record) -> Exception | None:
        metrics = self._sink.metrics
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - a coroutine of ours always runs in a task
        metadata = {
            "spillway-topic": record.topic,
            "spillway-partition": str(record.partition),
            "spillway-offset": str(record.offset),
            "spillway-id": record.id,
        }
        started_s = time.monotonic()
        self._on_wire.add(worker)
        try:
            await self._sink.store.put(key, body, metadata)
        except Exception as error:  # noqa: BLE001 - an unknown error is retried like any other: it must not lose a record
            metrics.uploads.labels(outcome="failed").inc()
            metrics.upload_bytes.labels(outcome="failed").inc(len(body))
            return error
        finally:
            self._on_wire.discard(worker)
            metrics.upload_seconds.observe(time.monotonic() - started_s)
        metrics.uploads.labels(outcome="stored").inc()
        metrics.upload_bytes.labels(outcome="stored").inc(len(body))
        self._sink.health.succeeded()
        return None
