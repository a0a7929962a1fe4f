"""Taking partitions, finding where each starts, and letting them go, against a broker that does it all by script."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaConnectionError

from services.uploader import assignment as assignment_module
from services.uploader import committer as committer_module
from services.uploader import retry
from services.uploader.assignment import Assignment
from services.uploader.retry import Backoff
from tests.fakes.kafka_broker import Broker, Hold
from tests.fakes.kafka_consumer import ScriptedConsumer
from tests.fakes.script import ACCESS_DENIED, Cut
from tests.harness.core_bench import DEADLINE_S, Bench, settings, turns, until

TP = TopicPartition("t", 0)
OTHER = TopicPartition("t", 1)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment_module, "POSITION_RETRY_S", 0.001)


@dataclass
class Group:
    """An assignment that a client in the group calls; nobody polls but the test."""

    bench: Bench
    client: ScriptedConsumer
    assignment: Assignment

    def positioned(self, tp: TopicPartition = TP) -> bool:
        """Whether it is known where the partition starts."""
        return tp in self.assignment.table and self.assignment.table[tp].positioned

    async def poll(self) -> None:
        """As the poll task does."""
        self.assignment.admit(await self.client.getmany(timeout_ms=0))


@contextlib.asynccontextmanager
async def joined(broker: Broker, **given: Any) -> AsyncIterator[Group]:
    bench = Bench(broker, settings(**given))
    client = bench.new_client()
    await client.start()
    async with asyncio.TaskGroup() as group:
        assignment = bench.assignment(client, group, bench.committer(client))
        client.subscribe(["t"], listener=assignment)
        await until(lambda: assignment.table)
        try:
            yield Group(bench, client, assignment)
        finally:
            await assignment.leave()
            await client.stop()
    assert bench.wrong_commits == []
    assert client.callback_errors == []


def _committed(broker: Broker, offset: int, tp: TopicPartition = TP, note: str = "topic-id=id-1") -> None:
    broker.committed[tp] = (offset, note)


# -- polled too early


async def test_what_is_polled_before_the_start_is_known_is_sought_back_to() -> None:
    """Records may come before it is known where to start. They are not admitted (older ones may follow), and not lost:
    the next poll brings them again.
    """
    broker = Broker()
    _committed(broker, 0)
    broker.append(5)
    asked = Hold()
    broker.next("committed", asked)
    async with joined(broker) as g:
        await asked.entered.wait()
        await g.poll()
        assert len(g.assignment.table[TP].window) == 0
        assert await g.client.position(TP) == 0
        asked.release()
        await until(g.positioned)
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_what_is_polled_without_a_window_is_sought_back_to() -> None:
    """Records of a partition that is in no table (the callback was not called yet) are not dropped: the position has
    moved behind them, and nobody would read them again.
    """
    broker = Broker()
    broker.append(5)
    async with joined(broker) as g:
        await until(g.positioned)
        partition = g.assignment.table.pop(TP)
        await g.poll()
        assert await g.client.position(TP) == 0
        g.assignment.table[TP] = partition
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_records_that_come_before_the_callback_are_stored() -> None:
    """The client may return records of a new assignment before it calls `on_partitions_assigned`."""
    broker = Broker()
    _committed(broker, 0)
    broker.append(5)
    async with joined(broker) as g:
        await until(g.positioned)
        before = Hold()
        broker.next("assigned", before)
        moved = g.client.request_rebalance([TP])
        await before.entered.wait()
        await g.poll()
        before.release()
        await moved
        await until(g.positioned)
        await g.poll()
        await until(lambda: not g.bench.missing())


# -- where to start


@pytest.mark.parametrize(
    ("committed", "begin", "end", "starts"),
    [
        (None, 0, 10, 0),  # no commit: the beginning
        (None, 4, 10, 4),  # and not 0, which retention took
        (7, 4, 10, 7),
        (10, 4, 10, 10),  # at the end: nothing to read
    ],
)
async def test_where_a_partition_starts(committed: int | None, begin: int, end: int, starts: int) -> None:
    """At the commit; without one at the log's beginning. Nothing counts as lost."""
    broker = Broker()
    broker.append(end)
    broker.logs[TP].delete_before(begin)
    if committed is not None:
        _committed(broker, committed)
    async with joined(broker) as g:
        await until(g.positioned)
        assert await g.client.position(TP) == starts
        assert g.bench.value("lost_records_total", partition="0") == 0


