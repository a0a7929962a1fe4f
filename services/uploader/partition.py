"""One assigned partition: its window, its queue, and the workers that put its records into S3.

Owns everything of one partition during one assignment. Does not poll and does not commit: the consumer does, and asks
this object for room and for the committable offset. What completes after `close()` changes nothing that is committed.
A record is done once it is an object, once it is a dead letter that Kafka has acknowledged, or if it has no value.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from services.uploader.errors import PoisonRecord
from services.uploader.health import StoreHealth
from services.uploader.keys import KeyTemplate
from services.uploader.retry import DeadLetter, Kind, Retry, decide, reason
from services.uploader.store import Store
from services.uploader.upload_limit import UploadLimit
from services.uploader.window import Run, Window
from shared.record import Record, decode
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)


RECORD_OVERHEAD_BYTES = 1536
"""What a buffered record costs beside its bytes: the client's object with eight headers, a run, a place in a queue."""


class Poison(Protocol):
    """Where records go that S3 can never take: `dead_letter_topic` for the live group, a list for a job."""

    def settled(self) -> None:
        """A record was stored."""
        ...

    def release(self, raw: ConsumerRecord) -> None:
        """The record waits no more. Called for every record that has failed."""
        ...

    async def bury(self, raw: ConsumerRecord, error: PoisonRecord, attempts: int) -> bool:
        """Take the record over, and with it the duty to tell of it; False: not now, try the put again."""
        ...


class Gate(Protocol):
    """What stands before the puts of a job."""

    async def lets_pass(self, record: Record, key: str, body: bytes) -> bool:
        """Whether the record has to be put; may wait for its turn.

        Raises:
            StoreError: it could not be told; asked again after a pause, as a put is tried again.

        """
        ...


def read_record(raw: ConsumerRecord) -> Record:
    """The record as the topic of the payloads holds it."""
    return decode(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_ms=raw.timestamp,
        value=raw.value,
        headers=raw.headers,
    )


@dataclass(frozen=True, slots=True)
class Sink:
    """What every partition of a process puts its records with.

    `read` makes a record of what was polled; a `gate` may spare a put. The live group needs neither.
    """

    store: Store
    keys: KeyTemplate
    health: StoreHealth
    limit: UploadLimit
    dead_letters: Poison
    metrics: UploaderMetrics
    max_workers: int
    read: Callable[[ConsumerRecord], Record] = read_record
    gate: Gate | None = None


def held_bytes(record: ConsumerRecord) -> int:
    """What a record holds in memory until it is done."""
    headers = sum(len(value or b"") for _, value in record.headers)  # a foreign one may be null
    return len(record.value or b"") + len(record.key or b"") + headers + RECORD_OVERHEAD_BYTES


