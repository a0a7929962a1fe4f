"""One partition's writer against a client that answers by script: who is told what, and what is sent how often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from prometheus_client import CollectorRegistry

from services.ingest.batching import Submission
from services.ingest.problems import Problem
from services.ingest.settings import IngestSettings
from services.ingest.writer import PartitionWriter
from shared.telemetry import IngestMetrics

LIMIT = 4000
Answer = Exception | None
Told = asyncio.Future[Problem | None]


class ScriptedClient:
    """A producer's two calls. Each batch waits until the test answers it; `batches` are the record counts sent."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.leader: int | None = 1
        self._open: asyncio.Queue[asyncio.Future[object]] = asyncio.Queue()

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(2**30, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        del topic, partition
        self.batches.append(batch.record_count())
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._open.put_nowait(answer)
        return answer

    @property
    def client(self) -> "ScriptedClient":
        return self

    @property
    def cluster(self) -> "ScriptedClient":
        return self

    def leader_for_partition(self, _place: object) -> int | None:
        return self.leader

    def force_metadata_update(self) -> None:
        """The writer asks for this after a retriable error."""

    @property
    def in_flight(self) -> int:
        return self._open.qsize()

    async def answer(self, *answers: Answer) -> None:
        """Answer the next batches, one after the other."""
        for error in answers:
            waiting = await asyncio.wait_for(self._open.get(), 5)
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)


class Link:
    """What a writer needs of the Kafka link."""

    refusal = None
    message_bytes_max = LIMIT
    partitions = 1

    def __init__(self, producer: ScriptedClient) -> None:
        self.producer = producer
        self.rechecks = 0

    def acked(self) -> None:
        """An ack came."""

    def moved(self) -> None:
        """A produce ended."""

    def recheck_topic(self) -> None:
        self.rechecks += 1


class Bench:
    """A running writer, its client, and what each collection was told."""

    def __init__(self) -> None:
        self.client = ScriptedClient()
        self.link = Link(self.client)
        metrics = IngestMetrics(CollectorRegistry())
        self.writer = PartitionWriter(0, self.link, IngestSettings(), metrics)  # type: ignore[arg-type]

    def push(self, *sizes: int, deadline_s: float = 1e12) -> Told:
        told: Told = asyncio.get_running_loop().create_future()
        values = [b"x" * size for size in sizes]
        self.writer.push(
            Submission(values, lambda _: [("h", b"v")], key=None, deadline_s=deadline_s, notify=told.set_result)
        )
        return told


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    running = asyncio.create_task(made.writer.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.wait({running})


async def codes(*told: Told) -> list[str]:
    async with asyncio.timeout(5):
        return ["" if (problem := await one) is None else problem.label for one in told]


async def turn(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the writer sets no event; a turn of the loop is no wait
            await asyncio.sleep(0)


async def test_what_gathers_during_a_produce_goes_with_the_next() -> None:
    """One produce in flight; everything that came meanwhile is one batch, and each is answered by its ack."""
    async with bench() as b:
        first = b.push(10)
        await turn(lambda: b.client.in_flight == 1)
        rest = [b.push(10, 10) for _ in range(5)]
        await asyncio.sleep(0)
        assert b.client.batches == [1]
        assert not first.done()
        await b.client.answer(None)
        assert await codes(first) == [""]
        assert not any(one.done() for one in rest)
        await b.client.answer(None)
        assert await codes(*rest) == [""] * 5
        assert b.client.batches == [1, 10]


async def test_a_refusal_is_a_503_for_all_of_the_batch() -> None:
    """Refused before the append: nothing was written, and nobody is told otherwise."""
    async with bench() as b:
        told = [b.push(10), b.push(10)]
        await b.client.answer(NotEnoughReplicasError())
        assert await codes(*told) == ["kafka_refused"] * 2


async def test_a_lost_connection_is_a_504_and_is_not_tried_again() -> None:
    """It may be in the log: a second try could only write it twice."""
    async with bench() as b:
        told = b.push(10)
        await b.client.answer(KafkaConnectionError())
        assert await codes(told) == ["outcome_unknown"]
        assert b.client.batches == [1]


async def test_a_moving_leader_is_waited_for() -> None:
    """What the old leader refused is tried again, and nobody notices."""
    async with bench() as b:
        told = b.push(10)
        await b.client.answer(NotLeaderForPartitionError(), NotLeaderForPartitionError(), None)
        assert await codes(told) == [""]
        assert b.client.batches == [1, 1, 1]


async def test_a_shared_batch_too_large_is_resent_one_collection_at_a_time() -> None:
    """Only the collection that the broker cannot take is refused."""
    async with bench() as b:
        told = [b.push(10), b.push(900), b.push(10)]
        await b.client.answer(MessageSizeTooLargeError(), None, MessageSizeTooLargeError(), None)
        assert await codes(*told) == ["", "record_too_large", ""]
        assert b.client.batches == [3, 1, 1, 1]
        assert b.link.rechecks == 2


async def test_a_collection_half_written_is_never_a_503() -> None:
    """One collection in two batches: the first acked, the second refused. Some of it stands in the log, so 504."""
    async with bench() as b:
        told = b.push(LIMIT - 200, LIMIT - 200)
        await b.client.answer(None, NotEnoughReplicasError())
        assert await codes(told) == ["outcome_unknown"]
        assert b.client.batches == [1, 1]


async def test_the_rest_of_a_failed_collection_is_not_sent() -> None:
    """Once its answer is known, nothing more of a collection is written."""
    async with bench() as b:
        told, after = b.push(LIMIT - 200, LIMIT - 200), b.push(5, 5, 5)
        await b.client.answer(KafkaConnectionError(), None)
        assert await codes(told, after) == ["outcome_unknown", ""]
        assert b.client.batches == [1, 3]


async def test_at_the_deadline_only_what_was_sent_is_unknown() -> None:
    """In flight: 504. Still in the queue: 503, and it is never sent afterwards."""
    async with bench() as b:
        sent = b.push(10, deadline_s=5)
        await turn(lambda: b.client.in_flight == 1)
        queued = b.push(10, deadline_s=6)
        b.writer.expire(4.9)
        assert not sent.done()
        b.writer.expire(6)
        assert await codes(sent, queued) == ["outcome_unknown", "kafka_unavailable"]
        await b.client.answer(None)
        await turn(lambda: not b.writer.busy)
        assert b.client.batches == [1]
        assert b.writer.load_bytes == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LeaderNotAvailableError(), "kafka_unavailable"),  # nobody was there to append it
        (NotLeaderForPartitionError(), "outcome_unknown"),  # it may have appended before it was deposed
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
async def test_between_two_tries_the_doubt_is_that_of_the_tries(error: Exception, code: str) -> None:
    """At its deadline a batch is a 503 only if no try of it can be in the log; it is not tried again."""
    async with bench() as b:
        told = b.push(10, deadline_s=5)
        await b.client.answer(error)
        await turn(lambda: not b.writer._sent)
        b.writer.expire(5)
        assert await codes(told) == [code]
        await turn(lambda: not b.writer.busy)
        assert b.client.batches == [1]


async def test_an_unexpected_error_costs_one_batch() -> None:
    """A bug answers its batch with 504, and the writer goes on."""
    async with bench() as b:
        create_batch = b.client.create_batch
        b.client.create_batch = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
        assert await codes(b.push(10)) == ["outcome_unknown"]
        b.client.create_batch = create_batch  # type: ignore[method-assign]
        told = b.push(10)
        await b.client.answer(None)
        assert await codes(told) == [""]
