"""Group commit: one partition's writer, one produce in flight, every request answered by the ack of its batch.

Owns the partition's queue and what becomes of each batch. Requests never contend inside the client: `send()` under
contention wakes quadratically (DESIGN §6). Which partition a collection goes to is `writers`' to choose, whether Kafka
can be written to at all `producer`'s to say.

What a request is told follows from what is known of its records: a collection whose every produce was refused or never
sent gets a 503, one with a produce in flight or acked a 504.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, UnknownTopicOrPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder

from services.ingest.batching import Part, PartitionQueue, Submission, Written, record_too_large
from services.ingest.outcome import Verdict, judge
from services.ingest.problems import Code, Problem
from services.ingest.producer import KafkaLink
from services.ingest.settings import IngestSettings
from shared.telemetry import IngestMetrics

logger = logging.getLogger("spillway.ingest.writer")

_STALLED_S = 1.0  # a partition whose produce has waited longer is taken only where no other has room
_RETRY_FIRST_S, _RETRY_MAX_S = 0.05, 1.0
_LOGGED_IDS = 5
_RECHECK_BOUND_S = 3.0


Elsewhere = Callable[["PartitionWriter", Submission], bool]
"""Gives a collection to another writer than this one, if there is one that can have it."""


class PartitionWriter:
    """One partition's queue and its one produce in flight."""

    def __init__(
        self,
        partition: int,
        link: KafkaLink,
        settings: IngestSettings,
        metrics: IngestMetrics,
        elsewhere: Elsewhere = lambda _writer, _submission: False,
    ) -> None:
        self.partition = partition
        self.queue = PartitionQueue(settings.max_partition_queue_bytes)
        self.waiting_since: float | None = None  # when the produce that has not been acked yet was first tried
        self.load_bytes = 0  # queued and being delivered: what a new collection would wait for
        self._link = link
        self._topic = settings.kafka_topic
        self._place = TopicPartition(self._topic, partition)
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._produce_bound_s = settings.http_deadline_s
        self._parts: list[Part] = []  # taken from the queue and not all settled
        self._sent: list[Part] = []  # of these, with the client: their outcome is the broker's to tell
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def push(self, submission: Submission) -> None:
        """Queue a collection; it is settled later, whatever happens."""
        self.queue.push(submission)
        self.load_bytes += submission.left_bytes
        self._wake.set()

    def take_over(self, submission: Submission) -> None:
        """Queue a collection that waited for another partition, among those that wait here by its deadline."""
        self.queue.insert(submission)
        self.load_bytes += submission.left_bytes
        self._wake.set()

    def give_away(self) -> None:
        """This partition cannot be written to now: what waits for it, and has not been sent, goes to others."""
        before_bytes = self.queue.bytes
        self.queue.give_away(self._moves)
        self.load_bytes -= before_bytes - self.queue.bytes

    def _moves(self, submission: Submission) -> bool:
        return self._elsewhere(self, submission)

    @property
    def busy(self) -> bool:
        """Whether anything waits for an ack."""
        return self.waiting_since is not None or len(self.queue) > 0

    def gathers(self, since_s: float, size_bytes: int) -> bool:
        """Whether a produce is under way, begun at `since_s` or later, and the queue behind it has room."""
        waiting_since = self.waiting_since
        if waiting_since is None:
            return self.load_bytes > 0 and self.queue.has_room(size_bytes)
        return waiting_since >= since_s and self.queue.has_room(size_bytes)

    def healthy(self, now_s: float) -> bool:
        """Whether the partition has a leader that answers, and its produce is not long without an ack."""
        if self.waiting_since is not None and now_s - self.waiting_since > _STALLED_S:
            return False
        return self._link.can_send(self._place)

    async def run(self) -> None:
        """Deliver batch after batch; ends only by cancellation."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while parts := self.queue.take(self._link.message_bytes_max):
                self._parts = parts
                self.waiting_since = self._loop.time()
                try:
                    await self._deliver(parts)
                except Exception:  # a bug of ours or of the client's: it costs this batch and not the process
                    logger.exception("a batch failed in an unexpected way", extra={"partition": self.partition})
                    self._fail(parts, Written.UNKNOWN, "something went wrong here")
                self._parts, self.waiting_since, self.load_bytes = [], None, self.queue.bytes
            self.load_bytes = 0  # the queue is empty; it may have dropped the rest of a collection that has failed

    def expire(self, now_s: float) -> None:
        """Answer whoever's deadline has passed."""
        late = [part.submission for part in self._parts if part.submission.deadline_s <= now_s]
        sent = {part.submission for part in self._sent} if late else set()
        for submission in late:
            if submission in sent:
                submission.written = Written.UNKNOWN  # before the rest of a cut one is found in the queue
        for submission in (*self.queue.due(now_s), *late):
            submission.settle(_too_late(submission))

    async def _deliver(self, parts: list[Part]) -> None:
        """Produce the parts as one batch until its outcome is known, or nobody waits for it any more."""
        delay_s = _RETRY_FIRST_S
        # Whoever was answered at its deadline meanwhile was told what was true then: nothing more of it is written.
        while parts := [part for part in parts if not part.submission.settled]:
            error = await self._produce(parts)
            if error is None:
                self._acked(parts)
                return
            verdict = judge(error)
            self._metrics.batches.labels(verdict.value).inc()
            match verdict:
                case Verdict.NOT_NOW | Verdict.MOVED:
                    if verdict is Verdict.MOVED:
                        for part in parts:
                            part.submission.written = Written.UNKNOWN
                    if isinstance(error, UnknownTopicOrPartitionError):
                        self._link.recheck_topic()
                    self._link.refresh()
                    parts = self._kept(parts)
                    self.give_away()
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, _RETRY_MAX_S)
                case Verdict.TOO_LARGE:
                    await self._deliver_apart(parts)
                    return
                case Verdict.REFUSED:
                    self._link.recheck_topic()
                    self._fail(parts, Written.NOTHING, f"Kafka refused the write: {_words(error)}")
                    return
                case Verdict.UNKNOWN:
                    self._fail(parts, Written.UNKNOWN, f"Kafka did not say whether it wrote: {_words(error)}")
                    return

    def _kept(self, parts: list[Part]) -> list[Part]:
        """What is left of a batch that was not written, once others have taken what they can."""
        moved = [part for part in parts if part.last and part.submission.movable and self._moves(part.submission)]
        if moved:
            self._parts = [part for part in self._parts if part not in moved]  # their deadline is another's to keep
            parts = [part for part in parts if part not in moved]
        return parts

    async def _produce(self, parts: list[Part]) -> Exception | None:
        """One try. The batch is built anew each time: the client may still hold the last one."""
        producer = self._link.producer
        if producer is None:
            return _never_sent("no producer")
        if not self._link.can_send(self._place):
            # The client would ask for the topic by name, which makes it anew on brokers that are so configured.
            self._link.recheck_topic()
            return _never_sent("the partition has no leader that the client knows, or that one is silent")
        batch = _build(producer, parts)
        self._sent = parts  # in doubt from here on: the client may take the batch after the deadline has been answered
        try:
            return await self._send(producer, batch)
        finally:
            self._sent = []

    async def _send(self, producer: AIOKafkaProducer, batch: BatchBuilder) -> Exception | None:
        started_s = self._loop.time()
        try:
            # A time-out here strikes before the client has taken the batch: afterwards it awaits nothing.
            async with asyncio.timeout(self._produce_bound_s):
                acked = await producer.send_batch(batch, self._topic, partition=self.partition)
        except TimeoutError:
            return _never_sent("the client did not take the batch")
        except (KafkaError, AssertionError) as error:  # the client asserts that it knows the partition
            self._link.recheck_topic()
            if judge(error) is Verdict.UNKNOWN and producer is self._link.producer:
                self._link.replace(_words(error))
            return _never_sent(_words(error))
        try:
            await asyncio.wait({acked}, timeout=self._produce_bound_s)
        finally:
            acked.cancel()  # unless it is done; also where this writer ends, or its failure would be nobody's to see
        if acked.cancelled():
            return TimeoutError("no answer in time")
        self._link.moved()
        self._metrics.ack_seconds.observe(self._loop.time() - started_s)
        outcome: Exception | None = acked.exception()
        if outcome is None:
            self._metrics.batch_records.observe(batch.record_count())
            self._metrics.batch_bytes.observe(batch.size())
        return outcome

    async def _deliver_apart(self, parts: list[Part]) -> None:
        """A batch that is too large for the broker: one collection at a time, then one in halves, at last 413.

        First the topic is asked what it takes now, so that a collection with one payload too large is refused as a
        whole: written in part it would be a doubt for ever, however often it is sent again.
        """
        if len(parts) > 1:
            self._link.recheck_topic()
            for part in parts:
                await self._deliver([part])
            return
        part = parts[0]
        submission = part.submission
        if submission.written is Written.NOTHING:
            await self._link.rechecked(_RECHECK_BOUND_S)
            problem = submission.too_large(self._link.message_bytes_max)
            if problem is None and part.stop - part.start == 1:
                problem = record_too_large(part.start, self._link.message_bytes_max)
            if problem is not None:
                submission.settle(problem)
                return
        if part.stop - part.start > 1:
            for half in part.halves():
                await self._deliver([half])
        else:
            self._fail(parts, Written.UNKNOWN, f"payload {part.start} is too large for the broker, others were written")

    def _acked(self, parts: Iterable[Part]) -> None:
        self._link.acked()
        self._metrics.batches.labels("acked").inc()
        for part in parts:
            if part.last:
                part.submission.settle(None)
            else:
                part.submission.written = Written.UNKNOWN  # a part of it is in the log

    def _fail(self, parts: Sequence[Part], written: Written, reason: str) -> None:
        logger.warning(
            "a batch failed",
            extra={
                "partition": self.partition,
                "reason": reason,
                "written": written.value,
                "collections": len(parts),
                "request_ids": [part.submission.request_id for part in parts[:_LOGGED_IDS]],
            },
        )
        for part in parts:
            if written is Written.UNKNOWN or part.submission.written is Written.UNKNOWN:
                part.submission.settle(Problem(Code.OUTCOME_UNKNOWN, reason))
            else:
                part.submission.settle(Problem(Code.KAFKA_REFUSED, reason))


def _build(producer: AIOKafkaProducer, parts: Iterable[Part]) -> BatchBuilder:
    batch = producer.create_batch()
    append = batch.append
    for part in parts:
        submission = part.submission
        key, headers_of, values = submission.key, submission.headers_of, submission.values
        for index in range(part.start, part.stop):
            headers = headers_of(index) if index else submission.first_headers
            if append(timestamp=None, key=key, value=values[index], headers=headers) is None:
                raise RuntimeError("a batch was measured too small")  # a bug: sizes must be upper bounds
    batch.close()
    return batch


def _never_sent(reason: str) -> Exception:
    error: Exception = KafkaTimeoutError(reason)
    return error


def _too_late(submission: Submission) -> Problem:
    if submission.written is Written.UNKNOWN:
        return Problem(Code.OUTCOME_UNKNOWN, "Kafka has not acknowledged the collection by the deadline")
    return Problem(
        Code.KAFKA_UNAVAILABLE, "the collection's turn did not come before the deadline; nothing was written"
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