async def test_what_retention_took_is_named_exactly(caplog: pytest.LogCaptureFixture) -> None:
    """A commit below the log's beginning: the lost range in the log and in the counter; then work goes on."""
    broker = Broker()
    broker.append(10)
    broker.logs[TP].delete_before(6)
    _committed(broker, 2)
    async with joined(broker) as g:
        await until(g.positioned)
        assert await g.client.position(TP) == 6
        assert g.bench.value("lost_records_total", partition="0") == 4  # 2, 3, 4, 5
        [line] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert (line.__dict__["first_lost"], line.__dict__["last_lost"]) == (2, 5)
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_an_end_below_the_commit_is_doubted() -> None:
    """A new leader may show an old end for a moment: asked again, the commit holds, and nothing is read twice."""
    broker = Broker()
    broker.append(5)
    _committed(broker, 8)
    asked = Hold()
    broker.next("end_offsets", None, None, asked)
    async with joined(broker) as g:
        await asked.entered.wait()
        broker.append(5)
        asked.release()
        await until(g.positioned)
        assert await g.client.position(TP) == 8


async def test_an_end_that_stays_below_the_commit_is_another_log() -> None:
    """After many answers the log counts as made anew, and is read from its beginning."""
    broker = Broker()
    broker.append(5)
    _committed(broker, 8)
    async with joined(broker) as g:
        await until(g.positioned)
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_a_commit_for_another_topic_of_the_name_is_void() -> None:
    """The new log has outgrown the old commit: only the id in its note tells. The log is read from its beginning."""
    broker = Broker()
    broker.append(10)
    _committed(broker, 8, note="topic-id=of-old")
    async with joined(broker) as g:
        await until(g.positioned)
        assert await g.client.position(TP) == 0


@pytest.mark.parametrize("question", ["committed", "note", "beginning_offsets", "end_offsets"])
async def test_a_broker_that_does_not_answer_is_asked_again(question: str) -> None:
    """No question's failure decides where to start, and none ends the session."""
    broker = Broker()
    broker.append(5)
    _committed(broker, 3)
    broker.next(question, KafkaConnectionError(), KafkaConnectionError())
    async with joined(broker) as g:
        await until(g.positioned)
        assert await g.client.position(TP) == 3


async def test_a_question_that_the_client_cancels_ends_the_session_aloud() -> None:
    """A task group takes a cancelled task for a finished one: the partition would stand still in silence."""
    broker = Broker()
    broker.next("committed", asyncio.CancelledError())

    async def session() -> None:
        async with asyncio.timeout(DEADLINE_S), joined(broker):
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await session()
    assert caught.group_contains(ConsumerStoppedError)


# -- letting go


async def test_a_revoke_commits_what_is_on_the_wire_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts on the wire are awaited and committed; the one that sleeps in backoff is not waited for; what was only
    polled is neither stored nor committed, and comes again.
    """
    monkeypatch.setattr(retry, "ENVIRONMENT", Backoff(base_s=1e6, cap_s=1e6))
    broker = Broker(partitions=2)
    broker.append(20)
    broker.append(20, 1)
    async with joined(broker, max_workers=4, drain_timeout_s=5) as g:
        await until(lambda: g.positioned() and g.positioned(OTHER))
        hang = g.bench.store.script.inject(Cut.STORE_THEN_HANG, times=4, key=lambda key: "/t-0-" in key)
        denied = g.bench.store.script.inject(ACCESS_DENIED, key=lambda key: "/t-1-" in key, times=4)
        await g.poll()
        await until(lambda: g.bench.store.in_flight == 4 and denied.hits == 4 and hang.hits == 4)
        denied.heal()
        moved = g.client.request_rebalance([TP, OTHER])
        await turns(20)
        assert not moved.done()
        hang.heal()
        async with asyncio.timeout(DEADLINE_S):
            await moved
        assert g.bench.wrong_commits == []
        await until(lambda: g.positioned() and g.positioned(OTHER))
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_a_put_that_hangs_and_a_commit_that_hangs_hold_a_revoke_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The drain time-out and the commit's own bound the revoke; then the partition is let go, and comes again whole."""
    monkeypatch.setattr(committer_module, "COMMIT_TIMEOUT_S", 0.02)
    broker = Broker()
    broker.append(5)
    async with joined(broker, max_workers=2, drain_timeout_s=0.02) as g:
        await until(g.positioned)
        g.bench.store.script.inject(Cut.HANG, times=1)
        held = Hold()
        broker.next("commit", held)
        await g.poll()
        await until(lambda: g.bench.store.in_flight == 1)
        async with asyncio.timeout(DEADLINE_S):
            await g.client.rebalance([])
        assert g.assignment.table == {}
        await g.client.rebalance([TP])
        await until(g.positioned)
        await g.poll()
        await until(lambda: not g.bench.missing())