class _Put(NamedTuple):
    """What a worker has in hand: one record on its way, through however many tries."""

    record: Record
    key: str
    body: bytes
    metadata: Mapping[str, str]


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
        self._failing: dict[int, str] = {}  # why the record at this offset fails; only of those that do
        self._admitted_records = 0
        self._admitted_bytes = 0  # of their values
        self.newest_timestamp_ms: int | None = None  # of the last record admitted
        self.closed = False  # set once; nothing is stored from then on but what is on the wire

    def start_at(self, offset: int, committed: int | None) -> None:
        """The first offset to read is known; from now on the partition may be polled."""
        self.window.follow(offset)
        self.committed = committed
        self.positioned = True

    def go_on_at(self, offset: int) -> None:
        """The position was out of range and is `offset` now; what is in memory stays there."""
        self.window.follow(offset)
        self.positioned = True

    @property
    def failing(self) -> str | None:
        """Why the oldest of the failing records fails; None while none does."""
        return self._failing[min(self._failing)] if self._failing else None

    @property
    def mean_bytes(self) -> float:
        """Mean size of the values seen in this assignment."""
        return self._admitted_bytes / self._admitted_records if self._admitted_records else 0.0

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
            run = self.window.admit(record.offset, held_bytes(record), record.timestamp)
            self._queue.append((run, record))
            self._admitted_bytes += len(record.value or b"")
            self.newest_timestamp_ms = record.timestamp
        self._admitted_records += len(records)
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
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - a coroutine of ours always runs in a task
        try:
            await self._work_off_queue(worker)
        finally:
            # Here, and not only in a done callback: `admit` may run between this end and the callback, count a worker
            # that is gone, and leave the queue to nobody.
            self._workers.discard(worker)

    async def _work_off_queue(self, worker: asyncio.Task[None]) -> None:
        queue, sink = self._queue, self._sink
        while queue and not self.closed:
            run, raw = queue.popleft()
            record = sink.read(raw)
            body = record.value
            if body is None:
                sink.metrics.tombstones.inc()
            else:
                put = _Put(
                    record,
                    sink.keys.key(record),
                    body,
                    {
                        "spillway-topic": record.topic,
                        "spillway-partition": str(record.partition),  # a redriven one's own, and not that of its letter
                        "spillway-offset": str(record.offset),
                        "spillway-id": record.id,
                    },
                )
                error = await self._attempt(worker, put)
                if error is None:
                    self._stored(raw)
                elif not await self._persist(worker, put, raw, error):
                    return
            self.window.complete(run)

    async def _persist(self, worker: asyncio.Task[None], put: "_Put", raw: ConsumerRecord, error: Exception) -> bool:
        """The first try has failed: put until it is stored, or acknowledged as a dead letter (True), or until the
        partition closes (False).
        """
        attempt = 1
        try:
            while True:
                self._failing[raw.offset] = reason(error)
                match decide(error, attempt, random.random()):  # noqa: S311 - jitter, not a secret
                    case Retry() as retry:
                        mend = retry.kind is Kind.ENVIRONMENT
                        self._sink.health.failed(reason(error), str(error), time.time(), mend=mend)
                    case DeadLetter() as letter:
                        if await self._bury(worker, raw, letter.error, attempt):
                            return True
                        retry = letter.held
                await self._back_off(retry, put.key, attempt, error)
                if self.closed:
                    return False
                attempt += 1
                failed = await self._attempt(worker, put)
                if failed is None:
                    self._stored(raw)
                    return True
                error = failed
        finally:
            self._failing.pop(raw.offset, None)
            self._sink.dead_letters.release(raw)

    async def _back_off(self, retry: Retry, key: str, attempt: int, error: Exception) -> None:
        self._sink.metrics.retries.labels(kind=retry.kind, reason=reason(error)).inc()
        log.debug(
            "put failed, trying again",
            extra={"key": key, "attempt": attempt, "delay_s": round(retry.delay_s, 3), "cause": str(error)},
        )
        if not self.closed:
            await asyncio.sleep(retry.delay_s)

    async def _bury(self, worker: asyncio.Task[None], raw: ConsumerRecord, error: PoisonRecord, attempts: int) -> bool:
        """Write the dead letter; whether it is acknowledged. A revoke awaits it as it does a put."""
        self._on_wire.add(worker)
        try:
            return not self.closed and await self._sink.dead_letters.bury(raw, error, attempts)
        finally:
            self._on_wire.discard(worker)

    async def _attempt(self, worker: asyncio.Task[None], put: "_Put") -> Exception | None:
        """One put, in its turn, unless the gate spares it; what either failed with."""
        sink = self._sink
        if sink.gate is not None:
            try:
                if not await sink.gate.lets_pass(put.record, put.key, put.body):
                    return None
            except Exception as failure:  # noqa: BLE001 - asked again, as a put is tried again
                return failure
        limit = sink.limit
        if not limit.enter():
            await limit.wait()
        self._on_wire.add(worker)
        started_s = time.monotonic()
        epoch = limit.begin(started_s)
        error: BaseException | None = None
        try:
            await sink.store.put(put.key, put.body, put.metadata)
        except Exception as failure:  # noqa: BLE001 - an unknown one is retried like any other: no record may be lost
            error = failure
            # A put that waits for its next try holds the error's own words, and not the whole answer of S3 and the
            # frames that it came through: hundreds wait in an outage.
            failure.__cause__ = failure.__context__ = None
            failure.__traceback__ = None
            return failure
        except BaseException as cancelled:
            error = cancelled
            raise
        finally:
            self._on_wire.discard(worker)
            ended_s, body_bytes = time.monotonic(), len(put.body)
            sink.metrics.puts.ended(ended_s - started_s, body_bytes, stored=error is None)
            limit.leave(epoch, started_s, ended_s, body_bytes, error)
        sink.health.succeeded()
        return None

    def _stored(self, raw: ConsumerRecord) -> None:
        """Once a stored record. One without a time stamp (-1, of a foreign producer) tells nothing of its age."""
        if raw.timestamp >= 0:
            self._sink.metrics.puts.age_seconds.observe(max(0.0, time.time() - raw.timestamp / 1000))
        self._sink.dead_letters.settled()
