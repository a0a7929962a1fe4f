"""The scripted consumer and aiokafka's own answer the same questions the same way: what the core's tests rest on."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from services.uploader.consumer import consumer_client
from services.uploader.settings import UploaderSettings
from tests.fakes.kafka_broker import Broker, Hold
from tests.fakes.kafka_consumer import ScriptedConsumer
from tests.harness.broker import Topic, admin, producer
from tests.harness.core_bench import turns, until


class Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is not typed
    """Keeps what it was told; holds a callback up while its gate is not set."""

    def __init__(self) -> None:
        self.told: list[tuple[str, set[TopicPartition]]] = []
        self.gate = asyncio.Event()  # of the assigned callback
        self.gate.set()
        self.revoke_gate = asyncio.Event()
        self.revoke_gate.set()
        self.error: Exception | None = None  # of the revoke callback

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.told.append(("revoked", set(revoked)))
        await self.revoke_gate.wait()
        if self.error is not None:
            raise self.error

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", set(assigned)))
        await self.gate.wait()

    def assignments(self) -> int:
        return sum(what == "assigned" for what, _ in self.told)


class World(Protocol):
    """A topic of two partitions, and a member of its group that holds both."""

    client: Any
    listener: Listener
    zero: TopicPartition
    one: TopicPartition

    async def append(self, tp: TopicPartition, count: int) -> None: ...

    async def abort(self, tp: TopicPartition, count: int) -> None:
        """Leave offsets without a record at the log's end."""

    async def delete_before(self, tp: TopicPartition, offset: int) -> None: ...

    async def evict(self) -> None:
        """Let the group go on without the member, that does not know."""

    def request_rebalance(self) -> None: ...

    async def hold_commits(self) -> Callable[[], None]:
        """Hold the next commit up before it is sent; what lets it go."""


class FakeWorld:
    """On the scripted broker."""

    def __init__(self) -> None:
        self.broker = Broker("t", 2)
        self.client = ScriptedConsumer(self.broker)
        self.listener = Listener()
        self.zero, self.one = self.broker.logs

    async def append(self, tp: TopicPartition, count: int) -> None:
        self.broker.append(count, tp.partition)

    async def abort(self, tp: TopicPartition, count: int) -> None:
        self.broker.logs[tp].skip(count + 1)  # and the marker

    async def delete_before(self, tp: TopicPartition, offset: int) -> None:
        self.broker.logs[tp].delete_before(offset)

    async def evict(self) -> None:
        self.client.evict()

    def request_rebalance(self) -> None:
        self.client.request_rebalance([self.zero, self.one])

    async def hold_commits(self) -> Callable[[], None]:
        hold = Hold()
        self.broker.next("commit", hold)
        return hold.release


