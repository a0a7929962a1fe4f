"""Retention overtakes the uploader: what it had is stored, what it had not is counted exactly, and it goes on.

Records are deleted as retention does it, by moving the log's start. What is lost is worked out here from the bucket,
by the offsets that its objects carry, and never from what the uploader says.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN
from tests.harness.broker import Topic, admin, producer
from tests.harness.load import payloads
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Process, Processes
from tests.harness.tiers import Tier, get
from tests.harness.waiting import until

MAX_QUEUE = 100
LARGE = 50_000
"""Bytes of a record: the client's own fetch of 1 MiB holds about 20 of them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A plain record as it lies in the topic."""

    id: str
    body: bytes


@pytest.fixture
def one_partition(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs yet; the topic has 1 partition."""
    return Pipeline(processes, make_topic(partitions=1), fake_s3)


def test_retention_overtakes_while_s3_is_away(one_partition: Pipeline) -> None:
    """What was in memory is stored all the same; the range that only Kafka had is counted to the record, by metric, log
    line and note; the session goes on behind it, with no restart, and the lag reaches 0.
    """
    pipeline = one_partition
    uploader = pipeline.uploader({"MAX_QUEUE": str(MAX_QUEUE)})
    uploader.wait_ready()
    away = pipeline.s3.script.inject(SLOW_DOWN)
    sent = asyncio.run(_produce(pipeline.topic, payloads(400, size=LARGE)))
    full, buffered = "spillway_uploader_full_partitions", "spillway_uploader_buffered_records"
    until(lambda: uploader.metric(full) == 1 and uploader.metric(buffered) > MAX_QUEUE // 2, "memory", deadline_s=30)
    held = round(uploader.metric(buffered))
    assert pipeline.objects() == {}
    begin = 300
    asyncio.run(_delete_before(pipeline.topic, begin))
    away.heal()
    last = max(sent)
    until(lambda: last in _stored_offsets(pipeline), "the last record", deadline_s=30)
    lost = _settle_all_but_lost(pipeline, sent)
    assert lost == list(range(lost[0], begin)), "what is lost is not one range up to the log's start"
    assert held <= lost[0] < begin - 100, f"{held} were in memory, and the first lost is {lost[0]}"
    _assert_told(uploader, lost, pipeline.topic)
    assert uploader.metric("spillway_uploader_assignment_epoch") == 1
    assert uploader.metric("spillway_uploader_consumer_restarts_total") == 0
    assert uploader.process.returncode is None

    sent |= asyncio.run(_produce(pipeline.topic, payloads(50)))
    until(lambda: max(sent) in _stored_offsets(pipeline), "records behind the gap", deadline_s=20)
    assert _settle_all_but_lost(pipeline, sent) == lost
    _assert_told(uploader, lost, pipeline.topic)


def test_retention_overtakes_the_commit_while_the_uploader_is_down(one_partition: Pipeline) -> None:
    """The next start finds the log's start behind the commit: it says which records are gone, and stores the rest."""
    pipeline = one_partition
    first = pipeline.uploader()
    sent = asyncio.run(_produce(pipeline.topic, payloads(10)))
    first.wait_ready()
    until(lambda: pipeline.topic.committed() == {0: 10}, "a commit at 10", deadline_s=20)
    assert first.process.terminate() == 0
    sent |= asyncio.run(_produce(pipeline.topic, payloads(40)))
    asyncio.run(_delete_before(pipeline.topic, 33))
    second = pipeline.uploader()
    second.wait_ready()
    until(lambda: 49 in _stored_offsets(pipeline), "the last record", deadline_s=20)
    assert _settle_all_but_lost(pipeline, sent) == list(range(10, 33))
    _assert_told(second, list(range(10, 33)), pipeline.topic)


def _settle_all_but_lost(pipeline: Pipeline, sent: dict[int, Sent]) -> list[int]:
    """Judge everything that the log still has or the bucket holds; the offsets that are in neither."""
    kept = {record.offset for record in pipeline.topic.records()} | _stored_offsets(pipeline)
    answers = Answers()
    for offset, record in sent.items():
        if offset in kept:
            answers.accept([record.id], [record.body])
    pipeline.settle(answers)
    return sorted(sent.keys() - _stored_offsets(pipeline))


def _assert_told(uploader: Tier, lost: Sequence[int], topic: Topic) -> None:
    """Metric, log and readiness say the same: exactly this range, once."""
    uploader.wait_ready()  # S3's own condition holds again a moment after its last error
    assert uploader.metric('spillway_uploader_lost_records_total{partition="0"}') == len(lost)
    (line,) = _lines(uploader.process, "retention deleted records before they were stored")
    assert (line["first_lost"], line["last_lost"]) == (lost[0], lost[-1])
    status, body = get(f"{uploader.ops_url}/readyz")
    notes = json.loads(body)["notes"]
    assert (status, list(notes)) == (200, ["lost-0"])
    assert f"offsets {lost[0]} to {lost[-1]} of {topic.name} partition 0" in notes["lost-0"]


def _lines(process: Process, message: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in process.output().splitlines() if line.startswith("{"))
    return [line for line in lines if line["message"] == message]


def _stored_offsets(pipeline: Pipeline) -> set[int]:
    return {int(version.metadata["spillway-offset"]) for (version, *_) in pipeline.objects().values()}


async def _produce(topic: Topic, bodies: Sequence[bytes]) -> dict[int, Sent]:
    """Write plain records, in order; by offset, with the ids that DESIGN §3 gives them."""
    async with producer(topic.bootstrap_servers) as plain:
        acks = [await plain.send(topic.name, body, partition=0) for body in bodies]
        placed = await asyncio.gather(*acks)
    return {
        at.offset: Sent(f"{at.topic}-{at.partition}-{at.offset}-{at.timestamp}", body)
        for at, body in zip(placed, bodies, strict=True)
    }


async def _delete_before(topic: Topic, offset: int) -> None:
    async with admin(topic.bootstrap_servers) as client:
        await client.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(offset)})
