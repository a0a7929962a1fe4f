"""The group consumer: poll → window → puts → watermark → commit, and the way back to work after any error.

Owns the Kafka client of the process and the table of assigned partitions. One *session* is one client's life; after an
unexpected error the client is closed and a new session begins, from the committed offsets.

Invariants, each of which has lost data in other sinks (DESIGN §7):
- No await between `getmany` returning and admission. Everything returned is admitted, or sought back to.
- Partitions enter the table in the first statement of the assignment callback, before any await.
- The poll task only polls. Commits and positioning are other tasks; `getmany` is never cancelled by us.
- A position is trusted as committable only while no `getmany` failed: a failing call may have moved it past records
  that it did not return.
- One commit at a time, bounded, only for partitions that are in the table when it is sent.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from services.uploader.partition import Partition, Sink
from services.uploader.settings import COMMIT_TIMEOUT_S, UploaderSettings
from shared.kafka import connection_options
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 200
FULL_POLL_TIMEOUT_MS = 20
"""How long a poll waits when no partition has room: short, since room comes from workers, not from Kafka."""

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POSITION_RETRY_S = 1.0
SESSION_PAUSE_S = 1.0
TOPIC_CHECK_S = 1.0


def consumer_client(settings: UploaderSettings) -> AIOKafkaConsumer:
    """A consumer with the options that the invariants of this module rely on; not yet started.

    Raises:
        ValueError: a certificate file cannot be read.

    """
    return AIOKafkaConsumer(
        **connection_options(settings),
        client_id="spillway-uploader",
        client_rack=settings.kafka_client_rack,
        group_id=settings.kafka_group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",  # "earliest" would skip what retention took without a word
        isolation_level="read_committed",
        session_timeout_ms=round(settings.kafka_session_timeout_s * 1000),
        heartbeat_interval_ms=round(settings.kafka_session_timeout_s * 1000 / 4),
        rebalance_timeout_ms=round(settings.kafka_rebalance_timeout_s * 1000),
        request_timeout_ms=round(settings.kafka_request_timeout_s * 1000),
        max_partition_fetch_bytes=1024 * 1024,
        fetch_max_bytes=16 * 1024 * 1024,
        metadata_max_age_ms=30_000,
    )


class GroupConsumer(ConsumerRebalanceListener):
    """One member of the uploaders' group. `run()` returns only when it is told to stop."""

    def __init__(
        self,
        settings: UploaderSettings,
        sink: Callable[[Callable[[], None]], Sink],
        readiness: Readiness,
        metrics: UploaderMetrics,
        new_client: Callable[[], AIOKafkaConsumer],
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._new_client = new_client
        self._sink = sink(self._stored)
        self._nobody = TopicPartition(settings.kafka_topic, -1)  # asked for when none has room: an empty list means all
        self._partitions: dict[TopicPartition, Partition] = {}  # assigned now; changed by the callbacks and at the end
        self._commit_lock = asyncio.Lock()
        self._commit_early = asyncio.Event()
        self._stored_since_commit = 0
        self._stopping = asyncio.Event()
        # Of the session that runs; made anew with each client.
        self._client: AIOKafkaConsumer | None = None
        self._group: asyncio.TaskGroup | None = None
        self._position_trusted = False

    def stop(self) -> None:
        """Ask `run()` to drain, commit, leave the group and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop()`. Whatever fails meanwhile, a new session begins after a pause."""
        while not self._stopping.is_set():
            try:
                await self._session()
            except* asyncio.CancelledError:
                raise
            except* Exception as errors:
                cause = _first(errors)
                self._metrics.consumer_restarts.inc()
                self._readiness.fail("kafka", f"{type(cause).__name__}: {cause}")
                level = logging.WARNING if isinstance(cause, KafkaError) else logging.ERROR
                log.log(
                    level,
                    "the Kafka consumer failed; making a new one",
                    extra={
                        "cause": f"{type(cause).__name__}: {cause}",
                        "brokers": self._settings.kafka_bootstrap_servers,
                    },
                    exc_info=None if isinstance(cause, KafkaError) else cause,
                )
                await self._pause(SESSION_PAUSE_S)

    async def _session(self) -> None:
        client = self._client = self._new_client()
        self._position_trusted = True
        try:
            await asyncio.wait_for(client.start(), START_TIMEOUT_S)
            self._readiness.hold("kafka")
            if not await self._topic_exists(client):
                return
            async with asyncio.TaskGroup() as group:
                self._group = group
                clock = group.create_task(self._commit_clock())
                try:
                    client.subscribe([self._settings.kafka_topic], listener=self)
                    await self._poll(client)
                finally:
                    clock.cancel()
                    self._group = None  # an assignment from here on finds nobody and takes nothing
                    self._readiness.fail("assignment", "leaving the group")
                    await self._release(list(self._partitions))
        finally:
            await self._close(client)

    async def _topic_exists(self, client: AIOKafkaConsumer) -> bool:
        """Wait for the topic; False when told to stop meanwhile."""
        topic = self._settings.kafka_topic
        said = False
        while not self._stopping.is_set():
            if topic in await client.topics():
                self._readiness.hold("topic")
                return True
            self._readiness.fail(
                "topic", f"KAFKA_TOPIC={topic} does not exist; make it with `spillway-uploader topics`"
            )
            if not said:
                log.warning(
                    "the topic does not exist; waiting for it (`spillway-uploader topics`)", extra={"topic": topic}
                )
                said = True
            await self._pause(TOPIC_CHECK_S)
        return False

    # -- polling

    async def _poll(self, client: AIOKafkaConsumer) -> None:
        while not self._stopping.is_set():
            hungry, records_max = self._hungry()
            try:
                polled = await client.getmany(
                    *(hungry or [self._nobody]),
                    timeout_ms=POLL_TIMEOUT_MS if hungry else FULL_POLL_TIMEOUT_MS,
                    max_records=records_max,
                )
            except OffsetOutOfRangeError as error:
                self._position_trusted = False
                log.error(
                    "a position is out of the log's range; starting again from what is left", extra={"at": str(error)}
                )
                raise
            except BaseException:
                self._position_trusted = False
                raise
            for tp, records in polled.items():
                partition = self._partitions.get(tp)
                if partition is None:
                    # Its position has moved past these records: without the seek they would be lost.
                    log.warning("records of a partition that is not in the table; seeking back", extra={"tp": str(tp)})
                    client.seek(tp, records[0].offset)
                else:
                    partition.admit(records)

    def _hungry(self) -> tuple[list[TopicPartition], int]:
        """The partitions to ask for, and how many records may come so that none exceeds MAX_QUEUE."""
        settings = self._settings
        if sum(p.window.pending_bytes for p in self._partitions.values()) >= settings.buffer_bytes_max:
            return [], 1
        hungry = [p for p in self._partitions.values() if p.positioned and len(p.window) <= settings.max_queue // 2]
        fullest = max((len(p.window) for p in hungry), default=0)
        return [p.tp for p in hungry], settings.max_queue - fullest

    # -- assignment

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Take the partitions. The table is complete before the first await: records may arrive from then on."""
        group = self._group
        if group is None:
            return
        taken = [Partition(tp, self._sink, group) for tp in assigned]
        self._partitions = {partition.tp: partition for partition in taken}
        self._metrics.assignments.inc()
        self._readiness.hold("assignment")
        log.info("partitions assigned", extra={"partitions": sorted(tp.partition for tp in assigned)})
        for partition in taken:
            group.create_task(self._position(partition))

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Drain, commit, let go. Must end before the rebalance does; aiokafka only logs what it raises."""
        if revoked:
            log.info("partitions revoked", extra={"partitions": sorted(tp.partition for tp in revoked)})
        self._readiness.fail("assignment", "rebalancing")
        await self._release(revoked)

    async def _release(self, tps: Iterable[TopicPartition]) -> None:
        leaving = [self._partitions[tp] for tp in tps if tp in self._partitions]
        try:
            await asyncio.gather(*(partition.close(self._settings.drain_timeout_s) for partition in leaving))
            await self._commit(leaving)
        finally:
            for partition in leaving:
                if self._partitions.get(partition.tp) is partition:
                    del self._partitions[partition.tp]
                self._forget_gauges(partition.tp)

    async def _position(self, partition: Partition) -> None:
        """Find where to start: the commit; without one the log's beginning; out of range: say what was lost."""
        while self._partitions.get(partition.tp) is partition:
            client = self._client
            if client is None:
                return
            try:
                async with asyncio.timeout(self._settings.kafka_request_timeout_s):
                    committed = await client.committed(partition.tp)
                    begin = (await client.beginning_offsets([partition.tp]))[partition.tp]
                    end = (await client.end_offsets([partition.tp]))[partition.tp]
            except (KafkaError, TimeoutError) as error:
                log.warning(
                    "cannot find where to start; asking again", extra={"tp": str(partition.tp), "cause": repr(error)}
                )
                await asyncio.sleep(POSITION_RETRY_S)
                continue
            if self._partitions.get(partition.tp) is not partition:
                return
            start = self._start_offset(partition.tp, committed, begin, end)
            client.seek(partition.tp, start)
            partition.window.follow(start)
            partition.committed = committed
            partition.positioned = True
            return

    def _start_offset(self, tp: TopicPartition, committed: int | None, begin: int, end: int) -> int:
        if committed is None:
            return begin
        if committed < begin:
            self._metrics.lost_records.labels(partition=tp.partition).inc(begin - committed)
            log.error(
                "retention deleted records before they were stored",
                extra={"tp": str(tp), "first_lost": committed, "last_lost": begin - 1, "count": begin - committed},
            )
            return begin
        if committed > end:
            log.error(
                "the commit lies beyond the log's end: the topic was made anew; starting at its beginning",
                extra={"tp": str(tp), "committed": committed, "end": end},
            )
            return begin
        return committed

    # -- commits

    def _stored(self) -> None:
        self._stored_since_commit += 1
        if self._stored_since_commit >= self._settings.commit_records:
            self._commit_early.set()

    async def _commit_clock(self) -> None:
        """Commit every interval, or earlier after COMMIT_RECORDS stored records."""
        while True:
            try:
                async with asyncio.timeout(self._settings.commit_interval_s):
                    await self._commit_early.wait()
            except TimeoutError:
                pass
            self._commit_early.clear()
            self._stored_since_commit = 0
            await self._follow_positions()
            await self._commit(list(self._partitions.values()))
            self._observe()

    async def _follow_positions(self) -> None:
        """Let windows with nothing in flight take the client's position, so that lag reaches 0 behind markers."""
        client = self._client
        for partition in list(self._partitions.values()):
            if client is None or len(partition.window) or not partition.positioned:
                continue
            try:
                async with asyncio.timeout(1):
                    position = await client.position(partition.tp)
            except (KafkaError, TimeoutError):
                continue
            # The checks again, after the await: a poll may have failed, a reassignment may have come.
            if self._position_trusted and self._partitions.get(partition.tp) is partition:
                partition.window.follow(position)

    async def _commit(self, partitions: Iterable[Partition]) -> None:
        """Commit what moved. A failure is logged and never fatal: the next owner repeats the same keys."""
        async with self._commit_lock:
            client = self._client
            moved = {
                p.tp: p
                for p in partitions
                if self._partitions.get(p.tp) is p
                and p.window.committable is not None
                and p.window.committable != p.committed
            }
            if client is None or not moved:
                return
            offsets = {tp: partition.window.committable for tp, partition in moved.items()}
            try:
                await asyncio.wait_for(client.commit(offsets), COMMIT_TIMEOUT_S)
            except (KafkaError, TimeoutError) as error:
                self._metrics.commits.labels(outcome="failed").inc()
                log.warning("a commit failed; its records may be stored again", extra={"cause": repr(error)})
                return
            self._metrics.commits.labels(outcome="committed").inc()
            for tp, partition in moved.items():
                partition.committed = offsets[tp]

    # -- what the operator sees

    def _observe(self) -> None:
        client = self._client
        self._metrics.buffered_bytes.set(sum(p.window.pending_bytes for p in self._partitions.values()))
        for partition in self._partitions.values():
            label = partition.tp.partition
            self._metrics.buffered_records.labels(partition=label).set(len(partition.window))
            end = client.highwater(partition.tp) if client is not None else None
            committable = partition.window.committable
            if end is not None and committable is not None:
                self._metrics.lag_records.labels(partition=label).set(max(0, end - committable))

    def _forget_gauges(self, tp: TopicPartition) -> None:
        for gauge in (self._metrics.buffered_records, self._metrics.lag_records):
            gauge.remove(str(tp.partition))

    # -- small waits

    async def _pause(self, seconds: float) -> None:
        """Wait, or return at once when told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _close(self, client: AIOKafkaConsumer) -> None:
        """Close the client; `stop()` can hang when the broker is frozen, so it is bounded."""
        self._client = None
        try:
            await asyncio.wait_for(client.stop(), STOP_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            log.warning("the Kafka client did not close cleanly", extra={"cause": repr(error)})


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