class RealWorld:
    """On the broker that all tests share."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        settings = UploaderSettings(
            s3_bucket="bucket",
            kafka_bootstrap_servers=topic.bootstrap_servers,
            kafka_topic=topic.name,
            kafka_group_id=topic.group,
        )
        self.client: AIOKafkaConsumer = consumer_client(settings)
        self.listener = Listener()
        self.zero, self.one = (TopicPartition(topic.name, number) for number in range(2))

    async def append(self, tp: TopicPartition, count: int) -> None:
        async with producer(self.topic.bootstrap_servers) as client:
            for number in range(count):
                await client.send_and_wait(tp.topic, b"%d" % number, partition=tp.partition)

    async def abort(self, tp: TopicPartition, count: int) -> None:
        async with producer(self.topic.bootstrap_servers, uuid.uuid4().hex) as client:
            await client.begin_transaction()
            for number in range(count):
                await client.send_and_wait(tp.topic, b"%d" % number, partition=tp.partition)
            await client.abort_transaction()

    async def delete_before(self, tp: TopicPartition, offset: int) -> None:
        async with admin(self.topic.bootstrap_servers) as client:
            await client.delete_records({tp: RecordsToDelete(before_offset=offset)})

    async def evict(self) -> None:
        self.client._coordinator.generation -= 1  # what it believes is what an evicted member believes

    def request_rebalance(self) -> None:
        self.client._coordinator.request_rejoin()

    async def hold_commits(self) -> Callable[[], None]:
        lock: asyncio.Lock = self.client._coordinator._commit_lock
        await lock.acquire()
        return lock.release


MakeWorld = Callable[[], AbstractAsyncContextManager[World]]


@pytest.fixture(params=["fake", "aiokafka"])
def world(request: pytest.FixtureRequest) -> MakeWorld:
    """Makes a world whose member has been assigned both partitions."""
    topic = request.getfixturevalue("make_topic")(2) if request.param == "aiokafka" else None

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[World]:
        w: FakeWorld | RealWorld = FakeWorld() if topic is None else RealWorld(topic)
        await w.client.start()
        try:
            w.client.subscribe([w.zero.topic], listener=w.listener)
            await until(w.listener.assignments)
            yield w
        finally:
            w.listener.gate.set()
            w.listener.revoke_gate.set()
            await w.client.stop()

    return make


async def poll(w: World, *tps: TopicPartition, records_max: int | None = None) -> dict[TopicPartition, list[int]]:
    """Offsets of the first poll that brings records."""
    for _ in range(100):
        found = await w.client.getmany(*tps, timeout_ms=200, max_records=records_max)
        if found:
            return {tp: [record.offset for record in records] for tp, records in found.items()}
    raise AssertionError(f"no records of {tps}")


async def test_the_listener_is_told_of_nothing_revoked_and_then_of_everything(world: MakeWorld) -> None:
    """At the first join: an empty revoke, then the whole assignment."""
    async with world() as w:
        assert w.listener.told == [("revoked", set()), ("assigned", {w.zero, w.one})]


async def test_a_poll_moves_the_position_behind_what_it_brought(world: MakeWorld) -> None:
    """Up to `max_records`, in order; the rest comes with the next poll."""
    async with world() as w:
        await w.append(w.zero, 5)
        w.client.seek(w.zero, 0)
        assert await poll(w, w.zero, records_max=3) == {w.zero: [0, 1, 2]}
        assert await w.client.position(w.zero) == 3
        assert await poll(w, w.zero) == {w.zero: [3, 4]}
        assert await w.client.position(w.zero) == 5
        w.client.seek(w.zero, 1)
        assert await poll(w, w.zero, records_max=1) == {w.zero: [1]}


async def test_max_records_counts_over_all_partitions(world: MakeWorld) -> None:
    """No poll brings more, of however many partitions."""
    async with world() as w:
        await w.append(w.zero, 4)
        await w.append(w.one, 4)
        w.client.seek(w.zero, 0)
        w.client.seek(w.one, 0)
        seen: list[tuple[TopicPartition, int]] = []
        while len(seen) < 8:
            found = await poll(w, w.zero, w.one, records_max=3)
            assert sum(len(offsets) for offsets in found.values()) <= 3
            seen += [(tp, offset) for tp, offsets in found.items() for offset in offsets]
        assert sorted(seen) == [(tp, offset) for tp in (w.zero, w.one) for offset in range(4)]


async def test_a_poll_of_a_partition_that_nobody_holds_brings_nothing(world: MakeWorld) -> None:
    """It is how one asks for none: an empty list means all."""
    async with world() as w:
        await w.append(w.zero, 1)
        w.client.seek(w.zero, 0)
        w.client.seek(w.one, 0)
        for _ in range(3):
            assert await w.client.getmany(TopicPartition(w.zero.topic, -1), timeout_ms=100) == {}
        assert await poll(w) == {w.zero: [0]}


async def test_the_position_moves_over_trailing_holes(world: MakeWorld) -> None:
    """Behind an aborted transaction the position reaches the end, and no record comes."""
    async with world() as w:
        await w.append(w.zero, 2)
        await w.abort(w.zero, 2)
        w.client.seek(w.zero, 0)
        while (await w.client.end_offsets([w.zero]))[w.zero] < 5:  # noqa: ASYNC110 - the marker is written a moment later
            await asyncio.sleep(0.01)
        assert await poll(w, w.zero) == {w.zero: [0, 1]}
        for _ in range(50):
            assert await w.client.getmany(w.zero, timeout_ms=100) == {}
            if await w.client.position(w.zero) == 5:
                return
        raise AssertionError("the position stays before the holes")


async def test_no_commit_and_no_seek_is_an_error_to_who_asks(world: MakeWorld) -> None:
    """With `auto_offset_reset="none"`; a poll of other partitions does not meet it."""
    async with world() as w:
        await w.append(w.one, 1)
        w.client.seek(w.one, 0)
        assert await poll(w, w.one) == {w.one: [0]}
        with pytest.raises(NoOffsetForPartitionError):
            await poll(w, w.zero)


async def test_a_position_out_of_range_is_an_error_that_names_it(world: MakeWorld) -> None:
    """Below the log's beginning: OffsetOutOfRangeError({tp: position}); other partitions go on, a seek heals it."""
    async with world() as w:
        await w.append(w.zero, 5)
        await w.append(w.one, 1)
        await w.delete_before(w.zero, 3)
        assert (await w.client.beginning_offsets([w.zero]))[w.zero] == 3
        w.client.seek(w.one, 0)
        w.client.seek(w.zero, 1)
        assert await poll(w, w.one) == {w.one: [0]}
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await poll(w, w.zero)
        assert caught.value.args[0] == {w.zero: 1}
        w.client.seek(w.zero, 3)
        assert await poll(w, w.zero) == {w.zero: [3, 4]}


async def test_commits_are_read_back(world: MakeWorld) -> None:
    """None before the first; then the offset, given with a note or without."""
    async with world() as w:
        assert await w.client.committed(w.zero) is None
        await w.client.commit({w.zero: 3})
        assert await w.client.committed(w.zero) == 3
        await w.client.commit({w.zero: (2, "a note"), w.one: (7, "")})
        assert (await w.client.committed(w.zero), await w.client.committed(w.one)) == (2, 7)


