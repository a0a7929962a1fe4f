"""Commits on a scripted broker: refused, late, hanging, failing, and what an empty window may follow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaError

from services.uploader import committer as committer_module
from services.uploader.committer import Committer
from services.uploader.partition import Partition
from tests.fakes.kafka_broker import Broker, Hold
from tests.fakes.kafka_consumer import ScriptedConsumer
from tests.harness.core_bench import DEADLINE_S, Bench, settings, turns, until

TP = TopicPartition("t", 0)
PULSE = TopicPartition("t", 1)


@dataclass
class Desk:
    """A committer whose client holds the topic's partitions."""

    bench: Bench
    client: ScriptedConsumer
    committer: Committer
    group: asyncio.TaskGroup

    def partition(self, committable: int | None = None, committed: int | None = 0) -> Partition:
        """A positioned partition with nothing in flight."""
        partition = self.bench.partition(TP, self.group)
        if committable is not None:
            partition.start_at(committable, committed)
        return partition

    @property
    def taken(self) -> list[int]:
        """The offsets of TP that the broker took, in order."""
        return [commit.offset for commit in self.bench.broker.commits if commit.tp == TP]


@contextlib.asynccontextmanager
async def desk(**given: object) -> AsyncIterator[Desk]:
    bench = Bench(Broker(partitions=2), settings(**given))
    bench.broker.logs[TP].skip(100)
    client = bench.new_client()
    await client.start()
    client.subscribe(["t"])
    await until(lambda: TP in client.assignment())
    async with asyncio.TaskGroup() as group:
        yield Desk(bench, client, bench.committer(client), group)
    await client.stop()


async def test_a_partition_that_was_let_go_is_never_committed() -> None:
    """What completes after the revoke is in no table, and its offset does not reach the broker."""
    async with desk() as d:
        await d.committer.commit([d.partition(5)], {})
        assert d.taken == []


async def test_the_old_object_of_a_reassigned_partition_is_never_committed() -> None:
    """The same partition in a new assignment is another object: the old one's offset is not committed in its name."""
    async with desk() as d:
        old, new = d.partition(9), d.partition(5)
        await d.committer.commit([old], {TP: new})
        assert d.taken == []
        await d.committer.commit([old, new], {TP: new})
        assert d.taken == [5]


async def test_only_what_moved_is_committed_and_notes_the_topic() -> None:
    """No commit repeats the last one, an unknown offset is none, and each carries the id of the topic it is for."""
    async with desk() as d:
        partition = d.partition(5, committed=5)
        await d.committer.commit([partition, d.partition()], {TP: partition})
        assert d.taken == []
        partition.window.follow(6)
        for _ in range(3):
            await d.committer.commit([partition], {TP: partition})
        assert d.taken == [6]
        assert d.bench.broker.committed[TP] == (6, "topic-id=id-1")


