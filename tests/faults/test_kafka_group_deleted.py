"""A group without its commits stores the topic again, to the same objects; records as large as Kafka takes pass."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.protocol.admin import DeleteGroupsRequest

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic, admin
from tests.harness.http_client import request
from tests.harness.load import envelope, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes

LARGEST = 1_048_588 - 72
"""Bytes of the largest value that the topic takes, without key and headers: of its `max.message.bytes`, 61 are the
batch's and 11 the record's own."""


def test_a_deleted_group_changes_nothing_in_the_bucket(pipeline: Pipeline) -> None:
    """Group deleted while the uploaders are down: each payload is written once more, to its own key with its own bytes,
    and nothing else appears.
    """
    ingest, *uploaders = *pipeline.ready(), pipeline.uploader()
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(10) for _ in range(20)], answers)
    pipeline.settle(answers)
    for uploader in uploaders:
        assert uploader.process.terminate() == 0
    before = pipeline.objects()
    asyncio.run(_delete_group(pipeline.topic))
    assert pipeline.topic.committed() == {}
    pipeline.watch.forget_commits()
    pipeline.uploader()
    pipeline.uploader()
    pipeline.settle(answers, deadline_s=40)
    after = pipeline.objects()
    assert after.keys() == before.keys()
    again = [len(after[key]) - len(before[key]) for key in before]
    assert min(again) == 1, "not everything was stored again: the group had commits left"
    for key, versions in after.items():
        assert {version.body for version in versions} == {before[key][0].body}


def test_the_largest_records(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> None:
    """The largest payload that ingest takes and the largest record that the topic takes are stored byte for byte, and
    the small ones beside them.
    """
    pipeline, answers = Pipeline(processes, make_topic(partitions=1), fake_s3), Answers()
    ingest, uploader = pipeline.ready()
    refusal = request(ingest.collections_url, envelope(payloads(1, size=1_100_000)))
    assert refusal.status == 413
    (limit,) = re.findall(r"\((\d+) bytes", refusal.document["detail"])
    at_limit = payloads(1, size=int(limit))
    assert len(at_limit[0]) == int(limit)
    post_at_once(ingest.collections_url, [payloads(20), at_limit, payloads(20)], answers)
    asyncio.run(_produce_largest(pipeline.topic, answers))
    post_at_once(ingest.collections_url, [payloads(20)], answers)
    assert dict(answers.statuses) == {200: 4}
    verdict = pipeline.settle(answers)
    assert verdict.stored == 62, str(verdict)
    assert uploader.metric("spillway_uploader_dead_letters_total") == 0


async def _produce_largest(topic: Topic, answers: Answers) -> None:
    """A plain record of LARGEST bytes; one byte more is more than the topic takes."""
    client = AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers, acks="all", max_request_size=2 * 1024 * 1024)
    try:
        await client.start()
        with pytest.raises(MessageSizeTooLargeError):
            await client.send_and_wait(topic.name, *payloads(1, size=LARGEST + 1), partition=0)
        (body,) = payloads(1, size=LARGEST)
        at = await client.send_and_wait(topic.name, body, partition=0)
    finally:
        await client.stop()
    answers.accept([f"{at.topic}-{at.partition}-{at.offset}-{at.timestamp}"], [body])


async def _delete_group(topic: Topic) -> None:
    """Aiokafka's admin client has no method for it, only the request."""
    async with admin(topic.bootstrap_servers) as client:
        coordinator = await client.find_coordinator(topic.group)
        answer: Any = await client._send_request(DeleteGroupsRequest([topic.group]), coordinator)
    assert [tuple(result) for result in answer.results] == [(topic.group, 0)], answer
