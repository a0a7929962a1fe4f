"""Dead letters on a real broker that refuses, stops or freezes: held with a reason, and written once it is back."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
)

from services.uploader.dead_letter import DeadShare
from services.uploader.dead_letter_topic import CONDITION
from tests.harness.broker import Topic
from tests.harness.dead_letter_stand import (
    DEADLINE_S,
    bench,
    led,
    poison,
    true_in_the_end,
    until,
)

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka

MakeTopic = Callable[..., Topic]


@pytest.fixture
def topic(make_topic: MakeTopic) -> Topic:
    """A topic and its dead-letter topic on the shared broker."""
    return led(make_topic(1))


@pytest.fixture
def own_topic(own_kafka: "EmbeddedKafka", make_topic: MakeTopic) -> Topic:
    """The same on a broker that the test may stop and freeze."""
    return led(make_topic(1, bootstrap_servers=own_kafka.bootstrap_servers))


class _Refusing:
    """A producer of whose letters the broker says no, in ways that a broker of one node never does."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send_and_wait(self, *_: object, **__: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NotEnoughReplicasError(), "has fewer replicas in sync than its min.insync.replicas"),
        (NotEnoughReplicasAfterAppendError(), "has fewer replicas in sync than its min.insync.replicas"),
        (TopicAuthorizationFailedError("t"), "this client may not write to dead-letter topic"),
    ],
)
async def test_a_refusal_by_the_broker_holds_the_letter(topic: Topic, error: Exception, says: str) -> None:
    """Whatever is not an ack of all in-sync replicas is none; those that waited behind it share the reason."""
    async with bench(topic) as b:
        b.letters._producer = _Refusing(error)
        assert not any(await asyncio.gather(*(b.bury(poison(topic, offset)) for offset in range(3))))
        assert says in b.reason
        b.letters._producer = None
        await true_in_the_end(lambda: b.bury(poison(topic)))


async def test_over_the_share_poison_is_held_and_nothing_is_written(topic: Topic) -> None:
    """2 of the last 10: the third letter waits; the reason says what the operator can do; stored records make room."""
    async with bench(topic, share=DeadShare(0.2, 10)) as b:
        assert [await b.bury(poison(b.topic, offset)) for offset in range(4)] == [True, True, False, False]
        assert "2 poison records wait: 2 of the last 2 settled records were poison" in b.reason
        assert "DEAD_LETTER_SHARE_MAX" in b.reason
        assert "entity_too_large" in b.reason
        for _ in range(8):
            b.letters.settled()
        assert len(await b.written()) == 2
        assert [await b.bury(poison(b.topic, offset)) for offset in range(2, 5)] == [True, True, False]  # two have left
        b.letters.release(poison(b.topic, 4))
        await until(lambda: (b.held, b.reason) == (0, ""))
        assert len(await b.written()) == 4


async def test_what_is_stored_or_revoked_waits_no_more(topic: Topic) -> None:
    """Readiness holds again when the last held record is let go; and no sooner."""
    async with bench(topic, share=DeadShare(0.0)) as b:
        for offset in (1, 2):
            assert not await b.bury(poison(b.topic, offset))
        b.letters.release(poison(b.topic, 1))
        assert (b.held, CONDITION in b.readiness.reasons) == (1, True)
        b.letters.release(poison(b.topic, 7))  # never held: nothing changes
        b.letters.release(poison(b.topic, 2))
        await until(lambda: (b.held, b.reason) == (0, ""))


async def test_stopped_and_started_broker(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """While Kafka is away every letter is held, all waiters are told within one time-out, and afterwards they go."""
    async with bench(own_topic) as b:
        assert await b.bury(poison(own_topic, 0))
        await asyncio.to_thread(own_kafka.stop)
        async with asyncio.timeout(DEADLINE_S):
            assert not any(await asyncio.gather(*(b.bury(poison(own_topic, offset)) for offset in range(1, 30))))
        assert b.held == 29
        assert f"KAFKA_BOOTSTRAP_SERVERS={own_topic.bootstrap_servers}" in b.reason
        await asyncio.to_thread(own_kafka.start)
        for offset in range(1, 30):
            await true_in_the_end(lambda offset=offset: b.bury(poison(own_topic, offset)))  # type: ignore[misc]
        assert (b.held, b.reason) == (0, "")
        offsets = {dict(letter.headers)["dead.offset"] for letter in await b.written()}
        assert offsets == {b"%d" % offset for offset in range(30)}


async def test_frozen_broker(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """A broker that hangs holds a letter within a bound; a bury that is cancelled meanwhile ends at once and leaves no
    task; thawed, the same letter goes.
    """
    async with bench(own_topic) as b:
        assert await b.bury(poison(own_topic, 0))
        own_kafka.freeze()
        try:
            tasks = asyncio.all_tasks()
            cancelled = [asyncio.create_task(b.bury(poison(own_topic, offset))) for offset in (1, 2)]
            await until(b.letters._writing.locked)
            for task in cancelled:
                task.cancel()
            done, _ = await asyncio.wait(cancelled, timeout=1)
            assert len(done) == 2
            assert not b.letters._writing.locked()
            assert not await b.bury(poison(own_topic, 3))
            assert b.held == 1
        finally:
            own_kafka.thaw()
        await true_in_the_end(lambda: b.bury(poison(own_topic, 3)))
        await until(lambda: not b.reason)
        await until(lambda: not b.letters._closing)
        ours = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - tasks}  # type: ignore[union-attr]
        assert not {name for name in ours if "bury" in name or "stop_producer" in name}
        assert b"3" in {dict(letter.headers)["dead.offset"] for letter in await b.written()}


async def test_closing_is_bounded_while_the_broker_is_frozen(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """A letter on its way to a frozen broker does not keep the process from leaving."""
    try:
        async with asyncio.timeout(DEADLINE_S), bench(own_topic) as b:
            assert await b.bury(poison(own_topic, 0))
            own_kafka.freeze()
            stuck = asyncio.create_task(b.bury(poison(own_topic, 1)))
            await until(b.letters._writing.locked)
            stuck.cancel()
    finally:
        own_kafka.thaw()