async def test_a_hanging_commit_is_given_up_and_never_goes_out_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within COMMIT_TIMEOUT_S the caller is free. Let go after a rebalance, the held commit does not pass under the
    generation of then: it would rewind whoever has committed since.
    """
    monkeypatch.setattr(committer_module, "COMMIT_TIMEOUT_S", 0.02)
    async with desk() as d:
        hold = Hold()
        d.bench.broker.next("commit", hold)
        partition = d.partition(5)
        async with asyncio.timeout(DEADLINE_S):
            await d.committer.commit([partition], {TP: partition})
        assert hold.cancelled
        await d.client.rebalance()
        hold.release()
        await d.client.rebalance()
        assert d.taken == []
        assert partition.committed == 0


async def test_one_commit_at_a_time() -> None:
    """While one commit waits for its answer no second is sent: two answers that overtake each other would rewind."""
    async with desk() as d:
        answer = Hold()
        d.bench.broker.next("commit_answer", answer)
        partition = d.partition(5)
        first = asyncio.create_task(d.committer.commit([partition], {TP: partition}))
        await answer.entered.wait()
        partition.window.follow(7)
        second = asyncio.create_task(d.committer.commit([partition], {TP: partition}))
        await turns(20)
        assert d.taken == [5]
        answer.release()
        await asyncio.gather(first, second)
        assert d.taken == [5, 7]


@pytest.mark.parametrize(
    "error",
    [
        CommitFailedError(),
        KafkaConnectionError(),
        TimeoutError(),
        asyncio.CancelledError(),  # from inside the client: it would end aiokafka's coordination in a revoke
    ],
)
async def test_a_failed_commit_is_counted_and_made_up_for_by_the_next(error: BaseException) -> None:
    """A failure is never raised (it would end a revoke or the clock), and is not taken for a commit."""
    async with desk() as d:
        d.bench.broker.next("commit", error)
        partition = d.partition(5)
        await d.committer.commit([partition], {TP: partition})
        assert d.taken == []
        assert d.bench.value("commits_total", outcome="failed") == 1
        await d.committer.commit([partition], {TP: partition})
        assert d.taken == [5]
        assert d.bench.value("commits_total", outcome="committed") == 1


async def test_a_member_that_was_evicted_commits_nothing() -> None:
    """The group went on without us: the broker refuses, and nothing of ours rewinds the next owner."""
    async with desk() as d:
        d.client.evict()
        partition = d.partition(5)
        await d.committer.commit([partition], {TP: partition})
        assert d.taken == []


async def test_a_member_without_a_generation_commits_nothing() -> None:
    """It was evicted and knows it. The broker would take a commit of no generation while the group is empty, and a
    member that thaws after its successor has stored, committed and left would set the group back.
    """
    async with desk() as d:
        partition = d.partition(5)
        d.client.generation = d.bench.broker.generation = -1  # the broker of the fake takes it, as Kafka does
        await d.committer.commit([partition], {TP: partition})
        assert d.taken == []


async def test_after_forbid_nothing_is_committed() -> None:
    """The topic is another one: no offset of this session means anything for it."""
    async with desk() as d:
        d.committer.forbid()
        partition = d.partition(5)
        await d.committer.commit([partition], {TP: partition})
        assert d.taken == []


@contextlib.asynccontextmanager
async def clock(d: Desk, table: dict[TopicPartition, Partition]) -> AsyncIterator[None]:
    run = asyncio.create_task(d.committer.run(table))
    try:
        yield
    finally:
        run.cancel()
        await asyncio.wait({run})


async def test_many_stored_records_do_not_wait_for_the_clock() -> None:
    """COMMIT_RECORDS stored records are committed long before COMMIT_INTERVAL_S is over."""
    async with desk(commit_interval_s=40, commit_records=3) as d:
        partition = d.partition(0)
        async with clock(d, {TP: partition}):
            partition.window.follow(3)
            await until(lambda: d.taken == [3])


async def test_an_empty_window_follows_the_position() -> None:
    """Behind trailing markers the position is committed, so that the lag reaches 0."""
    async with desk() as d:
        partition = d.partition(5, committed=5)
        d.client.seek(TP, 100)
        async with clock(d, {TP: partition}):
            await until(lambda: d.taken == [100])


async def _rounds(d: Desk, table: dict[TopicPartition, Partition]) -> None:
    """Let the clock go round three times: another partition that moves is committed each time."""
    pulse = d.bench.partition(PULSE, d.group)
    pulse.start_at(0, 0)
    table[PULSE] = pulse
    for offset in range(1, 4):
        pulse.window.follow(offset)
        await until(lambda offset=offset: pulse.committed == offset)  # type: ignore[misc] # a lambda's default
    del table[PULSE]


@pytest.mark.parametrize("why", ["distrusted", "not positioned", "in flight"])
async def test_a_position_is_not_followed_where_it_may_stand_behind_unread_records(why: str) -> None:
    """After a failed poll, before the start is known, and while anything is in flight, the position is no commit."""
    async with desk() as d:
        partition = d.partition(5, committed=5)
        d.client.seek(TP, 100)
        match why:
            case "distrusted":
                d.committer.distrust_positions()
            case "not positioned":
                partition.positioned = False
            case _:
                partition.window.admit(50, 1, 0)
        table = {TP: partition}
        async with clock(d, table):
            await _rounds(d, table)
        assert d.taken == []


async def test_a_position_that_comes_after_a_reassignment_is_not_followed() -> None:
    """The client answers when the table holds the next assignment's object: neither takes the position."""
    async with desk() as d:
        await d.client.rebalance()  # the position is unknown again, so that the question waits
        old, new = d.partition(5, committed=5), d.partition(5, committed=5)
        new.positioned = False
        table = {TP: old}
        async with clock(d, table):
            await until(lambda: d.client.position_askers)
            table[TP] = new
            d.client.seek(TP, 100)
            await _rounds(d, table)
        assert d.taken == []
        assert (old.window.committable, new.window.committable) == (5, 5)


async def test_a_broker_that_does_not_tell_a_position_does_not_stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that hangs or fails costs its own bound, and the commits go on."""
    monkeypatch.setattr(committer_module, "POSITION_TIMEOUT_S", 0.01)
    async with desk() as d:
        await d.client.rebalance()  # no position: the question hangs
        partition = d.partition(5)
        async with clock(d, {TP: partition}):
            await until(lambda: d.taken == [5])
            d.bench.broker.next("commit", KafkaError())
            partition.window.follow(6)
            await until(lambda: d.taken == [5, 6])


@pytest.mark.parametrize("later", range(4))
async def test_a_clock_that_is_stopped_as_its_commit_is_answered_stops(later: int) -> None:
    """A session ends whatever moment its end comes at: a clock that went on would hold it, and its successor, for ever.
    `later`: how many turns of the loop lie between the answer and the cancellation.
    """
    async with desk(commit_interval_s=0.01) as d:
        asked, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def commit(_offsets: object) -> None:
            asked.set()
            await answer

        d.client.commit = commit  # type: ignore[method-assign]
        clock = asyncio.create_task(d.committer.run({TP: d.partition(committable=5)}))
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        answer.set_result(None)
        await turns(later)
        clock.cancel()
        await asyncio.wait({clock}, timeout=DEADLINE_S)
        assert clock.cancelled()