async def test_a_commit_that_fails_on_a_revoke_does_not_keep_the_partition() -> None:
    """Logged, never fatal: the next owner repeats the same keys."""
    broker = Broker()
    broker.append(5)
    async with joined(broker) as g:
        await until(g.positioned)
        await g.poll()
        await until(lambda: not g.bench.missing())
        broker.next("commit", RuntimeError("of the client"))
        await g.client.rebalance([])
        assert g.assignment.table == {}
        g.client.callback_errors.clear()  # aiokafka logs it


async def test_what_completes_after_the_revoke_is_not_committed() -> None:
    """A second commit of the same partition would come under the next owner's eyes, or generation."""
    broker = Broker()
    broker.append(5)
    async with joined(broker) as g:
        await until(g.positioned)
        old = g.assignment.table[TP]
        await g.poll()
        await until(lambda: not g.bench.missing())
        await g.client.rebalance([TP])
        assert g.bench.committed() == 5
        taken = len(broker.commits)
        old.window.follow(99)
        await g.client.rebalance([])
        assert [commit for commit in broker.commits[taken:] if commit.offset > 5] == []


async def test_nobody_leaves_twice_and_nothing_is_taken_after_leaving() -> None:
    """The session ends in the middle of a rebalance: the assignment that follows is not taken, for nobody would commit
    it, and both ends of the revoke return.
    """
    broker = Broker()
    broker.append(5)
    async with joined(broker, max_workers=1, drain_timeout_s=5) as g:
        await until(g.positioned)
        hang = g.bench.store.script.inject(Cut.HANG, times=1)
        await g.poll()
        await until(lambda: g.bench.store.in_flight == 1)
        moved = g.client.request_rebalance([TP])
        left = asyncio.create_task(g.assignment.leave())
        await turns(20)
        hang.heal()
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(moved, left)
        assert g.assignment.table == {}
        assert g.assignment.hungry()[0] == []


async def test_leaving_while_the_start_is_not_known() -> None:
    """The question that is under way ends with the session; nothing is committed for a start that nobody knows."""
    broker = Broker()
    broker.append(5)
    broker.next("beginning_offsets", Hold())
    async with joined(broker) as g:
        await turns(10)
        async with asyncio.timeout(DEADLINE_S):
            await g.assignment.leave()
        assert broker.commits == []


# -- a position that the log no longer has


async def test_a_position_that_retention_overtook_costs_only_what_it_took() -> None:
    """What is in memory is stored and committed, the range that is gone is counted, and reading goes on behind it."""
    broker = Broker()
    broker.append(5)
    async with joined(broker, max_workers=1) as g:
        await until(g.positioned)
        hang = g.bench.store.script.inject(Cut.STORE_THEN_HANG, times=1)
        await g.poll()
        await until(lambda: g.bench.store.in_flight == 1)
        broker.append(10)
        broker.logs[TP].delete_before(8)
        g.assignment.out_of_range({TP: 5})
        assert not g.positioned()
        await until(g.positioned)
        assert await g.client.position(TP) == 8
        assert g.bench.value("lost_records_total", partition="0") == 3  # 5, 6, 7
        hang.heal()
        await g.poll()
        await until(lambda: not g.bench.missing())
        assert {(0, at) for at in range(5)} <= g.bench.stored
