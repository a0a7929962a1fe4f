"""All partitions' writers: where a collection goes, and the answer at the deadline for whoever still waits.

Owns the choice of a partition: the least loaded one that has a leader and recent acks, so that one stuck leader does
not fail its share of the requests (DESIGN §2). What becomes of a batch is `writer`'s.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from services.ingest.batching import BATCH_HEADER_BYTES, Submission
from services.ingest.problems import Code, Problem
from services.ingest.producer import KafkaLink
from services.ingest.settings import IngestSettings
from services.ingest.writer import PartitionWriter, too_large
from shared.telemetry import IngestMetrics

_SWEEP_S = 0.1  # how late an answer at the deadline may be
_STALLED_S = 1.0  # a partition whose produce has waited longer is taken only where no other has room
_load_bytes = attrgetter("load_bytes")


class Writers:
    """All partitions: takes collections, chooses where they go, answers at the deadline whoever still waits."""

    def __init__(self, link: KafkaLink, settings: IngestSettings, metrics: IngestMetrics) -> None:
        self._link = link
        self._settings = settings
        self._metrics = metrics
        self._topic = settings.kafka_topic
        self._partitions: list[PartitionWriter] = []  # as many as the topic has; never fewer, Kafka only adds
        self._healthy: deque[PartitionWriter] = deque()  # of these, as of the last sweep
        self._turn = 0  # collections so far: where `_healthy` begins
        self._loop = asyncio.get_running_loop()
        self._group = asyncio.TaskGroup()  # the writers' tasks, entered by `run`

    def pending(self) -> bool:
        """Whether anything waits for an ack."""
        return any(writer.busy for writer in self._partitions)

    def submit(self, submission: Submission) -> Problem | None:
        """Queue a collection with the partition's writer, which will settle it; or say why not (nothing is written)."""
        refusal = self._link.refusal
        if refusal is not None:
            return refusal
        limit = self._link.message_bytes_max - BATCH_HEADER_BYTES - submission.overhead_bytes
        if submission.left_bytes > limit:  # else no single payload can be over it
            for index, value in enumerate(submission.values):
                if len(value) > limit:
                    return too_large(index, limit)
        self._grow()
        writer = self._choose(submission)
        if writer is None:
            return Problem(Code.OVERLOADED, "the queue of every partition that could take it is full")
        writer.push(submission)
        return None

    def _choose(self, submission: Submission) -> PartitionWriter | None:
        writers = self._partitions
        if submission.key is not None and writers:
            pinned = writers[(murmur2(submission.key) & 0x7FFFFFFF) % len(writers)]
            return pinned if pinned.queue.has_room(submission.left_bytes) else None
        self._turn += 1
        self._healthy.rotate(-1)  # equal loads take turns: else all of a quiet day stood in partition 0
        for candidates in (self._healthy, writers):
            best = min(candidates, key=_load_bytes, default=None)
            if best is not None and best.queue.has_room(submission.left_bytes):
                return best
        return None

    async def run(self, sample: Callable[[float], None]) -> None:
        """Run the writers and answer at deadlines; ends only by cancellation.

        Args:
            sample: called about ten times a second with the loop's time.

        """
        async with self._group:
            while True:
                self._grow()
                now_s = self._loop.time()
                for writer in self._partitions:
                    writer.expire(now_s)
                self._healthy = deque(writer for writer in self._partitions if self._is_healthy(writer, now_s))
                self._healthy.rotate(-self._turn)
                sample(now_s)
                await asyncio.sleep(_SWEEP_S)

    def _grow(self) -> None:
        """A writer for each partition that the topic is known to have."""
        for partition in range(len(self._partitions), self._link.partitions):
            writer = PartitionWriter(partition, self._link, self._settings, self._metrics)
            self._partitions.append(writer)
            self._group.create_task(writer.run(), name=f"writer-{partition}")

    def _is_healthy(self, writer: PartitionWriter, now_s: float) -> bool:
        """Whether the partition has a leader, as the client knows, and its produce is not long without an ack."""
        producer = self._link.producer
        if producer is None or (writer.waiting_since is not None and now_s - writer.waiting_since > _STALLED_S):
            return False
        leader = producer.client.cluster.leader_for_partition(TopicPartition(self._topic, writer.partition))
        return leader not in {None, -1}
