"""A Kafka broker inside the process: one topic, one group, and a script of what goes wrong with calls to it.

Owns logs with holes and a movable beginning, the group's commits and its generation. No socket, no clock; what its
clients do is `kafka_consumer.py`.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition

TIMESTAMP_MS = 1_795_521_600_000


class Hold:
    """A call that stays where it is until `release()`; then it goes on, or raises `error`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.entered = asyncio.Event()
        self.cancelled = False
        self._error = error
        self._go = asyncio.Event()

    def release(self) -> None:
        """Let it go on."""
        self._go.set()

    async def pass_by(self) -> None:
        """What the held call does."""
        self.entered.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._error is not None:
            raise self._error


Step = BaseException | Hold | None
"""What happens to one call: it raises, it is held, or nothing."""


@dataclass
class Log:
    """One partition's log: offsets from `begin` to `end` - 1; those of `records` have a record, others are holes."""

    tp: TopicPartition
    records: dict[int, ConsumerRecord] = field(default_factory=dict)  # in offset order
    begin: int = 0
    end: int = 0

    def append(self, count: int = 1, *, size_bytes: int = 0) -> range:
        """Append records, each with a value of its own; their offsets."""
        first = self.end
        for offset in range(first, first + count):
            value = f"{self.tp.partition}/{offset}".encode().ljust(size_bytes, b".")
            self.records[offset] = ConsumerRecord(
                self.tp.topic, self.tp.partition, offset, TIMESTAMP_MS, 1, None, value, None, -1, len(value), ()
            )
        self.end += count
        return range(first, self.end)

    def skip(self, count: int = 1) -> None:
        """Append offsets without a record: what compaction and markers of transactions leave."""
        self.end += count

    def delete_before(self, offset: int) -> None:
        """Retention: the log begins at `offset` now."""
        self.begin = max(self.begin, min(offset, self.end))
        self.records = {at: record for at, record in self.records.items() if at >= self.begin}

    def read(self, position: int, records_max: int | None) -> tuple[list[ConsumerRecord], int]:
        """Records from `position` on, and the position after them; behind trailing holes only if nothing was cut."""
        found: list[ConsumerRecord] = []
        for offset, record in self.records.items():
            if offset < position:
                continue
            found.append(record)
            if len(found) == records_max:
                return found, offset + 1
        return found, self.end


@dataclass(frozen=True)
class Commit:
    """A commit of one partition that the broker took. `by`: which consumer, counted from 0."""

    tp: TopicPartition
    offset: int
    metadata: str
    by: int


class Broker:
    """One topic, one group, and a script of what goes wrong."""

    def __init__(self, topic: str = "t", partitions: int = 1) -> None:
        self.topic = topic
        self.logs = {TopicPartition(topic, number): Log(TopicPartition(topic, number)) for number in range(partitions)}
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.commits: list[Commit] = []  # all that were taken, in order
        self.generation = 0  # of the group
        self.exists = True
        self.topic_id: str | None = "id-1"
        self.fetch_max = 500  # records of one partition that a fetch brings
        self.members = itertools.count()
        self.assign: Callable[[], Collection[TopicPartition]] = lambda: list(self.logs)  # what a newcomer gets
        self.on_commit: Callable[[TopicPartition, int], None] = lambda _tp, _offset: None
        self._script: dict[str, deque[Step]] = {}
        self._wakers: set[asyncio.Event] = set()

    def next(self, call: str, *steps: Step) -> None:
        """Let the next calls of this name meet these steps, one a call.

        Names are those of the client's methods; beside them `commit_answer`: the commit is taken, its answer is not
        there yet. A call beyond the script succeeds.
        """
        self._script.setdefault(call, deque()).extend(steps)

    def heal(self) -> None:
        """Forget what has not struck yet."""
        self._script.clear()

    def scripted(self, call: str) -> bool:
        """Whether the next call of this name meets a step."""
        return bool(self._script.get(call))

    async def meet(self, call: str) -> None:
        """Go through the next step of the script. Always a turn of the loop, as a network is."""
        steps = self._script.get(call)
        step = steps.popleft() if steps else None
        await asyncio.sleep(0)
        if isinstance(step, Hold):
            await step.pass_by()
        elif step is not None:
            raise step

    def append(self, count: int = 1, partition: int = 0, *, size_bytes: int = 0) -> range:
        """Append records to a partition and let waiting polls see them."""
        offsets = self.logs[TopicPartition(self.topic, partition)].append(count, size_bytes=size_bytes)
        self.wake()
        return offsets

    def take_commit(self, offsets: Mapping[TopicPartition, tuple[int, str]], by: int) -> None:
        """What the group coordinator does with a commit of the right generation."""
        for tp, (offset, metadata) in offsets.items():
            self.on_commit(tp, offset)
            self.committed[tp] = (offset, metadata)
            self.commits.append(Commit(tp, offset, metadata, by))

    @contextlib.contextmanager
    def waiter(self) -> Iterator[asyncio.Event]:
        """An event that is set when something changes."""
        event = asyncio.Event()
        self._wakers.add(event)
        try:
            yield event
        finally:
            self._wakers.discard(event)

    def wake(self) -> None:
        """Something changed."""
        for event in self._wakers:
            event.set()
