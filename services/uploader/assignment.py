"""The partitions that this process holds: taking them, finding where each starts, letting them go.

Owns the table of partitions of one session and aiokafka's rebalance callbacks. Never commits by itself and never polls.

Invariants (DESIGN §7):
- A partition enters the table in the first statement of the assignment callback, before any await: records may arrive
  from then on. It is polled only once its start is known.
- Everything polled is admitted, or sought back to: a record without a window is never dropped, its position has moved.
- A revoke drains, commits and lets go within the rebalance time-out. What fails on the way is logged, never fatal: the
  next owner repeats the same keys.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from services.uploader.appetite import appetite
from services.uploader.committer import Committer
from services.uploader.partition import Partition, Sink
from services.uploader.settings import UploaderSettings
from services.uploader.start import AskAgain, Start, decide_start
from services.uploader.topic_view import TopicView, noted_id
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

POSITION_RETRY_S = 1.0


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is not typed
    """The table of one session. Its callbacks run in aiokafka's coordination task, on the same loop."""

    def __init__(
        self,
        client: AIOKafkaConsumer,
        view: TopicView,
        topic_id: str | None,
        group: asyncio.TaskGroup,
        sink: Sink,
        committer: Committer,
        settings: UploaderSettings,
        readiness: Readiness,
        metrics: UploaderMetrics,
    ) -> None:
        self.table: dict[TopicPartition, Partition] = {}  # assigned now
        self.asked: dict[TopicPartition, bool] = {}  # whether the last poll asked for it
        self._client = client
        self._view = view
        self._topic_id = topic_id  # of the topic that this session began with
        self._group = group  # of the workers and of positioning
        self._sink = sink
        self._committer = committer
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._left = False  # set at the session's end: an assignment from then on is not taken

    # -- what the poll task asks and brings; synchronous, so that nothing runs between a poll and its admission

    def hungry(self) -> tuple[list[TopicPartition], int]:
        """The partitions to ask for, and how many records may come."""
        hungry, records_max = appetite(self.table.values(), self._settings)
        self.asked = dict.fromkeys(self.table, False) | {partition.tp: True for partition in hungry}
        return [partition.tp for partition in hungry], records_max

    def admit(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Admit what a poll returned, or seek back to it where the partition is not ours to read yet."""
        for tp, records in polled.items():
            partition = self.table.get(tp)
            if partition is not None and partition.positioned:
                partition.admit(records)
            else:
                log.info("polled a partition before its start was known; seeking back", extra={"tp": str(tp)})
                self._client.seek(tp, records[0].offset)

    def out_of_range(self, positions: Mapping[TopicPartition, int]) -> None:
        """The broker has no record at these positions: retention overtook them, or the log shrank.

        What is in memory stays there and is stored; only where to read on is asked for anew.
        """
        for tp, position in positions.items():
            partition = self.table.get(tp)
            if partition is not None and partition.positioned:
                partition.positioned = False
                partition.positioning = self._group.create_task(self._position(partition, position))

    # -- rebalances

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Take the partitions."""
        if self._left:
            return
        taken = {tp: Partition(tp, self._sink, self._group) for tp in assigned}
        self.table.update(taken)
        for partition in taken.values():
            partition.positioning = self._group.create_task(self._position(partition))
        self._metrics.assignment_epoch.inc()
        self._readiness.hold("assignment")
        log.info("partitions assigned", extra={"partitions": sorted(tp.partition for tp in assigned)})

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Drain, commit, let go."""
        self._readiness.fail("assignment", "rebalancing")
        if revoked:
            log.info("partitions revoked", extra={"partitions": sorted(tp.partition for tp in revoked)})
        await self._release(revoked)

    async def leave(self) -> None:
        """The session ends: let everything go, and take nothing any more."""
        self._left = True
        self._readiness.fail("assignment", "left the group")
        await self._release(list(self.table))

    async def _release(self, tps: Iterable[TopicPartition]) -> None:
        leaving = [self.table[tp] for tp in tps if tp in self.table]
        try:
            await asyncio.gather(*(partition.close(self._settings.drain_timeout_s) for partition in leaving))
            await self._committer.commit(leaving, self.table)
        finally:
            for partition in leaving:
                if self.table.get(partition.tp) is partition:
                    del self.table[partition.tp]

    # -- where a partition starts, or goes on

    async def _position(self, partition: Partition, position: int | None = None) -> None:
        """Find where to start, or where to go on after `position`, and let the partition be polled.

        Ends with the partition's assignment.
        """
        tp = partition.tp
        answers = 0
        while True:
            try:
                async with asyncio.timeout(self._settings.kafka_request_timeout_s):
                    known, same_topic = (position, True) if position is not None else await self._committed(tp)
                    begin = (await self._client.beginning_offsets([tp]))[tp]
                    end = (await self._client.end_offsets([tp]))[tp]
            except (KafkaError, TimeoutError) as error:
                log.warning("cannot find where to start yet", extra={"tp": str(tp), "cause": repr(error)})
                await asyncio.sleep(POSITION_RETRY_S)
                continue
            except asyncio.CancelledError:
                if partition.closed:
                    raise
                # From inside the client. A task group takes a cancelled task for a finished one: say it aloud.
                raise ConsumerStoppedError(f"the client gave up finding where {tp} starts") from None
            if self.table.get(tp) is not partition:
                return
            answers += 1
            match decide_start(known, begin, end, answers, same_topic=same_topic):
                case AskAgain():
                    log.warning(
                        "the offset lies beyond the log's end",
                        extra={"tp": str(tp), "offset": known, "end": end},
                    )
                    await asyncio.sleep(POSITION_RETRY_S)
                case Start() as start:
                    self._begin(partition, start, known, running=position is not None)
                    return

    async def _committed(self, tp: TopicPartition) -> tuple[int | None, bool]:
        """The group's commit, and whether it was made for the topic as it is now."""
        committed = await self._client.committed(tp)
        if committed is None or self._topic_id is None:
            return committed, True
        noted = noted_id(await self._view.note(self._settings.kafka_group_id, tp))
        return committed, noted is None or noted == self._topic_id

    def _begin(self, partition: Partition, start: Start, known: int | None, *, running: bool) -> None:
        self._say(start, partition.tp)
        if running and start.remade:
            raise ConsumerStoppedError(f"the log of {partition.tp} ends before {known}, where we read")
        self._client.seek(partition.tp, start.offset)
        if running:
            partition.go_on_at(start.offset)
        else:
            partition.start_at(start.offset, None if start.remade else known)

    def _say(self, start: Start, tp: TopicPartition) -> None:
        if start.lost:
            first, last = start.offset - start.lost, start.offset - 1
            self._metrics.lost_records.labels(partition=tp.partition).inc(start.lost)
            self._readiness.note(
                f"lost-{tp.partition}",
                f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: retention deleted offsets {first} to {last} of {tp.topic} "
                f"partition {tp.partition} before they were stored",
            )
            log.error(
                "retention deleted records before they were stored",
                extra={"tp": str(tp), "first_lost": first, "last_lost": last},
            )
        if start.remade:
            log.error("the topic was made anew; starting at its beginning", extra={"tp": str(tp)})
