"""All partitions' writers: where a collection goes, and the answer at the deadline for whoever still waits.

Owns the choice of a partition: one that has a leader and recent acks, and what waits for one that has lost them is
given to others, so that one stuck leader does not fail its share of the requests (DESIGN §2). What becomes of a batch
is `writer`'s.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter

from aiokafka.partitioner import murmur2

from services.ingest.batching import Submission
from services.ingest.outcome import Verdict
from services.ingest.problems import Code, Problem
from services.ingest.producer import KafkaLink
from services.ingest.settings import IngestSettings
from services.ingest.writer import PartitionWriter
from shared.telemetry import IngestMetrics

_SWEEP_S = 0.1  # how late an answer at the deadline may be
_FILL_BYTES = 256 * 1024
"""What one partition is given before the next has its turn."""
_SLOW_S = 0.02  # a produce that takes longer gives the turn away
_load_bytes = attrgetter("load_bytes")


class Writers:
    """All partitions: takes collections, chooses where they go, answers at the deadline whoever still waits."""

    def __init__(self, link: KafkaLink, settings: IngestSettings, metrics: IngestMetrics) -> None:
        self._link = link
        self._settings = settings
        self._metrics = metrics
        for outcome in ("acked", *(verdict.value for verdict in Verdict)):  # from 0 on
            metrics.batches.labels(outcome)
        self._partitions: list[PartitionWriter] = []  # as many as the topic has ever had
        self._healthy: deque[PartitionWriter] = deque()  # of these, as of the last sweep
        self._turn = 0  # turns so far: where `_healthy` begins
        self._filling: PartitionWriter | None = None  # whose turn it is
        self._filled_bytes = 0  # what it was given in this turn
        self._loop = asyncio.get_running_loop()
        self._acks = 0  # of the link, at the last sweep
        self._vain_since_s = self._loop.time()  # since when collections have waited without any ack
        self._vain = False  # for so long that the next would only wait in vain, too
        self._group = asyncio.TaskGroup()  # the writers' tasks, entered by `run`

    def pending(self) -> bool:
        """Whether anything waits for an ack."""
        return any(writer.busy for writer in self._partitions)

    def troubled(self) -> bool:
        """Whether a partition has no leader, as the client knows, or has waited long for an ack."""
        return len(self._healthy) < self._link.partitions

    def submit(self, submission: Submission) -> Problem | None:
        """Queue a collection with the partition's writer, which will settle it; or say why not (nothing is written)."""
        refusal = self._link.refusal
        if refusal is not None:
            return refusal
        problem = submission.too_large(self._link.message_bytes_max)
        if problem is not None:
            return problem
        if len(self._partitions) < self._link.partitions:
            self._grow()
        chosen = self._choose(submission)
        if isinstance(chosen, Problem):
            return chosen
        chosen.push(submission)
        return None

    def _choose(self, submission: Submission) -> PartitionWriter | Problem:
        """Which partition gets it. While a produce of one is under way, what comes goes to the same one's next batch:
        a batch costs ten times what a record in it costs, here and at the broker. An idle one has no batch to fill, so
        that all of a quiet day does not stand in one partition; nor is one filled for ever, or while it is slow.
        """
        vain = self._vain and self._link.acks == self._acks
        filling = self._filling
        if filling is not None and submission.key is None and not vain:
            size_bytes = self._filled_bytes + submission.left_bytes
            if size_bytes <= _FILL_BYTES and filling.gathers(self._loop.time() - _SLOW_S, submission.left_bytes):
                self._filled_bytes = size_bytes
                return filling
        writers = self._partitions[: self._link.partitions]  # a topic made anew may have fewer than before
        if submission.key is not None and writers:
            pinned = [writers[(murmur2(submission.key) & 0x7FFFFFFF) % len(writers)]]
            rounds: tuple[Iterable[PartitionWriter], ...] = (pinned,)
        else:
            self._turn += 1
            self._healthy.rotate(-1)  # equal loads take turns: else all of a quiet day stood in partition 0
            rounds = (self._healthy, writers)
        if vain:  # one collection a partition finds out whether it still is
            rounds = tuple([writer for writer in candidates if not writer.busy] for candidates in rounds)
        for candidates in rounds:
            best = min(candidates, key=_load_bytes, default=None)
            if best is not None and best.queue.has_room(submission.left_bytes):
                if submission.key is None:
                    self._filling, self._filled_bytes = best, submission.left_bytes
                return best
        if vain:
            return Problem(
                Code.KAFKA_UNAVAILABLE, f"no ack has come for {self._settings.http_deadline_s:g} s (HTTP_DEADLINE_S)"
            )
        return Problem(Code.OVERLOADED, "the queue of every partition that could take it is full")

    def _elsewhere(self, writer: PartitionWriter, submission: Submission) -> bool:
        """Give the collection to another writer that can have it. A leader that is gone then costs its partition's
        collections a moment, and not their deadline.
        """
        others = (other for other in self._healthy if other is not writer)
        best = min(others, key=_load_bytes, default=None)
        if best is None or not best.queue.has_room(submission.left_bytes):
            return False
        submission.moved = True
        best.take_over(submission)
        return True

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
                self._healthy = deque(writer for writer in self._partitions if writer.healthy(now_s))
                self._healthy.rotate(-self._turn)
                healthy = set(self._healthy)
                for writer in self._partitions:
                    if writer not in healthy:
                        writer.give_away()
                if self._filling not in healthy:
                    self._filling = None
                self._count_acks(now_s)
                sample(now_s)
                await asyncio.sleep(_SWEEP_S)

    def _count_acks(self, now_s: float) -> None:
        """Find out whether collections wait in vain. Once they do, only an ack ends it."""
        acks = self._link.acks
        if acks != self._acks or not (self._vain or self.pending()):
            self._acks, self._vain_since_s = acks, now_s
        self._vain = now_s - self._vain_since_s >= self._settings.http_deadline_s

    def _grow(self) -> None:
        """A writer for each partition that the topic is known to have."""
        for partition in range(len(self._partitions), self._link.partitions):
            writer = PartitionWriter(partition, self._link, self._settings, self._metrics, self._elsewhere)
            self._partitions.append(writer)
            self._group.create_task(writer.run(), name=f"writer-{partition}")
