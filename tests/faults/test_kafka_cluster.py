"""Three brokers: one after another is restarted, and the group's coordinator dies, under load."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from aiokafka.errors import KafkaError

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic, admin
from tests.harness.cluster import NODES, Cluster
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers, ended whatever happens."""
    brokers = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.stop()


@pytest.fixture
def on_three(cluster: Cluster, processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """A pipeline over a topic of three replicas."""
    cluster.start()  # what the test before may have left stopped
    topic = Topic(cluster.bootstrap_servers, f"t-{uuid.uuid4().hex[:12]}", 4, replicas=NODES)
    topic.create()
    return Pipeline(processes, topic, fake_s3)


def in_sync(topic: Topic) -> int:
    """The replicas in sync of the partition that has the fewest; 0 while nobody can be asked."""

    async def ask() -> int:
        async with asyncio.timeout(10), admin(topic.bootstrap_servers) as client:
            (found,) = await client.describe_topics([topic.name])
            return min((len(partition["isr"]) for partition in found["partitions"]), default=0)

    try:
        return asyncio.run(ask())
    except (KafkaError, TimeoutError):
        return 0


def coordinator(topic: Topic) -> int:
    """The id of the broker that coordinates the group."""

    async def ask() -> int:
        async with asyncio.timeout(10), admin(topic.bootstrap_servers) as client:
            found: int = await client.find_coordinator(topic.group)
            return found

    return asyncio.run(ask())


def test_a_rolling_restart(cluster: Cluster, on_three: Pipeline) -> None:
    """Each broker is stopped in order, started, and back in sync before the next: nothing lost, no restart of ours."""
    ingest, uploader = on_three.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: on_three.shelf.writes > 50, "the first objects", deadline_s=20)
        for node in cluster.nodes:
            node.stop()
            accepted = load.accepted
            until(lambda accepted=accepted: load.accepted > accepted + 50, "load on two brokers", deadline_s=40)  # type: ignore[misc]
            node.start()
            until(lambda: in_sync(on_three.topic) == NODES, "all replicas in sync", deadline_s=60, every_s=0.5)
        answers = load.stop()
    on_three.settle(answers, deadline_s=60)  # the slower the brokers start, the more there is
    assert set(answers.statuses) <= {200, 503, 504}, dict(answers.statuses)
    assert (ingest.process.returncode, uploader.process.returncode) == (None, None)


def test_the_coordinator_dies(cluster: Cluster, on_three: Pipeline) -> None:
    """Killed, another broker coordinates the group; the uploader finds it, and commits go on without it."""
    ingest, uploader = on_three.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: on_three.shelf.writes > 50, "the first objects", deadline_s=20)
        dead = coordinator(on_three.topic)
        cluster.node(dead).kill()
        try:
            accepted = load.accepted
            until(lambda: load.accepted > accepted + 200, "load on two brokers", deadline_s=40)
            answers = load.stop()
            on_three.settle(answers)
            assert coordinator(on_three.topic) != dead
        finally:
            cluster.node(dead).start()
    assert set(answers.statuses) <= {200, 503, 504}, dict(answers.statuses)
    assert (ingest.process.returncode, uploader.process.returncode) == (None, None)
