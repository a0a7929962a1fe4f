"""A Kafka producer and the link to it as the writers of tier 1 see them: batches are answered by the test."""

import asyncio

from aiokafka.producer.message_accumulator import BatchBuilder

LIMIT = 4000
"""`max.message.bytes` of the topic."""

Answer = Exception | None


class ScriptedClient:
    """A producer's two calls. Each batch waits until the test answers it.

    Attributes:
        batches: record counts of the batches that were sent, in order.
        places: their partitions.
        leader: of every partition.
        gate: where set to an event that is not, a batch is not taken before it is set.

    """

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.places: list[int] = []
        self.leader: int | None = 1
        self.gate: asyncio.Event | None = None
        self._open: asyncio.Queue[asyncio.Future[object]] = asyncio.Queue()

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(2**30, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        del topic
        if self.gate is not None:
            await self.gate.wait()
        self.batches.append(batch.record_count())
        self.places.append(partition)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._open.put_nowait(answer)
        return answer

    @property
    def in_flight(self) -> int:
        return self._open.qsize()

    async def answer(self, *answers: Answer) -> None:
        """Answer the next batches that are still waited for, one after the other."""
        for error in answers:
            while (waiting := await asyncio.wait_for(self._open.get(), 5)).done():
                pass
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)


class Link:
    """What the writers need of the Kafka link."""

    refusal = None
    message_bytes_max = LIMIT

    def __init__(self, producer: ScriptedClient, partitions: int = 1) -> None:
        self.producer = producer
        self.partitions = partitions
        self.rechecks = 0
        self.refreshes = 0
        self.acks = 0
        self.ends = 0  # of produces, good or bad
        self.broken: list[str] = []

    def can_send(self, _place: object) -> bool:
        return self.producer.leader not in {None, -1}

    def refresh(self) -> None:
        self.refreshes += 1

    def acked(self) -> None:
        self.acks += 1

    def moved(self) -> None:
        self.ends += 1

    def recheck_topic(self) -> None:
        self.rechecks += 1

    async def rechecked(self, bound_s: float) -> None:
        del bound_s
        self.rechecks += 1

    def replace(self, reason: str) -> None:
        self.broken.append(reason)