async def test_what_is_not_assigned_can_be_neither_committed_nor_sought_nor_asked_for_its_position(
    world: MakeWorld,
) -> None:
    """IllegalStateError, each time."""
    async with world() as w:
        other = TopicPartition(w.zero.topic, 9)
        with pytest.raises(IllegalStateError):
            await w.client.commit({other: 1})
        with pytest.raises(IllegalStateError):
            w.client.seek(other, 1)
        with pytest.raises(IllegalStateError):
            await w.client.position(other)


async def test_a_commit_of_a_generation_that_is_over_is_refused(world: MakeWorld) -> None:
    """CommitFailedError, and the commit is not taken."""
    async with world() as w:
        await w.evict()
        with pytest.raises(CommitFailedError):
            await w.client.commit({w.zero: 3})
        assert await w.client.committed(w.zero) is None


async def test_a_commit_takes_the_generation_of_the_moment_it_is_sent(world: MakeWorld) -> None:
    """Held up over a rebalance it passes in the new generation: it would rewind whoever has committed since."""
    async with world() as w:
        release = await w.hold_commits()
        late = asyncio.create_task(w.client.commit({w.zero: 3}))
        await turns(10)
        w.request_rebalance()
        await until(lambda: w.listener.assignments() == 2)
        release()
        await late
        assert await w.client.committed(w.zero) == 3


async def test_a_commit_that_is_cancelled_before_it_is_sent_never_passes(world: MakeWorld) -> None:
    """That is what a bound around it is for."""
    async with world() as w:
        release = await w.hold_commits()
        late = asyncio.create_task(w.client.commit({w.zero: 3}))
        await turns(10)
        late.cancel()
        await asyncio.wait({late})
        release()
        await w.client.commit({w.one: 1})
        assert await w.client.committed(w.zero) is None


async def test_a_commit_that_was_sent_is_not_taken_back_by_a_cancel(world: MakeWorld) -> None:
    """The broker takes it: a caller that gave up must not conclude that it did not happen."""
    async with world() as w:
        sent = asyncio.create_task(w.client.commit({w.zero: 3}))
        await turns(10)
        sent.cancel()
        await asyncio.wait({sent})
        await w.client.commit({w.one: 1})
        assert await w.client.committed(w.zero) == 3


async def test_a_poll_waits_out_a_rebalance_whatever_its_timeout(world: MakeWorld) -> None:
    """While the revoke callback runs no poll returns, be its time-out 0."""
    async with world() as w:
        w.listener.revoke_gate.clear()
        w.request_rebalance()
        await until(lambda: len(w.listener.told) == 3)
        waiting = asyncio.create_task(w.client.getmany(TopicPartition(w.zero.topic, -1), timeout_ms=0))
        await turns(100)
        assert not waiting.done()
        w.listener.revoke_gate.set()
        assert await waiting == {}


async def test_after_a_rebalance_records_come_from_the_commit_and_before_the_callback_returns(world: MakeWorld) -> None:
    """Positions begin at the commit again, whatever was sought; a poll does not wait for the callback."""
    async with world() as w:
        await w.append(w.zero, 5)
        await w.client.commit({w.zero: 2})
        w.client.seek(w.zero, 0)
        assert await poll(w, w.zero) == {w.zero: [0, 1, 2, 3, 4]}
        w.listener.gate.clear()
        w.request_rebalance()
        await until(lambda: w.listener.assignments() == 2)
        assert await poll(w, w.zero) == {w.zero: [2, 3, 4]}
        w.listener.gate.set()


async def test_what_the_revoke_callback_raises_changes_nothing(world: MakeWorld) -> None:
    """It is only logged: the assignment follows, and polls go on."""
    async with world() as w:
        await w.append(w.zero, 1)
        w.listener.error = ValueError("of the callback")
        w.request_rebalance()
        await until(lambda: w.listener.assignments() == 2)
        assert w.listener.told[2:] == [("revoked", {w.zero, w.one}), ("assigned", {w.zero, w.one})]
        w.client.seek(w.zero, 0)
        assert await poll(w, w.zero) == {w.zero: [0]}


async def test_topics_and_their_partitions(world: MakeWorld) -> None:
    """What there is, and None for what there is not."""
    async with world() as w:
        assert w.zero.topic in await w.client.topics()
        assert w.client.partitions_for_topic(w.zero.topic) == {0, 1}
        assert w.client.partitions_for_topic("no-such-topic") is None


async def test_a_stopped_client_ends_the_poll_that_waits_and_refuses_the_next(world: MakeWorld) -> None:
    """The one returns nothing, the other raises ConsumerStoppedError."""
    async with world() as w:
        w.client.seek(w.zero, 0)
        w.client.seek(w.one, 0)
        waiting = asyncio.create_task(w.client.getmany(timeout_ms=20_000))
        await asyncio.sleep(0)
        await w.client.stop()
        assert await waiting == {}
        with pytest.raises(ConsumerStoppedError):
            await w.client.getmany()
