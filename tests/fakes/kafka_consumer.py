"""A Kafka broker and its consumers inside the process, for races that no real broker can be made to show at will.

Stands for `aiokafka.AIOKafkaConsumer` as far as the uploader uses it, and passes the same contract suite. Owns no
socket and no clock: what goes wrong is the broker's script (`Broker.next`), a rebalance comes when the test says so.

What it keeps of aiokafka 0.14, because data hangs on it:
- `getmany` moves positions when it returns, without a turn of the loop in between; it waits out a rebalance whatever
  its time-out says; an error of one partition comes only when no other has records, and only to who asks for it.
- Records of a new assignment may be polled before `on_partitions_assigned` was called.
- What a revoke callback raises is logged and changes nothing.
- A commit takes the generation when it is sent: one that was held up passes under the generation of then. Once sent,
  cancelling it does not take it back.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from tests.fakes.kafka_broker import Broker

Order = tuple[Collection[TopicPartition], "asyncio.Future[None]"]


@dataclass(frozen=True)
class Poll:
    """What a `getmany` asked for, and what it brought."""

    asked: tuple[TopicPartition, ...]
    records_max: int | None
    brought: dict[TopicPartition, int]


class ScriptedConsumer:
    """A member of the group. Has to be started."""

    def __init__(self, broker: Broker) -> None:
        self.number = next(broker.members)
        self.polls: list[Poll] = []  # those that returned
        self.callback_errors: list[BaseException] = []  # what the listener raised; aiokafka only logs it
        self.after_poll: Callable[[dict[TopicPartition, list[ConsumerRecord]]], None] | None = None
        """Called one turn of the loop after a poll returned records."""
        self.position_askers = 0  # how often `position` had to wait
        self.stopped = False
        self.generation = -1
        self.listener: ConsumerRebalanceListener | None = None
        self._broker = broker
        self._assigned: frozenset[TopicPartition] | None = None  # stays the old one while the group is joined anew
        self._positions: dict[TopicPartition, int] = {}
        self._turn: deque[TopicPartition] = deque()  # in which order partitions are drained; a drained one goes last
        self._reassigning = True
        self._subscribed = False
        self._rebalances: asyncio.Queue[Order | None] = asyncio.Queue()
        self._coordination: asyncio.Task[None] | None = None

    @property
    def _coordinator(self) -> "ScriptedConsumer":
        """Where aiokafka keeps its generation."""
        return self

    # -- life

    async def start(self) -> None:
        await self._broker.meet("start")

    async def stop(self) -> None:
        """Ends coordination, not before a callback that is running has returned; a poll that waits returns nothing."""
        if self.stopped:
            return
        self.stopped = True
        self._broker.wake()
        await self._broker.meet("stop")
        if self._coordination is not None:
            self._rebalances.put_nowait(None)
            await asyncio.wait({self._coordination})
        if self._broker.generation == self.generation:
            self._broker.generation += 1  # the group goes on without this member

    def subscribe(self, topics: Iterable[str], *, listener: ConsumerRebalanceListener | None = None) -> None:
        assert list(topics) == [self._broker.topic]
        self.listener = listener
        self._subscribed = True
        self._coordination = asyncio.create_task(self._coordinate())
        self.request_rebalance(self._broker.assign())

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these, outside any group."""
        self._assigned = frozenset(partitions)
        self._positions = {}
        self._turn = deque(sorted(self._assigned))
        self._reassigning = False

    # -- rebalances, when the test says so

    def request_rebalance(self, to: Collection[TopicPartition]) -> "asyncio.Future[None]":
        """Revoke everything, assign `to`; done when both callbacks have returned."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rebalances.put_nowait((to, done))
        return done

    async def rebalance(self, to: Collection[TopicPartition] | None = None) -> None:
        """`request_rebalance`, awaited; None: the same partitions again."""
        await self.request_rebalance(self.assignment() if to is None else to)

    def evict(self) -> None:
        """The group goes on without this member, which has not heard of it yet."""
        self._broker.generation += 1

    async def _coordinate(self) -> None:
        while (order := await self._rebalances.get()) is not None:
            to, done = order
            self._reassigning = True
            await self._call("on_partitions_revoked", set(self.assignment()))
            self._broker.generation += 1
            self.generation = self._broker.generation
            self._assigned = frozenset(to)
            self._positions = {}
            self._turn = deque(sorted(self._assigned))
            self._reassigning = False
            self._broker.wake()
            await self._broker.meet("assigned")  # aiokafka awaits here, and polls return what is assigned now
            await self._call("on_partitions_assigned", set(self._assigned))
            if not done.done():
                done.set_result(None)

    async def _call(self, name: str, tps: set[TopicPartition]) -> None:
        if self.listener is None:
            return
        try:
            callback: Callable[[set[TopicPartition]], Awaitable[None]] = getattr(self.listener, name)
            await callback(tps)
        except Exception as error:  # noqa: BLE001 - as aiokafka does
            self.callback_errors.append(error)

    def assignment(self) -> frozenset[TopicPartition]:
        return self._assigned or frozenset()

    # -- polling

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        if self.stopped:
            raise ConsumerStoppedError
        if max_records is not None and max_records < 1:
            raise ValueError("`max_records` must be a positive Integer")
        if self._coordination is not None and self._coordination.done():
            self._coordination.result()
        await self._script_poll()
        loop = asyncio.get_running_loop()
        due_s = loop.time() + timeout_ms / 1000
        while True:
            with self._broker.waiter() as changed:
                while self._reassigning and not self.stopped:
                    await changed.wait()
                    changed.clear()
                drained = {} if self.stopped else self._drain(partitions, max_records)
                if drained or self.stopped or loop.time() >= due_s:
                    return self._returned(partitions, max_records, drained)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due_s):
                        await changed.wait()

    async def _script_poll(self) -> None:
        if self._broker.scripted("getmany"):  # without a script a poll that has records takes no turn of the loop
            await self._broker.meet("getmany")

    def _drain(
        self, asked: tuple[TopicPartition, ...], records_max: int | None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        drained: dict[TopicPartition, list[ConsumerRecord]] = {}
        for tp in list(self._turn):
            if asked and tp not in asked:
                continue
            error = self._error_of(tp)
            if error is not None:
                if drained:
                    break
                raise error
            room = self._broker.fetch_max if records_max is None else min(records_max, self._broker.fetch_max)
            records, self._positions[tp] = self._broker.logs[tp].read(self._positions[tp], room)
            if not records:
                continue
            self._turn.remove(tp)
            self._turn.append(tp)
            drained[tp] = records
            if records_max is not None:
                records_max -= len(records)
                if records_max == 0:
                    break
        return drained

    def _error_of(self, tp: TopicPartition) -> Exception | None:
        error: Exception | None = None
        if tp not in self._positions and tp in self._broker.committed:
            self._positions[tp] = self._broker.committed[tp][0]
        log, position = self._broker.logs[tp], self._positions.get(tp)
        if position is None:
            error = NoOffsetForPartitionError(tp)
        elif not log.begin <= position <= log.end:
            error = OffsetOutOfRangeError({tp: position})
        return error

    def _returned(
        self,
        asked: tuple[TopicPartition, ...],
        records_max: int | None,
        drained: dict[TopicPartition, list[ConsumerRecord]],
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        self.polls.append(Poll(asked, records_max, {tp: len(records) for tp, records in drained.items()}))
        if drained and self.after_poll is not None:
            asyncio.get_running_loop().call_soon(self.after_poll, drained)
        return drained

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp not in self.assignment():
            raise IllegalStateError(f"No current assignment for partition {tp}")
        self._positions[tp] = offset
        self._broker.wake()

    async def position(self, tp: TopicPartition) -> int:
        with self._broker.waiter() as changed:
            while True:
                if tp not in self.assignment():
                    raise IllegalStateError(f"Partition {tp} is not assigned")
                if tp not in self._positions and tp in self._broker.committed:
                    self._positions[tp] = self._broker.committed[tp][0]
                if tp in self._positions:
                    return self._positions[tp]
                self.position_askers += 1
                await changed.wait()
                changed.clear()

    # -- offsets

    async def commit(self, offsets: Mapping[TopicPartition, int | tuple[int, str]]) -> None:
        if not self._subscribed or self._assigned is None:
            raise IllegalStateError("No partitions assigned")
        for tp in offsets:
            if tp not in self._assigned:
                raise IllegalStateError(f"Partition {tp} is not assigned")
        await self._broker.meet("commit")  # aiokafka tries again here, for ever
        if self.generation != self._broker.generation:
            raise CommitFailedError("the group has already rebalanced")
        self._broker.take_commit(
            {tp: at if isinstance(at, tuple) else (at, "") for tp, at in offsets.items()}, self.number
        )
        await self._broker.meet("commit_answer")

    async def committed(self, tp: TopicPartition) -> int | None:
        await self._broker.meet("committed")
        return self._broker.committed[tp][0] if tp in self._broker.committed else None

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._broker.meet("beginning_offsets")
        return {tp: self._broker.logs[tp].begin for tp in tps}

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._broker.meet("end_offsets")
        return {tp: self._broker.logs[tp].end for tp in tps}

    async def topics(self) -> set[str]:
        await self._broker.meet("topics")
        return {self._broker.topic} if self._broker.exists else set()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        if topic != self._broker.topic or not self._broker.exists:
            return None
        return {tp.partition for tp in self._broker.logs}


class ScriptedView:
    """Stands for `services.uploader.topic_view.TopicView`."""

    def __init__(self, broker: Broker) -> None:
        self.closed = False
        self._broker = broker

    async def start(self) -> None:
        await self._broker.meet("view_start")

    async def close(self) -> None:
        self.closed = True

    async def topic_id(self) -> str | None:
        await self._broker.meet("topic_id")
        return self._broker.topic_id

    async def note(self, _group_id: str, tp: TopicPartition) -> str | None:
        await self._broker.meet("note")
        return self._broker.committed[tp][1] if tp in self._broker.committed else None

    async def retention(self) -> None:
        """The topic's retention is not known."""
        await self._broker.meet("retention")
