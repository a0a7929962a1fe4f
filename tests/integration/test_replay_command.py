"""`spillway-uploader replay` against a real broker: what is in range, what is left out, what cannot be stored.

The ids and keys are worked out here, as DESIGN §3 and §4 give them.
"""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import RecordMetadata

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ENTITY_TOO_LARGE
from tests.harness.broker import Topic, admin, producer
from tests.harness.commands import Commands, Ran
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

PARTITIONS = 2


@pytest.fixture
def pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs but the broker and the S3 server."""
    return Pipeline(processes, make_topic(PARTITIONS), fake_s3)


@pytest.fixture
def commands(pipeline: Pipeline) -> Commands:
    """Pointed at it."""
    return pipeline.commands()


async def _write(topic: Topic, bodies: Sequence[bytes], partition: int = 0) -> list[RecordMetadata]:
    async with producer(topic.bootstrap_servers) as client:
        acks = [await client.send(topic.name, body, partition=partition) for body in bodies]
        return [await ack for ack in acks]


def _bodies(count: int, start: int = 0) -> list[bytes]:
    return [b"body %d" % number for number in range(start, start + count)]


def _stored(pipeline: Pipeline) -> set[bytes]:
    return {written[-1].body for written in pipeline.objects().values()}


def test_a_range_of_offsets_is_stored_to_the_record(pipeline: Pipeline, commands: Commands) -> None:
    """`p0:10-19` is ten records, both ends included, and nothing of another partition; `p1:95-` is all from there."""
    asyncio.run(_write(pipeline.topic, _bodies(50)))
    asyncio.run(_write(pipeline.topic, _bodies(100, 1000), 1))
    ran = commands.run("replay", "--from", "p0:10-19,p1:95-", "--output", "json")
    assert ran.code == 0, str(ran)
    assert _stored(pipeline) == {*_bodies(10, 10), *_bodies(5, 1095)}
    assert ran.document["stored"] == 15
    assert ran.document["partitions"]["0"] == {"begin": 10, "end": 20, "settled": 20}


def test_a_range_of_time_is_stored_to_the_record(pipeline: Pipeline, commands: Commands) -> None:
    """From the time of one record, and before that of another: the broker's own times, to the millisecond."""
    placed = []
    for body in _bodies(12):
        (at,) = asyncio.run(_write(pipeline.topic, [body]))
        placed.append(at.timestamp)
    assert len(set(placed)) == 12, "two records of one millisecond prove nothing here"
    ran = commands.run("replay", "--from", str(placed[3]), "--to", str(placed[9]), "--output", "json")
    assert ran.code == 0, str(ran)
    assert _stored(pipeline) == set(_bodies(6, 3))


def test_keys_are_those_of_the_live_group(pipeline: Pipeline, commands: Commands) -> None:
    """What the live group has stored is stored again under the same key, with the same bytes, and under no other."""
    asyncio.run(_write(pipeline.topic, _bodies(30)))
    uploader = pipeline.uploader()
    until(lambda: len(pipeline.objects()) == 30, "30 objects", deadline_s=40)
    assert uploader.process.terminate() == 0
    assert commands.run("replay", "--from", "beginning").code == 0
    versions = pipeline.objects()
    assert len(versions) == 30
    assert all(len(written) == 2 and written[0].body == written[1].body for written in versions.values())
    assert all(written[0].metadata == written[1].metadata for written in versions.values())


def test_holes_end_a_range_too(pipeline: Pipeline, commands: Commands) -> None:
    """Aborted records, markers and tombstones at the end of the log: the replay ends, and says that all is stored."""

    async def write() -> None:
        async with producer(pipeline.topic.bootstrap_servers) as plain:
            await plain.send_and_wait(pipeline.topic.name, b"plain", partition=0)
            await plain.send_and_wait(pipeline.topic.name, None, key=b"gone", partition=0)
        async with producer(pipeline.topic.bootstrap_servers, pipeline.topic.name) as transactional:
            await transactional.begin_transaction()
            await transactional.send_and_wait(pipeline.topic.name, b"aborted", partition=0)
            await transactional.abort_transaction()

    asyncio.run(write())
    ran = commands.run("replay", "--from", "beginning", "--output", "json")
    assert ran.code == 0, str(ran)
    assert (_stored(pipeline), ran.document["tombstones"]) == ({b"plain"}, 1)
    assert ran.document["partitions"]["0"]["settled"] == pipeline.topic.ends()[0] == 4


