"""Replay and verify while Kafka or S3 is away: they go on by themselves, or end and say how to go on.

None of them ever says that something is there which is not.
"""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, INTERNAL_ERROR, SLOW_DOWN, Cut
from tests.harness.broker import Topic, producer
from tests.harness.durations import Durations
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka

RECORDS = 600


def _fill(topic: Topic) -> None:
    async def write() -> None:
        async with producer(topic.bootstrap_servers) as client:
            acks = [await client.send(topic.name, b"record %d" % n, partition=n % 2) for n in range(RECORDS)]
            await asyncio.gather(*acks)

    asyncio.run(write())


@pytest.fixture
def filled(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Two partitions with 300 records each; nothing is stored."""
    pipeline = Pipeline(processes, make_topic(2), fake_s3)
    _fill(pipeline.topic)
    return pipeline


def test_a_broker_that_is_killed_under_a_replay(
    own_kafka: "EmbeddedKafka",
    make_topic: Callable[..., Topic],
    processes: Processes,
    fake_s3: FakeS3,
    durations: Durations,
) -> None:
    """The replay waits, reads again from its last commit, and stores everything; nothing has to be done."""
    pipeline = Pipeline(processes, make_topic(2, own_kafka.bootstrap_servers), fake_s3)
    _fill(pipeline.topic)
    settings = {"MAX_QUEUE": "20"}  # so that it has to read on after the fault
    job = pipeline.commands(settings).start("replay", "--from", "beginning", "--rate", "60", "--output", "json")
    until(lambda: pipeline.shelf.writes >= 60, "60 objects", deadline_s=30)
    own_kafka.kill()
    until(
        lambda: "the session ended" in job.output() or "Unable connect" in job.output(), "it to notice", deadline_s=60
    )
    own_kafka.start()
    assert job.wait(deadline_s=60 + durations.away_s) == 0
    assert len(pipeline.objects()) == RECORDS
    assert json.loads(job.output().splitlines()[-1])["complete"]


def test_s3_away_under_a_replay(filled: Pipeline) -> None:
    """Every put fails for a while: it tries on, tells why, and stores everything once S3 is back."""
    away = filled.s3.script.inject(SLOW_DOWN)
    job = filled.commands().start("replay", "--from", "beginning", "--output", "json")
    until(lambda: away.hits >= 50, "50 refused puts", deadline_s=30)
    until(lambda: "slow_down" in job.output(), "a progress line that says why", deadline_s=20)
    away.heal()
    assert job.wait(deadline_s=60) == 0
    assert len(filled.objects()) == RECORDS
    report = json.loads(job.output().splitlines()[-1])
    assert (report["stored"], report["errors_retried"] >= 50) == (RECORDS, True)


def test_a_replay_gives_up_and_can_go_on(filled: Pipeline) -> None:
    """Where nothing can be stored for as long as was said, it ends with 1, the reason, and the command that goes on;
    nothing counts as stored, and that command stores all of it.
    """
    denied = filled.s3.script.inject(ACCESS_DENIED)
    commands = filled.commands()
    options = ("--from", "beginning", "--job", "denied", "--give-up-after", "4", "--output", "json")
    ran = commands.run("replay", *options)
    assert ran.code == 1, str(ran)
    assert "gave up after 4 s" in ran.document["failed"]
    assert "access_denied" in ran.document["failed"]
    assert (ran.document["stored"], ran.document["complete"]) == (0, False)
    assert {each["settled"] for each in ran.document["partitions"].values()} == {0}
    denied.heal()
    resumed = commands.run(*ran.document["resume"].split()[1:], "--output", "json")
    assert (resumed.code, resumed.document["stored"]) == (0, RECORDS), str(resumed)


def test_verify_beside_errors_of_s3(filled: Pipeline) -> None:
    """Errors that pass change nothing of what it says; one that does not pass is "could not tell", exit code 2, and
    names the records; a missing object beats that, with 1.
    """
    commands = filled.commands()
    assert commands.run("replay", "--from", "beginning").code == 0
    filled.s3.script.inject(INTERNAL_ERROR, method="GET", times=2)  # listings
    filled.s3.script.inject(SLOW_DOWN, method="HEAD", times=40)
    for options in ((), ("--heads",)):
        ran = commands.run("verify", "--from", "beginning", "--output", "json", *options)
        assert (ran.code, ran.document["same"]) == (0, RECORDS), str(ran)
    stuck = filled.s3.script.inject(INTERNAL_ERROR, method="HEAD", key=lambda key: "-0-7-" in key)
    ran = commands.run("verify", "--from", "beginning", "--output", "json", "--heads")
    assert (ran.code, ran.document["unknown"], ran.document["same"]) == (2, 1, RECORDS - 1), str(ran)
    (fault,) = ran.document["faults"]
    assert (fault["partition"], fault["offset"], fault["finding"]) == (0, 7, "unknown")
    filled.shelf.remove(min(filled.objects()))
    ran = commands.run("verify", "--from", "beginning", "--output", "json", "--heads")
    assert (ran.code, ran.document["missing"], ran.document["unknown"]) == (1, 1, 1), str(ran)
    stuck.heal()


def test_verify_that_may_not_ask(filled: Pipeline) -> None:
    """Without permission to look it proves nothing: exit code 2, and S3's own reason; never "missing"."""
    for method in ("GET", "HEAD"):
        filled.s3.script.inject(ACCESS_DENIED, method=method)
    for options in ((), ("--heads",)):
        ran = filled.commands().run("verify", "--from", "beginning", *options)
        assert (ran.code, ran.out) == (2, ""), str(ran)
        assert "S3 answered 403" in ran.err
        assert "needs s3:GetObject and s3:ListBucket" in ran.err
        assert "Traceback" not in ran.err


def test_a_broker_that_is_killed_under_verify(
    own_kafka: "EmbeddedKafka", make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3
) -> None:
    """It reads again what it had not compared, and counts no record twice."""
    pipeline = Pipeline(processes, make_topic(2, own_kafka.bootstrap_servers), fake_s3)
    _fill(pipeline.topic)
    commands = pipeline.commands()
    assert commands.run("replay", "--from", "beginning").code == 0
    slow = pipeline.s3.script.inject(SLOW_DOWN, method="HEAD")
    job = commands.start("verify", "--from", "beginning", "--heads", "--output", "json")
    until(lambda: slow.hits >= 1, "a question", deadline_s=30)
    own_kafka.kill()
    slow.heal()
    own_kafka.start()
    assert job.wait(deadline_s=60) == 0
    report = json.loads(job.output().splitlines()[-1])
    assert (report["records"], report["same"]) == (RECORDS, RECORDS)


def test_ctrl_c_proves_nothing(filled: Pipeline) -> None:
    """A comparison that is interrupted says so, in one line and with 130: neither "all there" nor "missing"."""
    hang = filled.s3.script.inject(Cut.HANG, method="HEAD")
    job = filled.commands().start("verify", "--from", "beginning", "--heads")
    until(lambda: hang.hits >= 1, "a question", deadline_s=30)
    job.send(signal.SIGINT)
    assert job.wait(deadline_s=20) == 130
    assert job.output().splitlines()[-1] == "error: interrupted: nothing is proven"
    assert "Traceback" not in job.output()
