"""One ingest and three brokers: what one broker's or one partition's trouble costs is that partition's, and no more.

Judged from Kafka's log alone, as in `test_ingest_kafka_one_broker`.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator

import pytest
from aiokafka.admin import NewTopic
from aiokafka.partitioner import murmur2

from tests.harness.broker import Topic, admin
from tests.harness.cluster import NODES, Cluster
from tests.harness.durations import Durations
from tests.harness.healing import OPEN_DEADLINE_S, wait_healed
from tests.harness.oracle import Answers
from tests.harness.processes import Processes
from tests.harness.rule_following import RuleFollowers, settle
from tests.harness.tiers import IngestTier, start_ingest
from tests.harness.waiting import until

SESSION_MS = 9_000
"""How long a silent broker stays a broker and the leader of its partitions: Kafka's default, longer than a produce."""


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    brokers = Cluster(tmp_path_factory.mktemp("cluster"), {"broker.session.timeout.ms": str(SESSION_MS)})
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.stop()


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Three brokers, whole when a test gets them."""
    _cluster.start()
    yield _cluster
    for node in _cluster.nodes:
        if node.running:
            node.thaw()


def make(cluster: Cluster, *, replicas: int, **options: str) -> Topic:
    """A topic of 3 partitions: partition p is led by broker p + 1, where that one lives."""
    topic = Topic(cluster.bootstrap_servers, f"t-{uuid.uuid4().hex[:12]}", NODES, replicas=replicas)
    places = {p: [(p + place) % NODES + 1 for place in range(replicas)] for p in range(NODES)}
    options = {"min.insync.replicas": str(topic.min_insync), **options}

    async def create() -> None:
        async with admin(topic.bootstrap_servers) as client:
            answer = await client.create_topics(
                [NewTopic(topic.name, -1, -1, replica_assignments=places, topic_configs=options)]
            )
            assert not [entry for entry in answer.topic_errors if entry[1] != 0], answer

    asyncio.run(create())
    wait_healed(topic)
    return topic


def start(processes: Processes, topic: Topic) -> IngestTier:
    tier = start_ingest(processes, topic)
    tier.wait_ready()
    return tier


def key_of(partition: int) -> dict[str, str]:
    """A header that pins this partition of three."""
    key = next(key for key in map(str, range(100)) if (murmur2(key.encode()) & 0x7FFFFFFF) % NODES == partition)
    return {"Partition-Key": key}


@contextlib.contextmanager
def both(
    tier: IngestTier, partition: int, *, clients: int = 4, every_s: float = 0.05
) -> Iterator[tuple[RuleFollowers, RuleFollowers]]:
    """Clients that leave the partition open, and one that pins this one; what they are told is one."""
    answers = Answers()
    with (
        RuleFollowers(tier, clients=clients, every_s=every_s, answers=answers) as free,
        RuleFollowers(tier, clients=1, headers=key_of(partition), answers=answers) as pinned,
    ):
        yield free, pinned


def test_the_leader_moves(cluster: Cluster, processes: Processes, durations: Durations) -> None:
    """Each broker is stopped in order and started again: the others take over, no client is refused for long, nothing
    is lost.
    """
    topic = make(cluster, replicas=3)
    tier = start(processes, topic)
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=20)
        for node in cluster.nodes if durations.form == "long" else cluster.nodes[:1]:
            node.stop()
            wait_healed(topic)
            clients.wait_accepted("a 200 on two brokers", deadline_s=OPEN_DEADLINE_S, more=NODES)
            node.start()
            wait_healed(topic)
            clients.wait_accepted("a 200 on three brokers", deadline_s=OPEN_DEADLINE_S, more=NODES)
        settle(tier, topic, clients)
    assert set(clients.codes()) <= {"", "kafka_unavailable", "outcome_unknown"}


def test_too_few_replicas_in_sync(cluster: Cluster, processes: Processes) -> None:
    """min.insync.replicas is broken by one broker's death: what was appended before that was known is a 504, the rest
    is refused, 503; with the broker back it goes on.
    """
    topic = make(cluster, replicas=3, **{"min.insync.replicas": "3"})
    tier = start(processes, topic)
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=20)
        cluster.node(1).kill()
        until(lambda: clients.codes()["kafka_refused"] > 10, "refusals of the brokers", deadline_s=40)
        cluster.node(1).start()
        wait_healed(topic)
        clients.wait_accepted("a 200 from three brokers", deadline_s=OPEN_DEADLINE_S)
        settle(tier, topic, clients)
    assert set(clients.codes()) <= {"", "kafka_refused", "kafka_unavailable", "outcome_unknown"}


def test_two_of_three_die(cluster: Cluster, processes: Processes) -> None:
    """The one that is left answers but can have nothing acknowledged: in doubt what it took, and soon the others are
    refused at once, since no ack has come for the deadline.
    """
    topic = make(cluster, replicas=3)
    tier = start(processes, topic)
    with RuleFollowers(tier, clients=12) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=20)
        for node in (1, 2):
            cluster.node(node).kill()
        until(lambda: clients.codes()["outcome_unknown"] > 0, "a doubt", deadline_s=40)
        until(lambda: quick_refusals(clients) > 10, "refusals at once", deadline_s=40)
        cluster.start()
        wait_healed(topic)
        clients.wait_accepted("a 200 from three brokers", deadline_s=OPEN_DEADLINE_S)
        settle(tier, topic, clients)
    assert set(clients.codes()) <= {"", "kafka_refused", "kafka_unavailable", "outcome_unknown"}


def quick_refusals(clients: RuleFollowers) -> int:
    return sum(one.code == "kafka_unavailable" and one.at_s - one.asked_s < 1 for one in list(clients.seen))


def test_one_partition_without_a_leader(cluster: Cluster, processes: Processes) -> None:
    """Requests go on over the other partitions; only who asks for that one is refused, and it comes back by itself."""
    topic = make(cluster, replicas=1)
    tier = start(processes, topic)
    with both(tier, 1) as (clients, pinned):
        for one in (clients, pinned):
            one.wait_accepted("the first answers", deadline_s=20, more=5)
        cluster.node(2).kill()
        until(lambda: pinned.codes()["kafka_unavailable"] > 0, "a refusal of the pinned", deadline_s=20)
        gone_s = time.monotonic()
        clients.wait_accepted("answers of the others", deadline_s=20, more=50)
        meanwhile = clients.codes(gone_s)
        cluster.node(2).start()
        wait_healed(topic)
        pinned.wait_accepted("a 200 of the pinned", deadline_s=OPEN_DEADLINE_S)
        settle(tier, topic, clients, pinned)
    assert set(meanwhile) == {""}
    assert set(pinned.codes()) <= {"", "kafka_unavailable", "outcome_unknown"}


@pytest.mark.parametrize("replicas", [3, 1], ids=["elected", "thawed"])
def test_one_broker_of_three_freezes(replicas: int, cluster: Cluster, processes: Processes) -> None:
    """At the lowest load, with longer between two acks than KAFKA_AWAY_AFTER_S, nobody is refused: one frozen broker is
    no absence of Kafka, and an ingest that starts meanwhile is ready. What was in flight there is in doubt. Its
    partition comes back with the election of another leader, or with the thaw.
    """
    topic = make(cluster, replicas=replicas)
    tier = start(processes, topic)
    with both(tier, 0, clients=1, every_s=3) as (clients, pinned):
        for one in (clients, pinned):
            one.wait_accepted("the first answers", deadline_s=20, more=2)
        frozen_s = time.monotonic()
        cluster.node(1).freeze()
        try:
            start(processes, topic)
            until(lambda: pinned.codes()["outcome_unknown"], "a doubt about what was in flight", deadline_s=20)
            if replicas > 1:
                wait_healed(topic)
                pinned.wait_accepted("a 200 of the new leader", deadline_s=OPEN_DEADLINE_S)
            clients.wait_accepted("answers of the others", deadline_s=30, more=3)
        finally:
            cluster.node(1).thaw()
        wait_healed(topic)
        pinned.wait_accepted("a 200 of the thawed broker's partition", deadline_s=OPEN_DEADLINE_S)
        settle(tier, topic, clients, pinned)
    assert set(clients.codes(frozen_s)) <= {"", "outcome_unknown"}
    assert tier.metric("spillway_ingest_producer_restarts_total") == 0
