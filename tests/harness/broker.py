"""Kafka as a test sees it: a broker's address, topics of a test's own, and offsets read back from the broker.

Owns no broker; `conftest` chooses and starts one. Each question opens its own client and closes it: slow, but it can
be asked from any thread, also of a broker that was just restarted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import ConsumerRecord

T = TypeVar("T")

_MESSAGE_BYTES_MAX = 1_048_588  # Kafka's own default
_DEAD_EXTRA_BYTES = 64 * 1024  # DESIGN §3: room for the headers that a dead letter adds


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that answers. `kind` says where it came from, for the header of the report."""

    bootstrap_servers: str
    kind: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, its dead-letter topic and a consumer group that no other test has."""

    bootstrap_servers: str
    name: str
    partitions: int
    replicas: int = 1

    @property
    def min_insync(self) -> int:
        """How many replicas must have a record: all but one, where there are several."""
        return max(1, self.replicas - 1)

    @property
    def dead(self) -> str:
        """The name of its dead-letter topic."""
        return f"{self.name}.dead"

    @property
    def group(self) -> str:
        """The name of its consumer group."""
        return f"{self.name}.group"

    def environment(self) -> dict[str, str]:
        """The variables that point a tier here."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_TOPIC": self.name,
            "KAFKA_DEAD_TOPIC": self.dead,
            "KAFKA_GROUP_ID": self.group,
            "KAFKA_MIN_INSYNC": str(self.min_insync),
        }

    def create(self) -> None:
        """Make both topics, as `spillway-uploader topics` would."""
        _run(self._create())

    def ends(self) -> dict[int, int]:
        """The next offset that each partition will write, control records of transactions counted."""
        return _run(self._ends())

    def committed(self) -> dict[int, int]:
        """The group's committed offset by partition; a partition without a commit is absent."""
        return _run(self._committed())

    def lag(self) -> int:
        """Offsets between the group's commits and the ends, from 0 where there is no commit yet."""
        return _run(self._lag())

    def records(self) -> list[ConsumerRecord[bytes | None, bytes | None]]:
        """Every record of the topic, aborted ones left out, in the order of partitions and offsets."""
        return _run(self._records())

    async def _create(self) -> None:
        async with admin(self.bootstrap_servers) as client:
            answer = await client.create_topics(
                [
                    NewTopic(name, partitions, self.replicas, topic_configs=_topic_options(bytes_max, self.min_insync))
                    for name, partitions, bytes_max in (
                        (self.name, self.partitions, _MESSAGE_BYTES_MAX),
                        (self.dead, 1, _MESSAGE_BYTES_MAX + _DEAD_EXTRA_BYTES),
                    )
                ]
            )
        errors = [entry for entry in answer.topic_errors if entry[1] != 0]  # returned, never raised
        assert not errors, f"the broker did not make the topics: {errors}"

    async def _ends(self) -> dict[int, int]:
        async with _consumer(self.bootstrap_servers) as consumer:
            found = await consumer.end_offsets([TopicPartition(self.name, p) for p in range(self.partitions)])
        return {place.partition: offset for place, offset in found.items()}

    async def _committed(self) -> dict[int, int]:
        async with admin(self.bootstrap_servers) as client:
            found = await client.list_consumer_group_offsets(self.group)
        return {place.partition: at.offset for place, at in found.items() if place.topic == self.name}

    async def _lag(self) -> int:
        committed = await self._committed()
        return sum(end - committed.get(partition, 0) for partition, end in (await self._ends()).items())

    async def _records(self) -> list[ConsumerRecord[bytes | None, bytes | None]]:
        found = []
        async with _consumer(self.bootstrap_servers) as consumer:
            for partition, end in (await self._ends()).items():
                place = TopicPartition(self.name, partition)
                consumer.assign([place])
                await consumer.seek_to_beginning(place)
                while await consumer.position(place) < end:  # the position, and not a record: there may be holes
                    batch = await consumer.getmany(place, timeout_ms=200)
                    found += batch.get(place, [])
        return found


def _topic_options(message_bytes_max: int, min_insync: int) -> dict[str, str]:
    return {
        "min.insync.replicas": str(min_insync),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(message_bytes_max),
    }


def _run(question: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await question

    return asyncio.run(bounded())


@contextlib.asynccontextmanager
async def admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed at the end."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=10_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _consumer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


@contextlib.asynccontextmanager
async def producer(bootstrap_servers: str, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer that is not ours: a foreign one, with transactions if it has an id for them."""
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", transactional_id=transactional_id, request_timeout_ms=10_000
    )
    try:
        await client.start()
        yield client
    finally:
        await client.stop()
