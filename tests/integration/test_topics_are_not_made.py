"""On a broker as brokers are by default, which makes a topic of one partition when it is asked for by name."""

import asyncio
from collections.abc import Iterator

import pytest

from deploy.local.kafka import EmbeddedKafka
from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic, admin
from tests.harness.commands import Commands
from tests.harness.processes import Processes
from tests.harness.tiers import start_uploader
from tests.harness.waiting import until


@pytest.fixture
def making(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this test's own, that makes topics."""
    broker = EmbeddedKafka(tmp_path_factory.mktemp("making"), properties={"auto.create.topics.enable": "true"})
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def test_nobody_makes_a_topic_by_asking(making: EmbeddedKafka, processes: Processes, fake_s3: FakeS3) -> None:
    """The uploader waits for its topics and says so, and no command of the operator's makes one: it would have one
    partition, and the broker's own retention.
    """
    topic = Topic(making.bootstrap_servers, "payloads", 12)
    fake_s3.create_bucket("bucket")
    uploader = start_uploader(processes, topic, fake_s3.environment(), "bucket")
    until(lambda: "does not exist" in uploader.reasons().get("topic", ""), "the reason", deadline_s=40)
    environment = {**topic.environment(), **fake_s3.environment(), "S3_BUCKET": "bucket"}
    commands = Commands(processes, environment)
    for command in (
        ("replay", "--from", "1h"),
        ("verify", "--from", "1h"),
        ("lag",),
        ("redrive",),
        ("dead-letters", "list"),
    ):
        ran = commands.run(*command)
        assert ran.code != 0, f"{command}: {ran}"
        assert "does not exist" in ran.err, f"{command}: {ran}"
    assert "Traceback" not in uploader.process.output()
    assert asyncio.run(_names(making.bootstrap_servers)) <= {"__consumer_offsets"}


async def _names(bootstrap_servers: str) -> set[str]:
    async with admin(bootstrap_servers) as client:
        return set(await client.list_topics())
