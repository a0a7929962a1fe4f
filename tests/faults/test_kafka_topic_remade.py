"""A topic deleted and made anew under its name: old offsets mean other records, and the new topic is stored whole."""

import asyncio
import uuid
from collections.abc import Callable, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic, admin, producer
from tests.harness.load import payloads
from tests.harness.oracle import Answers, missing
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

OLD = 60
"""Records of the topic that is deleted, and so the position that the uploader has in it."""


@pytest.fixture
def one_partition(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs yet; the topic has 1 partition."""
    return Pipeline(processes, make_topic(partitions=1), fake_s3)


@pytest.mark.parametrize("count", [OLD // 3, OLD * 3], ids=["shorter", "outgrown"])
def test_remade_under_a_running_uploader(one_partition: Pipeline, count: int) -> None:
    """Every record of the new topic is stored, also where its log is past the old position by the time anybody looks;
    the process stays, and counts it once.
    """
    pipeline, answers = one_partition, Answers()
    uploader = pipeline.uploader()
    uploader.wait_ready()
    asyncio.run(_produce(pipeline.topic, payloads(OLD), answers))
    pipeline.settle(answers)
    _remake(pipeline.topic)
    asyncio.run(_produce(pipeline.topic, payloads(count), answers))
    _settle_past_old_commits(pipeline, answers)
    assert uploader.metric("spillway_uploader_topic_remade_total") == 1
    assert uploader.metric("spillway_uploader_lost_records_total") == 0
    assert uploader.process.returncode is None
    until(lambda: not uploader.reasons(), "readiness with the new topic", deadline_s=20)

    asyncio.run(_produce(pipeline.topic, payloads(20), answers))
    pipeline.settle(answers)


def test_a_commit_of_another_topic_is_void(one_partition: Pipeline) -> None:
    """A commit whose note names another topic's id, left by a member that did not know better, skips nothing."""
    pipeline, answers = one_partition, Answers()
    asyncio.run(_produce(pipeline.topic, payloads(30), answers))
    asyncio.run(_commit(pipeline.topic, 20, f"topic-id={uuid.uuid4()}"))
    assert pipeline.topic.committed() == {0: 20}
    uploader = pipeline.uploader()
    uploader.wait_ready()
    _settle_past_old_commits(pipeline, answers)
    assert uploader.metric("spillway_uploader_lost_records_total") == 0
    asyncio.run(_produce(pipeline.topic, payloads(20), answers))
    pipeline.settle(answers)


def _settle_past_old_commits(pipeline: Pipeline, answers: Answers) -> None:
    """Settle, without the commits that the group had of another topic: those say nothing of this one."""
    until(lambda: missing(answers, pipeline.objects()) == 0, "the new topic's records", deadline_s=30)
    until(lambda: pipeline.topic.lag() == 0, "a commit in the new topic", deadline_s=20, every_s=0.3)
    pipeline.watch.forget_commits()
    pipeline.settle(answers)


def _remake(topic: Topic) -> None:
    asyncio.run(_delete(topic))
    topic.create()
    until(lambda: _is_empty(topic), "the broker to have the new topic", deadline_s=10)


def _is_empty(topic: Topic) -> bool:
    try:
        return topic.ends() == {0: 0}
    except KafkaError:  # not yet known to the broker that was asked
        return False


async def _delete(topic: Topic) -> None:
    async with admin(topic.bootstrap_servers) as client:
        answer = await client.delete_topics([topic.name, topic.dead])
    assert [entry[1] for entry in answer.topic_error_codes] == [0, 0], answer  # returned, never raised


async def _produce(topic: Topic, bodies: Sequence[bytes], answers: Answers) -> None:
    """Write plain records, in order; their ids are those that DESIGN §3 gives them."""
    async with producer(topic.bootstrap_servers) as plain:
        acks = [await plain.send(topic.name, body, partition=0) for body in bodies]
        for at, body in zip(await asyncio.gather(*acks), bodies, strict=True):
            answers.accept([f"{at.topic}-{at.partition}-{at.offset}-{at.timestamp}"], [body])


async def _commit(topic: Topic, offset: int, note: str) -> None:
    """Commit by hand, as a member of the group that is gone."""
    place = TopicPartition(topic.name, 0)
    client = AIOKafkaConsumer(bootstrap_servers=topic.bootstrap_servers, group_id=topic.group, enable_auto_commit=False)
    try:
        await client.start()
        client.assign([place])
        await client.commit({place: (offset, note)})
    finally:
        await client.stop()
