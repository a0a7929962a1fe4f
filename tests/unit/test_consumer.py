"""The group consumer through everything that its client, the broker and the store may do to it, by script."""

import asyncio
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from services.uploader import consumer as consumer_module
from services.uploader.settings import COMMIT_TIMEOUT_S
from tests.fakes.kafka_broker import Broker, Hold
from tests.fakes.script import Cut
from tests.harness.core_bench import DEADLINE_S, Bench, running, settings, shorten, turns, until

TP = TopicPartition("t", 0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def bench(partitions: int = 1, **given: Any) -> Bench:
    return Bench(Broker(partitions=partitions), settings(**given))


# -- what is polled is admitted


async def test_everything_is_stored_and_the_commits_reach_the_ends() -> None:
    """Four partitions, holes in the middle and at the end: every record an object, every commit at the log's end."""
    b = bench(4)
    for number, log in enumerate(b.broker.logs.values()):
        log.append(50 * number)
        log.skip(3)
        log.append(20)
        log.skip(2)
    async with running(b):
        await until(b.done)
    assert len(b.clients) == 1


async def test_no_turn_of_the_loop_lies_between_a_poll_and_its_admission() -> None:
    """In such a turn a revoke and an assignment could pass: the new window would take records ahead of older ones."""
    b = bench(2)
    gaps: list[TopicPartition] = []

    def admitted(polled: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        gaps.extend(tp for tp, records in polled.items() if len(b.table[tp].window) < len(records))

    async with running(b):
        await b.joined()
        b.client.after_poll = admitted
        for partition in (0, 1, 0):
            b.broker.append(10, partition)
            await until(b.done)
    assert gaps == []
    assert len(b.clients) == 1


async def test_a_poll_that_began_before_a_rebalance_brings_what_is_assigned_after_it() -> None:
    """The poll waits out the rebalance and returns at the committed position, before the start is known again."""
    b = bench()
    async with running(b):
        await b.joined()
        b.broker.append(5)
        await until(b.done)
        asked = Hold()
        b.broker.next("committed", asked)
        await b.client.rebalance()
        await asked.entered.wait()
        b.broker.append(5)
        polls = len(b.client.polls)
        await until(lambda: len(b.client.polls) > polls)
        asked.release()
        await until(b.done)
    assert len(b.clients) == 1


# -- a session that breaks


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("getmany", KafkaError("of the fetcher")),
        ("getmany", ValueError("unexpected")),
        ("getmany", asyncio.CancelledError()),  # the poll task ends, and a task group says nothing of it
        ("commit", ValueError("unexpected")),  # the clock
        ("retention", asyncio.CancelledError()),  # the lookout
        ("retention", ValueError("unexpected")),
        ("committed", asyncio.CancelledError()),  # positioning
    ],
)
async def test_whatever_ends_a_task_of_the_session_a_new_session_begins(call: str, step: BaseException) -> None:
    """An error, or a cancellation from inside the client: nobody stands still, and everything is stored."""
    b = bench()
    b.broker.append(20)
    b.broker.next(call, step)
    async with running(b):
        await until(lambda: len(b.clients) == 2 and b.done())
    assert b.value("consumer_restarts_total") == 1
    assert all(client.stopped for client in b.clients)
    assert all(view.closed for view in b.views)


