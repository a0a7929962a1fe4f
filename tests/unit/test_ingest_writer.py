"""One partition's writer against a client that answers by script: who is told what, and what is sent how often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Never

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    ProducerClosed,
)
from prometheus_client import CollectorRegistry

from services.ingest.batching import Submission
from services.ingest.problems import Problem
from services.ingest.settings import IngestSettings
from services.ingest.writer import PartitionWriter
from shared.telemetry import IngestMetrics
from tests.fakes.kafka_producer import LIMIT, Link, ScriptedClient

Told = asyncio.Future[Problem | None]


class Bench:
    """A running writer, its client, and what each collection was told."""

    def __init__(self) -> None:
        self.client = ScriptedClient()
        self.link = Link(self.client)
        self.registry = CollectorRegistry()
        metrics = IngestMetrics(self.registry)
        self.writer = PartitionWriter(0, self.link, IngestSettings(), metrics)  # type: ignore[arg-type]

    def push(self, *sizes: int, deadline_s: float = 1e12, request_id: str = "") -> Told:
        told: Told = asyncio.get_running_loop().create_future()
        values = [b"x" * size for size in sizes]
        self.writer.push(
            Submission(
                values,
                lambda _: [("h", b"v")],
                key=None,
                deadline_s=deadline_s,
                notify=told.set_result,
                request_id=request_id,
            )
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


async def test_a_collection_with_one_payload_too_large_is_refused_whole() -> None:
    """The topic takes less than it did: the collection is measured anew, and nothing of it is written."""
    async with bench() as b:
        told = b.push(10, 10, 900, 10)
        await turn(lambda: b.client.in_flight == 1)
        b.link.message_bytes_max = 500
        await b.client.answer(MessageSizeTooLargeError())
        assert await codes(told) == ["record_too_large"]
        assert b.client.batches == [4]


async def test_a_payload_too_large_counts_wherever_it_stands() -> None:
    """Of a collection that was cut, too: what is in hand is measured with the rest."""
    async with bench() as b:
        told = b.push(LIMIT - 200, LIMIT - 200, 10)
        await turn(lambda: b.client.in_flight == 1)
        b.link.message_bytes_max = LIMIT - 100
        await b.client.answer(MessageSizeTooLargeError())
        assert await codes(told) == ["record_too_large"]
        assert b.client.batches == [1]


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


async def test_the_rest_of_a_failed_collection_is_no_load() -> None:
    """Or an idle partition would be the last that is chosen, and the one that is filled before it has a batch."""
    async with bench() as b:
        told = b.push(LIMIT - 200, LIMIT - 200)
        await b.client.answer(KafkaConnectionError())
        assert await codes(told) == ["outcome_unknown"]
        await turn(lambda: not b.writer.busy)
        assert b.writer.load_bytes == 0


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


async def test_the_rest_of_a_collection_that_is_being_sent_is_in_doubt() -> None:
    """Its first records may be in the log when its last still wait: never a 503."""
    async with bench() as b:
        told = b.push(*[1500] * 4, deadline_s=5)
        await turn(lambda: b.client.in_flight == 1)
        assert len(b.writer.queue) == 1
        b.writer.expire(6)
        assert await codes(told) == ["outcome_unknown"]


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


async def test_who_was_told_that_nothing_was_written_is_not_written_afterwards() -> None:
    """Of a batch that is tried again, those that were answered at their deadline meanwhile are left out."""
    async with bench() as made:
        first = made.push(10)
        await turn(lambda: made.client.in_flight == 1)
        now_s = asyncio.get_running_loop().time()
        early, late = made.push(10, deadline_s=now_s + 0.1), made.push(10)
        await made.client.answer(None)  # the first is acked, and the two become one batch
        await turn(lambda: made.client.in_flight == 1)
        made.client.leader = None  # between the two tries
        await made.client.answer(LeaderNotAvailableError())
        await turn(lambda: not made.writer._sent)
        made.writer.expire(now_s + 0.2)
        assert await codes(early) == ["kafka_unavailable"]
        made.client.leader = 1
        await turn(lambda: len(made.client.batches) == 3)
        await made.client.answer(None)
        assert await codes(first, late) == ["", ""]
        assert made.client.batches == [1, 2, 1]


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


async def test_what_the_client_takes_after_the_deadline_is_in_doubt() -> None:
    """A batch that the client has not taken yet cannot be taken back: it goes out after the answer, so that was 504."""
    async with bench() as b:
        b.client.gate = asyncio.Event()
        told = b.push(10, deadline_s=5)
        await turn(lambda: bool(b.writer._parts))
        b.writer.expire(5)
        assert await codes(told) == ["outcome_unknown"]
        b.client.gate.set()
        await b.client.answer(None)
        assert b.client.batches == [1]


async def test_a_batch_that_the_client_never_takes_is_a_503() -> None:
    """What cannot be in the log is not in doubt: the client refused the batch before it had it."""
    async with bench() as b:
        b.client.send_batch = _refuse  # type: ignore[method-assign]
        told = b.push(10, deadline_s=5)
        await turn(lambda: b.link.rechecks > 0 and not b.writer._sent)
        b.writer.expire(5)
        assert await codes(told) == ["kafka_unavailable"]
        assert len(b.link.broken) == 1


async def _refuse(*_: object, **__: object) -> Never:
    raise ProducerClosed


async def test_without_a_leader_nothing_is_sent() -> None:
    """The client would ask for the topic by name, and brokers make what is asked for. It goes on with the leader."""
    async with bench() as b:
        b.client.leader = None
        told = b.push(10)
        await turn(lambda: b.link.rechecks == 2)
        assert b.client.batches == []
        b.client.leader = 1
        await b.client.answer(None)
        assert await codes(told) == [""]


async def test_a_failed_batch_names_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    """Up to five request ids lead from the log to the clients, and never a payload."""
    async with bench() as b:
        told = [b.push(10, request_id=f"request-{number}") for number in range(7)]
        await b.client.answer(NotEnoughReplicasError())
        assert set(await codes(*told)) == {"kafka_refused"}
    (line,) = [record for record in caplog.records if record.message == "a batch failed"]
    assert vars(line)["request_ids"] == [f"request-{number}" for number in range(5)]
    assert vars(line)["collections"] == 7


async def test_what_is_acked_is_measured() -> None:
    """Records and bytes of a batch are counted with its ack, and not with a try that failed."""
    async with bench() as b:
        told = b.push(10, 20, 30)
        await b.client.answer(NotLeaderForPartitionError(), None)
        assert await codes(told) == [""]
        value = b.registry.get_sample_value
        assert (value("spillway_ingest_batch_records_count"), value("spillway_ingest_batch_records_sum")) == (1, 3)
        size = value("spillway_ingest_batch_bytes_sum")
        assert value("spillway_ingest_batch_bytes_count") == 1
        assert size is not None
        assert 60 < size < 300
