"""The session's lookout: asks the broker at a fixed pace how far behind each partition is, and says what stands still.

Owns the gauges of lag, memory, progress and retention, of Kafka's last answer (which outlives the session), and the
readiness conditions `kafka` (while a session lasts) and `progress`. The broker is asked, and not the client: its own
high-water mark comes with fetches, and a full partition is not fetched, so that it would stand still in just the outage
that it is needed for.

Stores, polls and commits nothing. It ends the session, by raising, where only a new one helps: another topic of the
same name, or a client that does not get on although the broker has records.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.uploader.assignment import Assignment
from services.uploader.committer import Committer
from services.uploader.partition import Partition
from services.uploader.progress import CURED_BY_A_NEW_CLIENT, WORDS, Idle, Look, Progress
from services.uploader.retention import left_s
from services.uploader.settings import UploaderSettings
from services.uploader.topic_view import Retention, TopicView
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
ASK_TIMEOUT_S = 5.0
RETENTION_INTERVAL_S = 60.0
SILENT_AFTER_S = 6.0
"""How long the broker may leave questions unanswered until readiness says so: longer than an election of a leader."""

Table = Mapping[TopicPartition, Partition]


class TopicRemadeError(Exception):
    """The topic of this name is another one now: its offsets start again."""


class WedgedClientError(Exception):
    """The broker has work for a partition, and the client does not get on with it."""


class Watch:
    """The lookout of one session."""

    def __init__(
        self,
        client: AIOKafkaConsumer,
        view: TopicView,
        topic_id: str | None,
        committer: Committer,
        settings: UploaderSettings,
        readiness: Readiness,
        metrics: UploaderMetrics,
    ) -> None:
        self._client = client
        self._view = view
        self._topic_id = topic_id
        self._committer = committer
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._clocks: dict[TopicPartition, tuple[Partition, Progress]] = {}
        self._stalled: dict[TopicPartition, str] = {}  # reason by partition, as last told
        self._retention: Retention | None = None
        self._retention_due_s = -math.inf
        self._answered_s: float | None = None  # when the broker last answered; None: not asked yet

    async def run(self, assignment: Assignment) -> None:
        """Look every INTERVAL_S at what is assigned, until cancelled; raises what `look` does."""
        try:
            while True:
                await self.look(assignment.table, assignment.asked, time.monotonic(), time.time())
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._forget(list(self._clocks))
            self._readiness.hold("progress")

    async def look(self, table: Table, asked: Mapping[TopicPartition, bool], now_s: float, unix_s: float) -> None:
        """Ask the broker, set the gauges, judge what stands still.

        Args:
            table: the partitions assigned now.
            asked: whether the last poll asked for a partition.
            now_s: monotonic seconds.
            unix_s: seconds since 1970.

        Raises:
            TopicRemadeError: nothing of this session may be committed any more.
            WedgedClientError: a new client is needed.

        """
        if self._answered_s is None:
            self._answered_s = now_s
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                there = await self._recognise()
                ends = await self._client.end_offsets(list(table)) if table and there else {}
        except (KafkaError, TimeoutError, OSError) as error:
            self._unanswered(error, now_s - self._answered_s + loop.time() - asked_s, now_s)
            ends = {}
        else:
            self._answered_s = now_s
            self._metrics.kafka_answered.set(unix_s)
            self._readiness.hold("kafka")
            await self._learn_retention(now_s)
        self._forget([tp for tp, (partition, _) in self._clocks.items() if table.get(tp) is not partition])
        idle = {
            tp: self._observe(tp, table[tp], end, asked.get(tp, False), now_s, unix_s)
            for tp, end in ends.items()
            if tp in table  # it may have been revoked while the broker was asked
        }
        self._metrics.buffered_bytes.set(sum(partition.window.pending_bytes for partition in table.values()))
        self._metrics.full_partitions.set(sum(p.positioned and not asked.get(tp, False) for tp, p in table.items()))
        for tp, each in idle.items():
            self._judge(tp, each)
        self._tell()
        self._cure(idle)

    async def _recognise(self) -> bool:
        """End the session where the topic is another one; False where it is gone for now (the poll task says so)."""
        topic_id = await self._view.topic_id()
        if topic_id is None:
            return self._topic_id is None  # then the broker is too old to tell
        if self._topic_id is None:
            self._topic_id = topic_id
        if topic_id == self._topic_id:
            return True
        self._committer.forbid()
        raise TopicRemadeError(
            f"KAFKA_TOPIC={self._settings.kafka_topic} was deleted and made anew (topic id {self._topic_id}, now "
            f"{topic_id}); starting at its beginning"
        )

    def _unanswered(self, error: Exception, silent_s: float, now_s: float) -> None:
        if silent_s >= SILENT_AFTER_S:
            # Nobody gets on without a broker: that is not the partitions' fault, nor the client's.
            self._clocks = {tp: (partition, Progress(now_s)) for tp, (partition, _) in self._clocks.items()}
            brokers = self._settings.kafka_bootstrap_servers
            cause = str(error) or type(error).__name__
            self._readiness.fail("kafka", f"KAFKA_BOOTSTRAP_SERVERS={brokers}: no answer for {silent_s:.0f} s: {cause}")

    async def _learn_retention(self, now_s: float) -> None:
        if now_s < self._retention_due_s:
            return
        self._retention_due_s = now_s + RETENTION_INTERVAL_S
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                self._retention = await self._view.retention()
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("cannot read the topic's retention; its clock stands", extra={"cause": repr(error)})

    def _observe(
        self, tp: TopicPartition, partition: Partition, end: int, asked: bool, now_s: float, unix_s: float
    ) -> Idle:
        window, metrics, label = partition.window, self._metrics, str(tp.partition)
        look = Look(
            end=end,
            committable=window.committable,
            committed=partition.committed,
            positioned=partition.positioned,
            held=len(window),
            asked=asked,
            failing=partition.failing,
        )
        _, clock = self._clocks.setdefault(tp, (partition, Progress(now_s)))
        metrics.buffered_records.labels(label).set(look.held)
        if look.committable is not None:
            metrics.lag_records.labels(label).set(look.lag)
            metrics.lag_bytes.labels(label).set(look.lag * partition.mean_bytes)
            self._observe_age(partition, label, look, unix_s)
        idle = clock.idle(look, now_s)
        metrics.idle_seconds.labels(label).set(idle.idle_s)
        return idle

    def _observe_age(self, partition: Partition, label: str, look: Look, unix_s: float) -> None:
        # With nothing in memory the oldest is not known, but it is not older than the last one seen.
        oldest_ms = partition.window.oldest_timestamp_ms or partition.newest_timestamp_ms if look.lag else None
        if look.lag and oldest_ms is None:
            return
        self._metrics.lag_seconds.labels(label).set(0 if oldest_ms is None else max(0.0, unix_s - oldest_ms / 1000))
        if self._retention is not None:
            self._metrics.retention_left_seconds.labels(label).set(left_s(self._retention.ms, oldest_ms, unix_s))

    def _judge(self, tp: TopicPartition, idle: Idle) -> None:
        told = self._stalled.get(tp)
        reason = idle.reason if idle.idle_s >= self._settings.stalled_after_s else None
        if reason != told:
            if told is not None:
                self._metrics.stalled.remove(str(tp.partition), told)
                del self._stalled[tp]
            if reason is None:
                log.info("a partition gets on again", extra={"partition": tp.partition})
            else:
                self._stalled[tp] = reason
                self._metrics.stalled.labels(str(tp.partition), reason).set(1)
                log.warning(
                    "a partition stands still",
                    extra={"partition": tp.partition, "reason": reason, "idle_s": round(idle.idle_s)},
                )

    def _cure(self, idle: Mapping[TopicPartition, Idle]) -> None:
        for tp, reason in self._stalled.items():
            if tp in idle and reason in CURED_BY_A_NEW_CLIENT:
                raise WedgedClientError(f"{tp} stands still for {idle[tp].idle_s:.0f} s: {WORDS[reason]}")

    def _tell(self) -> None:
        if not self._stalled:
            self._readiness.hold("progress")
            return
        named = ", ".join(f"{tp.partition} ({WORDS.get(why, why)})" for tp, why in sorted(self._stalled.items()))
        bound_s = self._settings.stalled_after_s
        self._readiness.fail("progress", f"no progress for {bound_s:g} s or longer in partition {named}")

    def _forget(self, tps: list[TopicPartition]) -> None:
        """Another process reports on these partitions from now on."""
        metrics = self._metrics
        gauges = (
            metrics.buffered_records,
            metrics.lag_records,
            metrics.lag_bytes,
            metrics.lag_seconds,
            metrics.retention_left_seconds,
            metrics.idle_seconds,
        )
        for tp in tps:
            del self._clocks[tp]
            for gauge in gauges:
                gauge.remove(str(tp.partition))
            reason = self._stalled.pop(tp, None)
            if reason is not None:
                metrics.stalled.remove(str(tp.partition), reason)
