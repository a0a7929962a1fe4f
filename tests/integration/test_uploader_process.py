"""The uploader as its operator meets it: commands, messages, exit codes, and what it waits for."""

import uuid
from collections.abc import Callable

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED
from tests.harness.broker import Broker, Topic
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import BUCKET, Pipeline
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import get, start_uploader
from tests.harness.waiting import until

MakeTopic = Callable[..., Topic]


@pytest.fixture
def nowhere() -> Topic:
    """A topic on an address where nobody listens."""
    return Topic(f"127.0.0.1:{free_port()}", "payloads", 1)


def test_topics_makes_both_and_is_repeatable(kafka: Broker, processes: Processes) -> None:
    """12 partitions, LogAppendTime; a second run changes nothing and says so; a difference is named, exit 1."""
    topic = Topic(kafka.bootstrap_servers, f"made-{uuid.uuid4().hex[:8]}", 12)
    for _ in range(2):
        command = processes.python("topics", "services.uploader", "topics", environment=topic.environment())
        assert command.wait(deadline_s=30) == 0, command.tail()
        assert "are as they should be" in command.output()
    assert sorted(topic.ends()) == list(range(12))

    stricter = {**topic.environment(), "KAFKA_MIN_INSYNC": "2"}
    command = processes.python("topics", "services.uploader", "topics", environment=stricter)
    assert command.wait(deadline_s=30) == 1
    assert f"topic {topic.name}: min.insync.replicas is 1, not KAFKA_MIN_INSYNC=2" in command.output()


def test_topics_names_a_broker_that_does_not_answer(nowhere: Topic, processes: Processes) -> None:
    """It cannot go on: one line with the address, exit 1."""
    command = processes.python("topics", "services.uploader", "topics", environment=nowhere.environment())
    assert command.wait(deadline_s=30) == 1
    assert command.output().startswith(f"error: KAFKA_BOOTSTRAP_SERVERS={nowhere.bootstrap_servers}: ")
    assert command.output().count("\n") == 1


def test_a_taken_ops_port_is_named(nowhere: Topic, processes: Processes, fake_s3: FakeS3) -> None:
    """One line with the variable and the address, exit 1."""
    port = fake_s3.endpoint_url.rsplit(":", 1)[1]
    taken = {"UPLOADER_OPS_PORT": port}
    uploader = start_uploader(processes, nowhere, fake_s3.environment(), BUCKET, taken)
    assert uploader.process.wait(deadline_s=30) == 1
    assert f"error: UPLOADER_OPS_PORT={port}: cannot listen on 127.0.0.1:{port}" in uploader.process.output()


def test_a_missing_bucket_variable_is_named(nowhere: Topic, processes: Processes) -> None:
    """Nothing starts, exit 2."""
    command = processes.python("uploader", "services.uploader", "run", environment=nowhere.environment())
    assert command.wait(deadline_s=30) == 2
    assert command.output() == "error: S3_BUCKET is required and not set\n"


def test_an_unreachable_broker_is_named_and_waited_for(nowhere: Topic, processes: Processes, fake_s3: FakeS3) -> None:
    """It goes on trying, `/readyz` and the log name the address, and SIGTERM ends it with 0."""
    fake_s3.create_bucket(BUCKET)
    uploader = start_uploader(processes, nowhere, fake_s3.environment(), BUCKET)
    until(
        lambda: nowhere.bootstrap_servers in str(get(f"{uploader.ops_url}/readyz")),
        "readyz to name the broker",
        deadline_s=30,
    )
    assert nowhere.bootstrap_servers in uploader.process.output()
    assert get(f"{uploader.ops_url}/livez")[0] == 200
    assert uploader.process.terminate() == 0


