"""What the broker tells of a topic beside its records: the id that a remade topic does not share, retention, notes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

from services.uploader.topic_view import Retention, TopicView, commit_note, noted_id
from shared.kafka import KafkaSettings
from tests.harness.broker import Broker, Topic

DEADLINE_S = 20


@contextlib.asynccontextmanager
async def view_of(broker: Broker, name: str) -> AsyncIterator[Any]:
    view = TopicView(KafkaSettings(kafka_bootstrap_servers=broker.bootstrap_servers, kafka_topic=name))
    try:
        await view.start()
        yield view
    finally:
        await view.close()


async def until_id(view: TopicView, *, exists: bool) -> str | None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await view.topic_id()
            if (found is not None) == exists:
                return found
            await asyncio.sleep(0.05)


async def test_a_topic_made_anew_has_another_id(kafka: Broker, make_topic: Callable[..., Topic]) -> None:
    """Same name, same number of partitions: only the id tells; without a topic there is none."""
    topic = await asyncio.to_thread(make_topic, partitions=1)
    async with view_of(kafka, topic.name) as view:
        first = await until_id(view, exists=True)
        assert await view.topic_id() == first, "an id does not change"
        await view.delete_topics([topic.name])
        assert await until_id(view, exists=False) is None
        await view.create_topics([NewTopic(topic.name, 1, 1)])
        assert await until_id(view, exists=True) not in {None, first}


async def test_retention_as_the_topic_has_it(kafka: Broker) -> None:
    """In milliseconds; -1 is without end; a size limit is told; a topic that is not there has none."""
    made = {
        "view-hour": ({"retention.ms": "3600000"}, Retention(3_600_000, by_size=False)),
        "view-ever": ({"retention.ms": "-1"}, Retention(None, by_size=False)),
        "view-size": ({"retention.ms": "5000", "retention.bytes": "1000"}, Retention(5000, by_size=True)),
    }
    async with view_of(kafka, "view-none") as view:
        assert await view.retention() is None
        await view.create_topics([NewTopic(name, 1, 1, topic_configs=options) for name, (options, _) in made.items()])
    for name, (_, expected) in made.items():
        async with view_of(kafka, name) as view:
            await until_id(view, exists=True)
            assert await view.retention() == expected
            await view.delete_topics([name])


async def test_a_commit_keeps_the_id_that_it_was_made_for(kafka: Broker, make_topic: Callable[..., Topic]) -> None:
    """What the committer writes beside the offset is what the next owner of the partition reads."""
    topic = await asyncio.to_thread(make_topic, partitions=1)
    at = TopicPartition(topic.name, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=topic.group, enable_auto_commit=False
    )
    async with view_of(kafka, topic.name) as view:
        topic_id = await until_id(view, exists=True)
        await consumer.start()
        try:
            consumer.assign([at])
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        assert await view.note(topic.group, at) is None, "there is no commit yet"
                        break
                    except GroupCoordinatorNotAvailableError:  # the broker's first group makes its topic
                        await asyncio.sleep(0.05)
            await consumer.commit({at: (0, commit_note(topic_id))})
            assert noted_id(await view.note(topic.group, at)) == topic_id
            await consumer.commit({at: (0, "somebody else's note")})
            assert noted_id(await view.note(topic.group, at)) is None
        finally:
            await consumer.stop()
