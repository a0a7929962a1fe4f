"""What a job must never call complete: each of these did, once, in the hands of a reviewer.

The broker is asked for the truth, and the bucket; the exit code and the report are judged by them.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterable

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from tests.fakes.s3 import FakeS3
from tests.fakes.script import Answer
from tests.harness.broker import Topic, admin, producer
from tests.harness.commands import Commands
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Process, Processes
from tests.harness.waiting import until

LARGE = 60_000
"""Bytes: the client's own fetch of 1 MiB holds some 17 of them, so that a slow job has most of its work before it."""


@pytest.fixture
def pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs yet; one partition."""
    return Pipeline(processes, make_topic(1), fake_s3)


def write(topic: Topic, bodies: Iterable[bytes], **options: int) -> None:
    async def send() -> None:
        async with producer(topic.bootstrap_servers) as client:
            acks = [await client.send(topic.name, body, partition=0, **options) for body in bodies]
            await asyncio.gather(*acks)

    asyncio.run(send())


def large(count: int, start: int = 0) -> list[bytes]:
    return [(b"body %d" % number).ljust(LARGE) for number in range(start, start + count)]


def delete_before(topic: Topic, offset: int) -> None:
    async def delete() -> None:
        async with admin(topic.bootstrap_servers) as client:
            await client.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(offset)})

    asyncio.run(delete())


def slow(commands: Commands, pipeline: Pipeline, stored: int, *options: str) -> Process:
    """A replay of everything that has stored some, and has most before it."""
    job = commands.start("replay", "--from", "beginning", "--rate", "20", "--job", "slow", "--output", "json", *options)
    until(lambda: pipeline.shelf.writes >= stored, f"{stored} objects", deadline_s=30)
    return job


def test_retention_takes_the_whole_rest(pipeline: Pipeline) -> None:
    """A resume that finds nothing left to read says what is gone, and is not complete; now and the next time."""
    write(pipeline.topic, large(200))
    commands = pipeline.commands({"MAX_QUEUE": "10"})
    slow(commands, pipeline, 20).kill()
    delete_before(pipeline.topic, 200)
    for _ in range(2):
        ran = commands.run("replay", "--resume", "slow", "--output", "json")
        assert (ran.code, ran.document["complete"]) == (1, False), str(ran)
        assert "199 are gone from Kafka" in ran.document["gone"][0]


def test_a_topic_made_anew_meanwhile(pipeline: Pipeline) -> None:
    """Its offsets are other records: the replay ends with 1 and says so, and can not be resumed."""
    write(pipeline.topic, large(200))
    commands = pipeline.commands({"MAX_QUEUE": "10"})
    job = slow(commands, pipeline, 20)

    async def remove() -> None:
        async with admin(pipeline.topic.bootstrap_servers) as client:
            await client.delete_topics([pipeline.topic.name, pipeline.topic.dead])

    asyncio.run(remove())
    until(lambda: _made(pipeline.topic), "the topic to be made anew", deadline_s=20)
    write(pipeline.topic, large(250, 1000))
    assert job.wait(deadline_s=60) == 1
    report = json.loads(job.output().splitlines()[-1])
    assert not report["complete"]
    assert "made anew" in report["failed"]
    assert commands.run("replay", "--resume", "slow").code == 2


def _made(topic: Topic) -> bool:
    try:
        topic.create()
    except AssertionError:  # it is not quite gone yet
        return False
    return True


def test_a_resume_elsewhere(pipeline: Pipeline) -> None:
    """Half of a job on one server and half on another is complete on neither: another S3_ENDPOINT_URL is refused."""
    write(pipeline.topic, large(100))
    slow(pipeline.commands(), pipeline, 10).terminate()
    with FakeS3() as other:
        other.create_bucket("bucket")
        ran = pipeline.commands().run("replay", "--resume", "slow", environment={"S3_ENDPOINT_URL": other.endpoint_url})
    assert (ran.code, "endpoint was" in ran.err) == (2, True), str(ran)


def test_a_transaction_that_is_open(pipeline: Pipeline) -> None:
    """What stands behind it is in the range: both commands wait for its end, and then tell the truth."""
    write(pipeline.topic, [b"first"])
    commands = pipeline.commands()

    async def in_transaction() -> tuple[Process, Process]:
        async with producer(pipeline.topic.bootstrap_servers, pipeline.topic.name) as client:
            await client.begin_transaction()
            await client.send_and_wait(pipeline.topic.name, b"aborted", partition=0)
            await asyncio.to_thread(write, pipeline.topic, [b"behind %d" % number for number in range(10)])
            jobs = tuple(
                commands.start(name, "--from", "beginning", "--output", "json", *more)
                for name, more in (("replay", ("--job", "open")), ("verify", ()))
            )
            until(lambda: len(pipeline.objects()) == 1, "the record before it", deadline_s=30)
            until(lambda: "progress" in jobs[1].output(), "verify to read", deadline_s=30)
            assert [job.returncode for job in jobs] == [None, None]
            await client.abort_transaction()
        return jobs[0], jobs[1]

    replay, verify = asyncio.run(in_transaction())
    assert replay.wait(deadline_s=40) == 0
    assert len(pipeline.objects()) == 11
    verify.wait(deadline_s=40)
    report = json.loads(verify.output().splitlines()[-1])
    assert report["records"] == 11  # whatever of it was stored by then


def test_commits_that_fail_store_nothing_twice(pipeline: Pipeline) -> None:
    """Somebody sits in the job's group, and every commit of its state is refused: each record is stored once all the
    same, and the report says that a resume would store some again.
    """
    write(pipeline.topic, [b"body %d" % number for number in range(200)])
    job = slow(pipeline.commands(), pipeline, 20)

    async def sit() -> int:
        client = AIOKafkaConsumer(
            pipeline.topic.name,
            bootstrap_servers=pipeline.topic.bootstrap_servers,
            group_id=f"{pipeline.topic.group}.job.slow",
            enable_auto_commit=False,
        )
        await client.start()
        try:
            return await asyncio.to_thread(lambda: job.wait(deadline_s=90))
        finally:
            await client.stop()

    assert asyncio.run(sit()) == 0
    report = json.loads(job.output().splitlines()[-1])
    assert (report["stored"], pipeline.shelf.writes, report["uncommitted"]) == (200, 200, True)


def test_named_records_that_are_none(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file that names an offset of which Kafka has no record: that one is not stored, and the others are."""
    write(pipeline.topic, [b"a", b"b"])

    async def abort() -> None:
        async with producer(pipeline.topic.bootstrap_servers, pipeline.topic.name) as client:
            await client.begin_transaction()
            await client.send_and_wait(pipeline.topic.name, b"aborted", partition=0)
            await client.abort_transaction()

    asyncio.run(abort())
    file = tmp_path_factory.mktemp("named") / "file.jsonl"
    file.write_text("".join(f'{{"partition": 0, "offset": {offset}}}\n' for offset in (1, 2)))
    ran = pipeline.commands().run("replay", "--from-file", str(file), "--output", "json")
    assert (ran.code, ran.document["stored"]) == (1, 1), str(ran)
    assert [(one["offset"], one["reason"]) for one in ran.document["not_stored"]] == [(2, "no_record")]


