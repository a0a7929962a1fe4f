"""A job's name: the same command line goes on with the job, whoever starts it again, and never means another one."""

import asyncio

import pytest

from tests.conftest import MakeTopic
from tests.fakes.s3 import FakeS3
from tests.fakes.script import Shelf
from tests.harness.broker import Topic, producer
from tests.harness.commands import Commands
from tests.harness.processes import Processes
from tests.harness.waiting import until

RECORDS, LATER = 200, 40
PARTITIONS = 2


@pytest.fixture
def topic(make_topic: MakeTopic) -> Topic:
    made = make_topic(PARTITIONS)
    _produce(made, RECORDS)
    return made


@pytest.fixture
def shelf(fake_s3: FakeS3) -> Shelf:
    return fake_s3.create_bucket("bucket")


@pytest.fixture
def commands(processes: Processes, topic: Topic, fake_s3: FakeS3, shelf: Shelf) -> Commands:
    assert not shelf.versions()
    return Commands(processes, {**topic.environment(), **fake_s3.environment(), "S3_BUCKET": "bucket"})


def _produce(topic: Topic, count: int) -> None:
    async def run() -> None:
        async with producer(topic.bootstrap_servers) as client:
            for number in range(count):
                await client.send(topic.name, b'{"n":%d}' % number, partition=number % topic.partitions)
            await client.flush()

    asyncio.run(run())


def test_a_killed_job_goes_on_by_its_own_command_line(commands: Commands, topic: Topic, shelf: Shelf) -> None:
    """A pod is killed and the next one has the same arguments: it takes up what is left of the *first* range, although
    `1h` means another one by now, and begins nothing anew.
    """
    line = ("replay", "--from", "1h", "--job", "outage", "--rate", "60")
    first = commands.start(*line)
    until(lambda: shelf.writes >= RECORDS // 2, "half of the objects", deadline_s=30)
    first.kill()
    _produce(topic, LATER)
    then = commands.run(*line, "--output", "json")
    assert then.code == 0, str(then)
    assert len(shelf.versions()) == RECORDS  # and none of those that came later
    assert 0 < then.document["stored"] < RECORDS
    assert {number: one["end"] for number, one in then.document["partitions"].items()} == {
        str(number): RECORDS // PARTITIONS for number in range(PARTITIONS)
    }


def test_another_job_does_not_get_a_name_that_is_taken(commands: Commands, shelf: Shelf) -> None:
    """Other options under the same name: refused with 2, says what differs, stores nothing."""
    fixed = ("replay", "--job", "taken", "--from", "p0:0-9,p1:0-9")
    assert commands.run(*fixed).code == 0
    writes = shelf.writes
    for other, named in {
        ("replay", "--job", "taken", "--from", "p0:0-9,p1:0-8"): "range was '--from p0:0-9,p1:0-9'",
        (*fixed, "--only-missing"): "only_missing was False",
        (*fixed, "--to-prefix", "copies"): "prefix was ''",
        (*fixed, "--folder", "other"): "folder was None",
        (*fixed, "--to-bucket", "elsewhere"): "bucket was 'bucket'",
    }.items():
        ran = commands.run(*other)
        assert ran.code == 2, str(ran)
        assert named in ran.err
    assert shelf.writes == writes


def test_a_job_that_has_ended_says_so(commands: Commands, shelf: Shelf) -> None:
    """Started again over a range that means the same for ever, it exits 0, does nothing, and does not claim to know
    what S3 has by now; over a range that has moved on, it is refused.
    """
    fixed = ("replay", "--job", "fixed", "--from", "p0:0-9")
    moving = ("replay", "--job", "moving", "--from", "1h")
    assert "complete" in commands.run(*fixed).out
    assert "complete" in commands.run(*moving).out
    writes = shelf.writes
    again = commands.run(*fixed)
    assert again.code == 0
    assert "ended before" in again.out
    assert "complete" not in again.out
    refused = commands.run(*moving)
    assert refused.code == 2
    assert "job moving has ended, and `--from 1h` means another range by now" in refused.err
    assert shelf.writes == writes


def test_an_empty_range_has_not_ended_before(commands: Commands) -> None:
    """A job that finds nothing at its first start is complete, and is not taken for one that was done."""
    ran = commands.run("replay", "--job", "empty", "--from", "2020-01-01", "--to", "2020-01-02", "--output", "json")
    assert ran.code == 0, str(ran)
    assert ran.document["complete"]
    assert not ran.document["ended_before"]


def test_partitions_of_one_job_are_done_by_several(commands: Commands, shelf: Shelf) -> None:
    """Two pods with one name and a partition each: neither is in the other's way, and a third finds both."""
    line = ("replay", "--job", "split", "--from", "beginning", "--to", "now")
    for number in range(PARTITIONS):
        ran = commands.run(*line, "--partitions", str(number), "--output", "json")
        assert ran.code == 0, str(ran)
        assert ran.document["stored"] == RECORDS // PARTITIONS
    assert shelf.writes == RECORDS
    assert "ended before" in commands.run("replay", "--resume", "split").out