def test_a_missing_bucket_and_a_missing_topic_are_named_and_waited_for(
    kafka: Broker, processes: Processes, fake_s3: FakeS3
) -> None:
    """Each is said in words; when both are made, work begins without a restart."""
    topic = Topic(kafka.bootstrap_servers, f"late-{uuid.uuid4().hex[:8]}", 2)
    uploader = start_uploader(processes, topic, fake_s3.environment(), "late-bucket")
    until(
        lambda: "late-bucket" in uploader.reasons().get("s3", "") if get(f"{uploader.ops_url}/readyz")[0] else False,
        "readyz to name the bucket",
        deadline_s=30,
    )
    assert "no_such_bucket" in uploader.reasons()["s3"]
    fake_s3.create_bucket("late-bucket")
    until(lambda: topic.name in uploader.reasons().get("topic", ""), "readyz to name the topic", deadline_s=30)
    topic.create()
    uploader.wait_ready()


def test_sigterm_commits_what_is_stored(processes: Processes, make_topic: MakeTopic, fake_s3: FakeS3) -> None:
    """With a commit clock that never strikes, only the drain commits: everything stored, and exit 0."""
    pipeline = Pipeline(processes, make_topic(2), fake_s3)
    ingest, uploader = pipeline.ready({"COMMIT_INTERVAL_S": "40"})
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(30), payloads(30)], answers)
    until(lambda: len(pipeline.objects()) == 60, "60 objects", deadline_s=30)
    assert pipeline.topic.committed() == {}
    assert uploader.process.terminate() == 0
    assert pipeline.topic.lag() == 0


def test_lag_is_the_brokers_also_while_nothing_is_fetched(
    processes: Processes, make_topic: MakeTopic, fake_s3: FakeS3
) -> None:
    """In an S3 outage a full partition is not fetched; the metric follows the end of the log all the same."""
    pipeline = Pipeline(processes, make_topic(1), fake_s3)
    ingest, uploader = pipeline.ready({"MAX_QUEUE": "10"})
    pipeline.s3.script.inject(ACCESS_DENIED)
    for _ in range(3):
        post_at_once(ingest.collections_url, [payloads(100)], Answers())
        lag = pipeline.topic.ends()[0]
        until(lambda: uploader.metric("spillway_uploader_lag_records") == lag, f"a lag of {lag}", deadline_s=20)  # noqa: B023


def test_an_unknown_profile_is_named(nowhere: Topic, processes: Processes, fake_s3: FakeS3) -> None:
    """AWS's own variables are settings too: one line, exit 2."""
    profile = {"AWS_PROFILE": "nonexistent"}
    uploader = start_uploader(processes, nowhere, fake_s3.environment(), BUCKET, profile)
    assert uploader.process.wait(deadline_s=30) == 2
    assert "nonexistent" in uploader.process.output()
    assert "Traceback" not in uploader.process.output()


def test_max_queue_bounds_what_is_buffered_and_access_denied_drops_nothing(
    processes: Processes, make_topic: MakeTopic, fake_s3: FakeS3
) -> None:
    """While S3 denies access, a partition holds at most MAX_QUEUE payloads and its member stays in the group, saying
    why; when access is granted, everything is stored.
    """
    pipeline = Pipeline(processes, make_topic(1), fake_s3)
    ingest, uploader = pipeline.ready({"MAX_QUEUE": "50", "MAX_WORKERS": "4"})
    denied = fake_s3.script.inject(ACCESS_DENIED)
    answers = Answers()
    items = payloads(600)
    post_at_once(ingest.collections_url, [items[i : i + 20] for i in range(0, len(items), 20)], answers)
    until(lambda: uploader.metric("spillway_uploader_buffered_records") >= 25, "a buffer", deadline_s=30)
    until(lambda: denied.hits >= 8, "retries", deadline_s=30)
    assert uploader.metric("spillway_uploader_buffered_records") <= 50
    assert "access_denied" in uploader.reasons()["s3"]
    assert uploader.metric("spillway_uploader_assignment_epoch") == 1
    denied.heal()
    pipeline.settle(answers)
    assert uploader.process.terminate() == 0