def test_one_clock_that_is_fast(pipeline: Pipeline) -> None:
    """Producers' times: a record of tomorrow among those of now does not end a range before the others."""
    name = f"{pipeline.topic.name}-times"
    now_ms = round(time.time() * 1000)

    async def make() -> None:
        async with admin(pipeline.topic.bootstrap_servers) as client:
            await client.create_topics([NewTopic(name, 1, 1, topic_configs={"message.timestamp.type": "CreateTime"})])
        async with producer(pipeline.topic.bootstrap_servers) as client:
            for number in range(10):
                fast_ms = 3_000_000 if number == 2 else 0  # below the hour by which a broker lets a clock be fast
                await client.send_and_wait(name, b"%d" % number, partition=0, timestamp_ms=now_ms - 60_000 + fast_ms)

    asyncio.run(make())
    ran = pipeline.commands({"KAFKA_TOPIC": name}).run("replay", "--from", "1h", "--to", "now", "--output", "json")
    assert (ran.code, ran.document["stored"]) == (0, 9), str(ran)


def test_buckets_and_objects_that_cannot_be_looked_at(pipeline: Pipeline) -> None:
    """A bucket that is not there is no missing object (2, and not 1); one object that may not be looked at says nothing
    of the others, and nothing is complete without it.
    """
    write(pipeline.topic, [b"body %d" % number for number in range(40)])
    commands = pipeline.commands()
    assert commands.run("replay", "--from", "beginning").code == 0
    for options in ((), ("--heads",)):
        ran = commands.run("verify", "--from", "beginning", "--to-bucket", "nowhere", *options)
        assert (ran.code, ran.out, "NoSuchBucket" in ran.err) == (2, "", True), str(ran)
    pipeline.s3.script.inject(Answer(403, "InvalidObjectState"), method="HEAD", key=lambda key: "-0-7-" in key)
    ran = commands.run("verify", "--from", "beginning", "--heads", "--output", "json")
    assert (ran.code, ran.document["same"], ran.document["unknown"]) == (2, 39, 1), str(ran)
    ran = commands.run("replay", "--from", "beginning", "--only-missing", "--output", "json")
    assert (ran.code, ran.document["stored"], ran.document["already_there"]) == (0, 1, 39), str(ran)


def test_a_state_that_has_expired(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> None:
    """Kafka forgets the commits of one partition: a resume knows that it was begun, and does not call the rest all."""
    pipeline = Pipeline(processes, make_topic(2), fake_s3)
    write(pipeline.topic, [b"body %d" % number for number in range(40)])
    commands = pipeline.commands()
    job = slow(commands, pipeline, 10)
    job.send(signal.SIGINT)
    assert job.wait(deadline_s=20) == 130

    async def forget() -> None:
        """As time would do it; nothing of aiokafka's deletes the commit of one partition."""
        client = AIOKafkaConsumer(
            bootstrap_servers=pipeline.topic.bootstrap_servers,
            group_id=f"{pipeline.topic.group}.job.slow-2",
            enable_auto_commit=False,
        )
        async with admin(pipeline.topic.bootstrap_servers) as asked:
            found = await asked.list_consumer_group_offsets(f"{pipeline.topic.group}.job.slow")
        await client.start()
        kept = TopicPartition(pipeline.topic.name, 0)
        client.assign([kept])
        await client.commit({kept: (found[kept].offset, found[kept].metadata)})
        await client.stop()

    asyncio.run(forget())
    ran = commands.run("replay", "--resume", "slow-2")
    assert (ran.code, "no state of partition 1 any more" in ran.err) == (2, True), str(ran)


def test_a_disk_that_is_full(pipeline: Pipeline) -> None:
    """`--missing-to` that cannot be written is an error of one line, exit code 2, and no half of a file."""
    write(pipeline.topic, [b"body %d" % number for number in range(40)])
    ran = pipeline.commands().run("verify", "--from", "beginning", "--missing-to", "/dev/full")
    assert (ran.code, ran.out) == (2, ""), str(ran)
    assert "Traceback" not in ran.err
