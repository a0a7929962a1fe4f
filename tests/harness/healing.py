"""When Kafka is whole again, as a client of the test's own finds out: from then on ingest has 5 s to follow."""

import asyncio
import time
from collections.abc import Collection

from aiokafka.errors import KafkaError

from tests.harness.broker import Topic, producer
from tests.harness.rule_following import CANARY
from tests.harness.waiting import until

OPEN_DEADLINE_S = 5
"""Within what admission opens by itself after Kafka is whole again."""

_TRY_BOUND_S = 4


def wait_healed(topic: Topic, partitions: Collection[int] | None = None, *, deadline_s: float = 60) -> float:
    """Wait until every partition (or these) acknowledges a record of the test's own; the moment, monotonic.

    Raises:
        AssertionError: they do not by the deadline.

    """
    until(
        lambda: _takes(topic, range(topic.partitions) if partitions is None else partitions),
        "Kafka to take records of a client of the test",
        deadline_s=deadline_s,
    )
    return time.monotonic()


def _takes(topic: Topic, partitions: Collection[int]) -> bool:
    async def write() -> None:
        async with asyncio.timeout(_TRY_BOUND_S), producer(topic.bootstrap_servers) as plain:
            for partition in partitions:
                await plain.send_and_wait(topic.name, b"1", partition=partition, headers=[(CANARY, b"1")])

    try:
        asyncio.run(write())
    except (KafkaError, TimeoutError, OSError):
        return False
    return True
