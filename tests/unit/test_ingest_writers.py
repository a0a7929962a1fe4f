"""The choice of a partition, and what is refused at once when nothing is acknowledged any more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka.errors import LeaderNotAvailableError
from prometheus_client import CollectorRegistry

from services.ingest.batching import Submission
from services.ingest.settings import IngestSettings
from services.ingest.writers import Writers
from shared.telemetry import IngestMetrics
from tests.fakes.kafka_producer import Link, ScriptedClient

DEADLINE_S = 0.5
"""HTTP_DEADLINE_S where it shall pass: in real time, since the sweep of the writers has the loop's clock. A produce is
given up after it, too.
"""


class Bench:
    """Running writers over as many partitions as the link says."""

    def __init__(self, partitions: int, deadline_s: float) -> None:
        self.client = ScriptedClient()
        self.link = Link(self.client, partitions)
        settings = IngestSettings(http_deadline_s=deadline_s, kafka_produce_timeout_s=deadline_s / 2)
        self.writers = Writers(self.link, settings, IngestMetrics(CollectorRegistry()))  # type: ignore[arg-type]

    def submit(self, key: bytes | None = None, size_bytes: int = 1) -> str:
        """Submit one payload: "" if it was taken, else the code."""
        submission = Submission([b"1" * size_bytes], lambda _: [], key=key, deadline_s=1e12, notify=lambda _: None)
        problem = self.writers.submit(submission)
        return "" if problem is None else problem.label


@asynccontextmanager
async def bench(partitions: int, deadline_s: float = 10) -> AsyncIterator[Bench]:
    made = Bench(partitions, deadline_s)
    swept = asyncio.Event()
    running = asyncio.create_task(made.writers.run(lambda _: swept.set()))
    try:
        await swept.wait()
        yield made
    finally:
        running.cancel()
        await asyncio.wait({running})


async def turn(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the sweep sets no event
            await asyncio.sleep(0.01)


async def test_equal_loads_take_turns() -> None:
    """On a quiet day the collections go over all partitions, and not into the first."""
    async with bench(3) as b:
        for number in range(6):
            assert b.submit() == ""
            await turn(lambda number=number: len(b.client.places) > number)  # type: ignore[misc]
            await b.client.answer(None)
            await turn(lambda: not b.writers.pending())
        assert sorted(b.client.places) == [0, 0, 1, 1, 2, 2]


async def test_a_stuck_partition_is_left_out() -> None:
    """A partition whose produce waits is trouble, and gets no collection while another can take it."""
    async with bench(2) as b:
        assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 1)
        stuck = b.client.places[0]
        await turn(b.writers.troubled)
        for _ in range(5):
            assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 2)
        assert b.client.places == [stuck, 1 - stuck]
        assert b.client.batches == [1, 5]


async def test_what_comes_during_a_produce_fills_one_batch() -> None:
    """Eight collections that come while a produce is under way are one batch more, and not one in each partition."""
    async with bench(12) as b:
        assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 1)
        for _ in range(8):
            assert b.submit() == ""
        await b.client.answer(None, None)
        await turn(lambda: not b.writers.pending())
        assert b.client.batches == [1, 8]
        assert b.client.places == [b.client.places[0]] * 2


async def test_a_partition_is_not_filled_for_ever() -> None:
    """Under steady load each partition has its turn: 5 times a sixth of what a turn takes, and the next is another."""
    async with bench(3) as b:
        b.link.message_bytes_max = 10**6
        for _ in range(16):
            assert b.submit(size_bytes=50_000) == ""
        await turn(lambda: len(set(b.client.places)) == 3)


async def test_a_slow_partition_gives_its_turn_away() -> None:
    """A produce that takes long is no reason to wait behind it, long before the partition counts as stuck."""
    async with bench(2) as b:
        assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 1)
        (writer,) = (one for one in b.writers._partitions if one.waiting_since is not None)
        writer.waiting_since = asyncio.get_running_loop().time() - 0.1
        assert b.submit() == ""
        assert len(writer.queue) == 0
        await turn(lambda: len(set(b.client.places)) == 2)


async def test_what_waits_for_a_stuck_partition_goes_elsewhere() -> None:
    """One produce gets no answer: what had been queued behind it is written by another, in time."""
    async with bench(2) as b:
        assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 1)
        for _ in range(5):
            assert b.submit() == ""
        assert len(b.client.places) == 1
        await turn(lambda: len(b.client.places) == 2)
        assert b.client.batches == [1, 5]
        assert len(set(b.client.places)) == 2


async def test_a_batch_that_was_not_written_goes_elsewhere() -> None:
    """The leader is gone and nothing is in the log: another partition takes the batch and the queue behind it. Who
    asked for that partition waits for it.
    """
    async with bench(2) as b:
        assert b.submit() == ""
        await turn(lambda: len(b.client.places) == 1)
        gone = b.client.places[0]
        for _ in range(5):
            assert b.submit() == ""
        await b.client.answer(LeaderNotAvailableError())
        await turn(lambda: len(b.client.places) == 2)
        assert b.client.places == [gone, 1 - gone]
        assert b.client.batches == [1, 6]
        await turn(lambda: not b.writers._partitions[gone].busy)


async def test_a_pinned_collection_is_not_moved() -> None:
    """A Partition-Key is a promise of one partition."""
    async with bench(2) as b:
        assert b.submit(b"key") == ""
        await turn(lambda: len(b.client.places) == 1)
        await b.client.answer(LeaderNotAvailableError())
        await turn(lambda: len(b.client.places) == 2)
        assert len(set(b.client.places)) == 1


async def test_in_vain_is_refused_at_once_until_an_ack() -> None:
    """No ack for the deadline: one collection a partition finds out whether it is over, the others are told at once
    that nothing of them was written. One ack opens it.
    """
    async with bench(1, DEADLINE_S) as b:
        assert b.submit() == ""
        await turn(lambda: b.submit() == "kafka_unavailable")
        await turn(lambda: not b.writers.pending())
        assert [b.submit() for _ in range(3)] == ["", "kafka_unavailable", "kafka_unavailable"]
        await b.client.answer(None)
        await turn(lambda: b.link.acks == 1)
        assert [b.submit() for _ in range(3)] == ["", "", ""]


async def test_idle_time_is_not_in_vain() -> None:
    """Where nothing waits, no ack is missed: the first collection of a morning is followed by a second."""
    async with bench(1, DEADLINE_S) as b:
        before_s = b.writers._vain_since_s
        await turn(lambda: b.writers._vain_since_s > before_s + DEADLINE_S)
        assert [b.submit(), b.submit()] == ["", ""]


async def test_a_key_finds_its_partition_in_a_smaller_topic() -> None:
    """A topic made anew with fewer partitions takes every key."""
    async with bench(4) as b:
        b.link.partitions = 2
        for key in range(8):
            assert b.submit(b"%d" % key) == ""
        await turn(lambda: len(set(b.client.places)) == 2)
        assert set(b.client.places) == {0, 1}


async def test_no_leader_is_trouble() -> None:
    """The brokers are asked for leaders as long as one is missing."""
    async with bench(2) as b:
        assert not b.writers.troubled()
        b.client.leader = -1
        await turn(b.writers.troubled)
        b.client.leader = 1
        await turn(lambda: not b.writers.troubled())
