"""Records that ingest did not write: stored under keys of their own, or passed over, never a reason to stand still."""

import asyncio
from collections.abc import Callable

from aiokafka.structs import RecordMetadata

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic, producer
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes


def foreign_id(at: RecordMetadata) -> str:
    """DESIGN §3: topic, partition, offset and timestamp."""
    return f"{at.topic}-{at.partition}-{at.offset}-{at.timestamp}"


async def write_foreign(topic: Topic, answers: Answers) -> None:
    """A plain record, an empty one, a tombstone, a committed and an aborted transaction, whose marker ends the log."""
    async with producer(topic.bootstrap_servers) as plain:
        for body in (b"not from here", b""):
            answers.accept([foreign_id(await plain.send_and_wait(topic.name, body, partition=0))], [body])
        await plain.send_and_wait(topic.name, None, key=b"gone", partition=0)
    async with producer(topic.bootstrap_servers, transactional_id=topic.name) as transactional:
        async with transactional.transaction():
            body = b"in a transaction"
            answers.accept([foreign_id(await transactional.send_and_wait(topic.name, body, partition=0))], [body])
        await transactional.begin_transaction()
        await transactional.send_and_wait(topic.name, b"aborted", partition=0)
        await transactional.abort_transaction()
        answers.refused.add(b"aborted")


def test_foreign_records_and_holes(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> None:
    """Tombstones, aborted records and markers leave holes in the offsets; the lag still reaches 0 behind the last."""
    pipeline = Pipeline(processes, make_topic(partitions=1), fake_s3)
    answers = Answers()
    ingest = pipeline.ingest()
    ingest.wait_ready()

    def write_some() -> None:
        post_at_once(ingest.collections_url, [payloads(20)], answers)
        asyncio.run(write_foreign(pipeline.topic, answers))

    for _ in range(2):  # a backlog, polled at once: holes in its middle and at its end
        write_some()
    pipeline.uploader()
    verdict = pipeline.settle(answers, deadline_s=40)
    assert verdict.stored == 46, str(verdict)

    write_some()
    verdict = pipeline.settle(answers)
    assert verdict.stored == 69, str(verdict)
