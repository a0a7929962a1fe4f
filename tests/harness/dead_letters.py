"""Dead letters as a test puts them into their topic: written as the uploader writes them, without one that runs.

Owns the shape of a letter as DESIGN §7 gives it, and not as the code has it.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.harness.broker import Topic, admin, producer


@dataclass(frozen=True, slots=True)
class Buried:
    """A record that became a dead letter. `record_id` None: it was a foreign one."""

    record_id: str | None
    value: bytes = b'{"a": 1}'
    reason: str = "entity_too_large"
    message: str = "S3 answered 400 EntityTooLarge"
    folder: str | None = None
    partition: int = 0
    offset: int = 0
    timestamp_ms: int = 1_795_521_600_000

    def headers(self, topic: Topic) -> list[tuple[str, bytes]]:
        """The record's own, then those that a letter adds."""
        own = [("spillway-id", self.record_id), ("spillway-folder", self.folder)]
        return [
            *((name, value.encode()) for name, value in own if value is not None),
            ("dead.topic", topic.name.encode()),
            ("dead.partition", b"%d" % self.partition),
            ("dead.offset", b"%d" % self.offset),
            ("dead.timestamp", b"%d" % self.timestamp_ms),
            ("dead.error", self.reason.encode()),
            ("dead.message", self.message.encode()),
            ("dead.attempts", b"1"),
        ]


def bury(topic: Topic, letters: Iterable[Buried | bytes]) -> list[int]:
    """Write them to partition 0 of the dead-letter topic, bytes as a record that is no letter; their offsets."""

    async def write() -> list[int]:
        async with producer(topic.bootstrap_servers) as client:
            sent = [
                await client.send(topic.dead, each, partition=0)
                if isinstance(each, bytes)
                else await client.send(topic.dead, each.value, partition=0, headers=each.headers(topic))
                for each in letters
            ]
            return [(await one).offset for one in sent]

    return asyncio.run(write())


def delete_before(topic: Topic, offset: int) -> None:
    """Let retention take the letters below this offset."""

    async def delete() -> None:
        async with admin(topic.bootstrap_servers) as client:
            await client.delete_records({TopicPartition(topic.dead, 0): RecordsToDelete(before_offset=offset)})

    asyncio.run(delete())