def test_what_retention_took_is_said(pipeline: Pipeline, commands: Commands) -> None:
    """A range of offsets that the log's start has overtaken, or a time before the oldest record: what is left is
    stored, the exit code is 1, and the gone range is named; also by the dry run and by a resume.
    """
    asyncio.run(_write(pipeline.topic, _bodies(40)))
    asyncio.run(_delete_before(pipeline.topic, 25))
    ran = commands.run("replay", "--from", "p0:10-39", "--job", "cut", "--output", "json")
    assert ran.code == 1, str(ran)
    assert _stored(pipeline) == set(_bodies(15, 25))
    (gone,) = ran.document["gone"]
    assert "partition 0: offsets 10 to 24 are gone" in gone
    resumed = commands.run("replay", "--resume", "cut")
    assert resumed.code == 1
    assert "offsets 10 to 24 are gone" in resumed.out
    # Of 7 days, an hour ago is no time that retention could have reached: a quiet partition looks like that, too.
    assert commands.run("replay", "--from", "1h", "--dry-run").code == 0
    asyncio.run(_let_size_delete(pipeline.topic))
    by_time = commands.run("replay", "--from", "1h", "--dry-run")
    assert by_time.code == 1
    assert "partition 0: offsets 0 to 24 are gone" in by_time.out
    assert commands.run("replay", "--from", "beginning").code == 0  # whatever is left was asked for


async def _let_size_delete(topic: Topic) -> None:
    async with admin(topic.bootstrap_servers) as client:
        await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic.name, {"retention.bytes": "1000000000"})]
        )


async def _delete_before(topic: Topic, offset: int) -> None:
    async with admin(topic.bootstrap_servers) as client:
        await client.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(offset)})


def test_retention_overtakes_a_replay(pipeline: Pipeline) -> None:
    """Retention that is faster than a slow replay: it goes on behind the gap, names it, and exits 1."""
    asyncio.run(_write(pipeline.topic, [body.ljust(60_000) for body in _bodies(400)]))
    commands = pipeline.commands({"MAX_QUEUE": "50"})
    job = commands.start("replay", "--from", "beginning", "--rate", "40", "--output", "json")
    until(lambda: pipeline.shelf.writes >= 20, "20 objects", deadline_s=30)
    asyncio.run(_delete_before(pipeline.topic, 390))
    assert job.wait(deadline_s=60) == 1
    stored = {int(written[-1].metadata["spillway-offset"]) for written in pipeline.objects().values()}
    lost = set(range(400)) - stored
    assert lost, "nothing was lost: the replay had it all in memory"
    assert lost == set(range(min(lost), 390))
    assert f"partition 0: offsets {min(lost)} to 389 are gone from Kafka" in job.output().splitlines()[-1]


def test_what_s3_can_never_take_is_listed(pipeline: Pipeline, commands: Commands) -> None:
    """A poison record is no dead letter again: it is named with its reason, the rest is stored, the exit code is 1,
    and a resume of the ended job says so still.
    """
    asyncio.run(_write(pipeline.topic, _bodies(30)))
    pipeline.s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: "-0-7-" in key)
    ran = commands.run("replay", "--from", "beginning", "--job", "poison", "--output", "json")
    assert ran.code == 1, str(ran)
    (refused,) = ran.document["not_stored"]
    assert (refused["partition"], refused["offset"], refused["reason"]) == (0, 7, "entity_too_large")
    assert _stored(pipeline) == set(_bodies(30)) - {b"body 7"}
    resumed = commands.run("replay", "--resume", "poison", "--output", "json")
    assert (resumed.code, resumed.document["not_stored_before"]) == (1, 1)
    assert Topic(pipeline.topic.bootstrap_servers, pipeline.topic.dead, 1).ends() == {0: 0}


def test_a_job_is_split_over_processes(pipeline: Pipeline, commands: Commands) -> None:
    """One name, each process some of the partitions; each tells of its own, and a resume of the name has them all."""
    for partition in range(PARTITIONS):
        asyncio.run(_write(pipeline.topic, _bodies(20, partition * 100), partition))
    for partition in range(PARTITIONS):
        ran = commands.run("replay", "--from", "beginning", "--job", "split", "--partitions", str(partition))
        assert ran.code == 0, str(ran)
        assert len(pipeline.objects()) == 20 * (partition + 1)
    resumed = commands.run("replay", "--resume", "split", "--output", "json")
    assert resumed.code == 0
    assert {number: each["settled"] for number, each in resumed.document["partitions"].items()} == {"0": 20, "1": 20}