@pytest.mark.parametrize("remade", [True, False])
async def test_a_topic_made_anew_is_counted_whoever_met_it_first(
    *, remade: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a poll ends the session before the lookout has seen the other id, it is counted and told all the same."""
    b = bench()
    async with running(b):
        await b.joined()
        b.broker.next("getmany", KafkaError("no such topic"))
        if remade:
            b.broker.topic_id = "id-2"
        await until(lambda: len(b.clients) == 2)
        b.broker.append(5)
        await until(b.done)
    assert b.value("topic_remade_total") == remade
    assert ("the topic was made anew" in caplog.text) == remade


@pytest.mark.parametrize("call", ["start", "view_start", "topics", "topic_id"])
@pytest.mark.parametrize("step", [KafkaConnectionError(), asyncio.CancelledError(), OSError("unexpected")])
async def test_a_session_that_does_not_start_is_followed_by_one_that_does(call: str, step: BaseException) -> None:
    """However the start fails, readiness names Kafka meanwhile, and the next session does the work."""
    b = bench()
    b.broker.append(20)
    held = Hold()
    b.broker.next(call, step, held)
    async with running(b):
        await held.entered.wait()
        assert "KAFKA_BOOTSTRAP_SERVERS" in b.readiness.reasons.get("kafka", "") or call in {"topics", "topic_id"}
        held.release()
        await until(b.done)


async def test_a_client_that_hangs_at_its_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen broker: after START_TIMEOUT_S the client is closed and another tried."""
    monkeypatch.setattr(consumer_module, "START_TIMEOUT_S", 0.02)
    b = bench()
    b.broker.append(5)
    b.broker.next("start", Hold())
    async with running(b):
        await until(b.done)
    assert len(b.clients) == 2


@pytest.mark.parametrize("step", [KafkaError(), asyncio.CancelledError(), OSError("unexpected"), None])
async def test_a_client_that_does_not_close_ends_nothing(
    step: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing fails, is cancelled from inside (aiokafka's fetcher does that while the broker is away), or hangs: the
    second client is closed too, and a new session begins.
    """
    monkeypatch.setattr(consumer_module, "STOP_TIMEOUT_S", 0.02)
    b = bench()
    b.broker.append(5)
    b.broker.next("getmany", KafkaError())
    b.broker.next("stop", Hold() if step is None else step)
    async with running(b):
        await until(lambda: len(b.clients) == 2 and b.done())
    assert all(view.closed for view in b.views)


async def test_a_failed_poll_makes_positions_worthless() -> None:
    """A poll may fail behind records that it has drained: from then on no position is taken for a commit."""
    b = bench()
    client = b.new_client()
    await client.start()
    committer = b.committer(client)
    async with asyncio.TaskGroup() as group:
        assignment = b.assignment(client, group, committer)
        client.subscribe(["t"], listener=assignment)
        await until(lambda: b.committed() is None and TP in assignment.table and assignment.table[TP].positioned)
        b.broker.next("getmany", KafkaError())
        with pytest.raises(KafkaError):
            await b.consumer()._poll(client, assignment, committer)
        client.seek(TP, 7)
        clock = group.create_task(committer.run(assignment.table))
        await until(lambda: b.broker.commits)  # where it starts, 0
        b.broker.next("commit_answer", None)
        assignment.table[TP].window.follow(1)
        await until(lambda: b.committed() == 1)
        clock.cancel()
        await assignment.leave()
    await client.stop()


async def test_it_waits_for_the_topic_and_says_so() -> None:
    """No topic: readiness names it; once it is there, work begins in the same session."""
    b = bench()
    b.broker.exists = False
    b.broker.append(5)
    async with running(b):
        await until(lambda: "KAFKA_TOPIC=t does not exist" in b.readiness.reasons.get("topic", ""))
        b.broker.exists = True
        await until(b.done)
        assert "topic" not in b.readiness.reasons
    assert len(b.clients) == 1


async def test_what_retention_takes_under_a_running_session_is_counted_and_ends_nothing() -> None:
    """The position is out of range: the exact range is counted, other partitions go on, in the same session."""
    b = bench(2)
    async with running(b):
        await b.joined()
        held = Hold()
        b.broker.next("getmany", held)
        await held.entered.wait()
        b.broker.logs[TP].append(10)
        b.broker.logs[TP].delete_before(4)
        b.broker.logs[TopicPartition("t", 1)].append(10)
        held.release()
        await until(b.done)
        assert b.value("lost_records_total", partition="0") == 4  # 0, 1, 2, 3
    assert len(b.clients) == 1


# -- the end


async def test_stop_commits_what_is_stored() -> None:
    """Nothing that was stored is left uncommitted, though the clock would not have come for a minute."""
    b = bench(commit_interval_s=40)
    b.broker.append(20)
    async with running(b):
        await until(lambda: not b.missing())
    assert b.committed() == 20


@pytest.mark.parametrize("call", ["getmany", "committed", "beginning_offsets", "assigned", "retention", "topics"])
async def test_stop_while_the_client_hangs(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a poll, while a start is sought, in a rebalance, or before the group was joined: stop ends it."""
    monkeypatch.setattr(consumer_module, "STOP_TIMEOUT_S", 0.02)
    b = bench()
    b.broker.append(5)
    held = Hold()
    b.broker.next(call, held)
    async with running(b):
        await held.entered.wait()
        if call == "topics":
            held.release()  # it has a bound of the client's own
    assert "left the group" in b.readiness.reasons["assignment"] or call == "topics"


async def test_stop_in_a_revoke_that_drains() -> None:
    """The put on the wire is awaited once more, stored and committed; the assignment that follows is not taken."""
    b = bench(drain_timeout_s=5, max_workers=1)
    b.broker.append(5)
    async with running(b) as consumer:
        await b.joined()
        put = b.store.script.inject(Cut.STORE_THEN_HANG, times=1)
        await until(lambda: put.hits)
        moved = b.client.request_rebalance([TP])
        await turns(10)
        consumer.stop()
        await until(lambda: b.readiness.reasons.get("assignment") == "left the group")
        put.heal()
        await moved
        assert b.table == {}


async def test_a_session_that_cannot_be_ended_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose stop hangs in spite of its cancellation: the process is given up, with a message."""
    monkeypatch.setattr(consumer_module, "END_MARGIN_S", 0.01)
    monkeypatch.setattr(consumer_module, "STOP_TIMEOUT_S", DEADLINE_S)
    b = bench()
    consumer = b.consumer()
    run = asyncio.create_task(consumer.run())
    await b.joined()
    held = Hold()
    b.broker.next("stop", held)
    consumer.stop()
    await until(lambda: any("closing the Kafka client" in message for message in b.gave_up))
    held.release()
    await run


async def test_a_long_drain_is_no_hang() -> None:
    """DRAIN_TIMEOUT_S=120: the process is not given up while puts have their time, and commits and closing theirs."""
    b = bench(drain_timeout_s=120, kafka_rebalance_timeout_s=130, kafka_request_timeout_s=140)
    assert b.consumer().end_timeout_s > 120 + 2 * COMMIT_TIMEOUT_S + 2 * consumer_module.STOP_TIMEOUT_S
