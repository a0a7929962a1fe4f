"""The uploader's dead letters on a real topic, without an uploader: what the tests of them share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from services.uploader.dead_letter import DeadShare
from services.uploader.dead_letter_topic import CONDITION, DeadLetters
from services.uploader.errors import PoisonRecord
from services.uploader.settings import UploaderSettings
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics
from tests.harness.broker import Topic

DEADLINE_S = 40
LIVE_BYTES_MAX = 1_048_588
TOO_LARGE = PoisonRecord("entity_too_large", "S3 answered 400 EntityTooLarge: Ünïcödé")
Header = tuple[str, bytes | None]


def led(topic: Topic) -> Topic:
    """Once its dead-letter topic has a leader that answers: a topic that was just made may have none yet."""
    assert Topic(topic.bootstrap_servers, topic.dead, 1).ends() == {0: 0}
    return topic


@dataclass
class Bench:
    """The letters under test and what they say."""

    letters: DeadLetters
    topic: Topic
    readiness: Readiness
    registry: CollectorRegistry

    @property
    def reason(self) -> str:
        return self.readiness.reasons.get(CONDITION, "")

    @property
    def held(self) -> float | None:
        return self.registry.get_sample_value("spillway_uploader_dead_letters_held")

    @property
    def counted(self) -> float | None:
        return self.registry.get_sample_value("spillway_uploader_dead_letters_total", {"reason": "entity_too_large"})

    async def bury(self, raw: ConsumerRecord) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self.letters.bury(raw, TOO_LARGE, 1)

    async def written(self) -> list[ConsumerRecord]:
        """What the dead-letter topic holds."""
        dead = Topic(self.topic.bootstrap_servers, self.topic.dead, 1)
        return await asyncio.to_thread(dead.records)


@asynccontextmanager
async def bench(topic: Topic, *, share: DeadShare | None = None, min_insync: int = 1) -> AsyncIterator[Bench]:
    settings = UploaderSettings(
        s3_bucket="bucket",
        kafka_bootstrap_servers=topic.bootstrap_servers,
        kafka_topic=topic.name,
        kafka_dead_topic=topic.dead,
        kafka_min_insync=min_insync,
    )
    readiness, registry = Readiness(CONDITION), CollectorRegistry()
    letters = DeadLetters(settings, readiness, UploaderMetrics(registry), share or DeadShare(1.0))
    async with letters:
        yield Bench(letters, topic, readiness, registry)


async def until(condition: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.05)


async def true_in_the_end(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask as a partition's worker would, until it is told True."""
    async with asyncio.timeout(DEADLINE_S):
        while not await question():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


def poison(
    topic: Topic,
    offset: int = 0,
    *,
    key: bytes | None = b"key",
    value: bytes = b"value",
    headers: Sequence[Header] = (),
) -> ConsumerRecord:
    return ConsumerRecord(
        topic=topic.name,
        partition=2,
        offset=offset,
        timestamp=1_795_521_600_123,
        timestamp_type=1,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=len(value),
        headers=tuple(headers),
    )