def test_filters_and_another_place(pipeline: Pipeline, commands: Commands) -> None:
    """Only the folder or id that was asked for; in another bucket, with a prefix, and the live bucket untouched."""
    other = pipeline.s3.create_bucket("elsewhere")

    async def write() -> None:
        async with producer(pipeline.topic.bootstrap_servers) as client:
            for number in range(20):
                headers = [
                    ("spillway-id", b"collection-%d" % number),
                    ("spillway-folder", b"even" if number % 2 == 0 else b"odd"),
                    ("spillway-received-ns", b"1764115200000000000"),
                ]
                await client.send_and_wait(pipeline.topic.name, b"%d" % number, partition=0, headers=headers)

    asyncio.run(write())
    options = ("--from", "beginning", "--to-bucket", "elsewhere", "--to-prefix", "copy", "--output", "json")
    ran = commands.run("replay", *options, "--folder", "even")
    assert (ran.code, ran.document["stored"], ran.document["passed_over"]) == (0, 10, 10), str(ran)
    assert all(key.startswith("copy/even/shard=") for key in other.versions())
    assert commands.run("replay", *options, "--id", "collection-7").code == 0
    assert {key.rpartition("/")[2] for key in other.versions() if key.startswith("copy/odd/")} == {"collection-7"}
    assert pipeline.objects() == {}


def test_producers_times_widen_a_range(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> None:
    """Where producers set the times, records up to 5 minutes outside the range are stored too, and the command says
    so: their clocks differ.
    """
    topic = make_topic(1)
    name = f"{topic.name}-create-time"

    async def write() -> None:
        async with admin(topic.bootstrap_servers) as client:
            await client.create_topics([NewTopic(name, 1, 1, topic_configs={"message.timestamp.type": "CreateTime"})])
        async with producer(topic.bootstrap_servers) as client:
            for minute in (0, 10, 14, 16, 25):
                at_ms = 1_764_115_200_000 + minute * 60_000
                await client.send_and_wait(name, b"minute %d" % minute, partition=0, timestamp_ms=at_ms)

    asyncio.run(write())
    pipeline = Pipeline(processes, topic, fake_s3)
    commands = pipeline.commands({"KAFKA_TOPIC": name})
    ran = commands.run("replay", "--from", "2025-11-26T00:15", "--to", "2025-11-26T00:18", "--output", "json")
    assert ran.code == 0, str(ran)
    assert _stored(pipeline) == {b"minute 10", b"minute 14", b"minute 16"}
    assert "5 minutes wider" in ran.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"S3_KEY_TEMPLATE": "{folder}/{id}"}, "key_template was"),
        ({"S3_FOLDER": "others"}, "default_folder was"),
    ],
)
def test_a_job_goes_on_only_as_it_began(
    pipeline: Pipeline, commands: Commands, change: dict[str, str], said: str
) -> None:
    """With another key template, a resume would store the rest under other keys: it is refused, and says why."""
    asyncio.run(_write(pipeline.topic, _bodies(3)))
    assert commands.run("replay", "--from", "beginning", "--job", "one").code == 0
    ran = commands.run("replay", "--resume", "one", environment=change)
    assert (ran.code, ran.out) == (2, ""), str(ran)
    assert said in ran.err


def test_what_cannot_be(pipeline: Pipeline, commands: Commands) -> None:
    """A job that is not there, a partition that is not there, a topic that is not there, a Kafka that is not there."""

    def said(code: int, *options: str, environment: dict[str, str] | None = None) -> str:
        ran: Ran = commands.run("replay", *options, environment=environment)
        assert (ran.code, ran.out) == (code, ""), str(ran)
        last: str = ran.err.splitlines()[-1]
        return last

    assert "no job nobody to resume" in said(2, "--resume", "nobody")
    assert "there is no 9" in said(1, "--from", "p9:0-1")
    missing = {"KAFKA_TOPIC": f"{pipeline.topic.name}-not"}
    assert f"topic {pipeline.topic.name}-not does not exist" in said(1, "--from", "1h", environment=missing)
    away = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    assert "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1" in said(1, "--from", "1h", environment=away)
