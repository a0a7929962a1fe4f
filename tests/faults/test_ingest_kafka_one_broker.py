"""One ingest, one broker, clients that follow the rules, and everything that can happen to a broker or to its topic.

Judged from Kafka's log alone: every 200 is there with its bytes under its id, nothing of what was refused is, and
memory stays within its bound. Each time admission opens by itself within 5 s after a client of the test was answered.
"""

import asyncio
import resource
import time
from collections.abc import Callable, Iterator

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.kafka import EmbeddedKafka
from tests.harness.broker import Topic, admin
from tests.harness.durations import Durations
from tests.harness.forwarder import Forwarder
from tests.harness.healing import OPEN_DEADLINE_S, wait_healed
from tests.harness.http_client import request
from tests.harness.load import envelope, payloads
from tests.harness.processes import Processes, free_port
from tests.harness.rule_following import RuleFollowers, judge_log, settle
from tests.harness.tiers import IngestTier, start_ingest
from tests.harness.waiting import until

AWAY: dict[str, tuple[Callable[[EmbeddedKafka], None], Callable[[EmbeddedKafka], None], set[str]]] = {
    "stopped": (EmbeddedKafka.stop, EmbeddedKafka.start, {"", "kafka_unavailable", "outcome_unknown"}),
    "frozen": (EmbeddedKafka.freeze, EmbeddedKafka.thaw, {"", "kafka_unavailable", "outcome_unknown"}),
    "killed": (EmbeddedKafka.kill, EmbeddedKafka.start, {"", "kafka_unavailable", "outcome_unknown"}),
}
"""How it goes, how it comes back, and what may be told."""

BUDGET_BYTES = 64 * 1024 * 1024
"""MAX_IN_FLIGHT_BYTES as it is by default."""

BEYOND_BUDGET_BYTES = 56 * 1024 * 1024
"""What ingest takes beyond it: a batch a partition, built and encoded, and what the sockets of 140 clients hold whose
bodies are not read. Measured: 28 to 40 MiB.
"""

LARGE_BYTES = 900_000
"""A payload near the largest that the topic takes."""


@pytest.fixture
def topic(own_kafka: EmbeddedKafka, make_topic: Callable[..., Topic]) -> Topic:
    """4 partitions on a broker that the test may break."""
    return make_topic(bootstrap_servers=own_kafka.bootstrap_servers)


@pytest.fixture
def tier(topic: Topic, processes: Processes) -> IngestTier:
    """A ready ingest with the settings of production."""
    one = start_ingest(processes, topic)
    one.wait_ready()
    return one


def reopens(clients: RuleFollowers, topic: Topic) -> None:
    """Kafka heals, and clients are answered 200 again within the time that is promised."""
    wait_healed(topic)
    clients.wait_accepted("a 200 after Kafka has healed", deadline_s=OPEN_DEADLINE_S)


@pytest.mark.parametrize("how", AWAY)
def test_the_broker_goes_and_comes_back(
    how: str, own_kafka: EmbeddedKafka, topic: Topic, tier: IngestTier, durations: Durations
) -> None:
    """Stopped, frozen, killed under load: 504 for what was under way, 503 for the rest, and it opens by itself."""
    go, come, allowed = AWAY[how]
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=20)
        gone_s = time.monotonic()
        go(own_kafka)
        until(
            lambda: time.monotonic() - gone_s > durations.away_s and clients.codes(gone_s)["kafka_unavailable"] > 5,
            "the end of its absence, and refusals",
            deadline_s=durations.away_s + 30,
        )
        refused_s = time.monotonic()
        come(own_kafka)
        reopens(clients, topic)
        settle(tier, topic, clients)
    assert set(clients.codes()) <= allowed
    assert clients.codes(refused_s)[""] > 0


def test_memory_is_bounded(own_kafka: EmbeddedKafka, topic: Topic, tier: IngestTier) -> None:
    """Twice as much is posted at once as MAX_IN_FLIGHT_BYTES allows, and Kafka freezes over it: ingest grows by that
    budget and a constant, answers every client, and goes on.
    """
    with RuleFollowers(tier, clients=2 * BUDGET_BYTES // LARGE_BYTES, items=1, size=LARGE_BYTES, every_s=1) as clients:
        clients.wait_accepted("the first answers", deadline_s=30, more=20)
        frozen_s = time.monotonic()
        own_kafka.freeze()
        try:
            until(lambda: clients.codes(frozen_s)["kafka_unavailable"] > 100, "refusals", deadline_s=30)
        finally:
            own_kafka.thaw()
        reopens(clients, topic)
        settle(tier, topic, clients, growth_max_bytes=BUDGET_BYTES + BEYOND_BUDGET_BYTES)
    assert "overloaded" in clients.codes()
    assert set(clients.codes()) <= {"", "overloaded", "kafka_unavailable", "outcome_unknown"}


def test_a_full_disk(own_kafka: EmbeddedKafka, topic: Topic, tier: IngestTier) -> None:
    """The broker cannot write any more and halts: what it had in hand is a 504, then 503; a restart heals it."""
    with RuleFollowers(tier, size=20_000) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=10)
        full_s = time.monotonic()
        # No write past the first 64 KiB of any file succeeds, as on a device without space: EFBIG for ENOSPC.
        resource.prlimit(own_kafka.process.pid, resource.RLIMIT_FSIZE, (65_536, 65_536))
        until(lambda: not own_kafka.running, "the broker to halt", deadline_s=30)
        until(lambda: clients.codes(full_s)["kafka_unavailable"] > 5, "refusals", deadline_s=30)
        own_kafka.start()
        reopens(clients, topic)
        settle(tier, topic, clients)
    assert set(clients.codes()) <= {"", "kafka_unavailable", "outcome_unknown"}


def test_a_topic_deleted_and_made_anew(topic: Topic, tier: IngestTier) -> None:
    """While it is gone clients are told so by name and nothing makes it; once it is back, with fewer partitions, it is
    written to.
    """
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=20)
        settle_first = clients.stop()
        assert not judge_log(settle_first, topic).faults
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("answers", deadline_s=20, more=5)
        gone_s = time.monotonic()
        asyncio.run(delete(topic))
        until(lambda: clients.codes(gone_s)["topic_unavailable"] > 5, "refusals that name the topic", deadline_s=20)
        accepted_before = set(clients.answers.accepted)
        assert topic.name not in asyncio.run(names(topic))
        remade = Topic(topic.bootstrap_servers, topic.name, 2)
        until(lambda: made(remade), "the topic to be made anew", deadline_s=20)
        wait_healed(remade)
        clients.wait_accepted("a 200 from the new topic", deadline_s=OPEN_DEADLINE_S)
        pinned = [post_pinned(tier, f"key-{number}") for number in range(8)]
        answers = clients.stop()
    for one in accepted_before:  # gone with the old topic
        answers.accepted.pop(one)
    for ids, items in pinned:
        answers.accept(ids, items)
    verdict = judge_log(answers, remade)
    assert not verdict.faults, str(verdict)
    assert set(clients.codes()) <= {"", "topic_unavailable", "kafka_unavailable", "outcome_unknown"}


def post_pinned(tier: IngestTier, key: str) -> tuple[list[str], list[bytes]]:
    items = payloads(2)
    answer = request(tier.collections_url, envelope(items), headers={"Partition-Key": key})
    assert answer.status == 200, answer
    return answer.document["ids"], items


async def delete(topic: Topic) -> None:
    async with admin(topic.bootstrap_servers) as client:
        answer = await client.delete_topics([topic.name, topic.dead])
    assert [entry[1] for entry in answer.topic_error_codes] == [0, 0], answer  # returned, never raised


async def names(topic: Topic) -> list[str]:
    async with admin(topic.bootstrap_servers) as client:
        found: list[str] = await client.list_topics()
    return found


def made(topic: Topic) -> bool:
    """Make it; False where the broker still deletes the old one."""
    try:
        topic.create()
    except (AssertionError, KafkaError):
        return False
    return True


def test_a_record_too_large_for_the_broker(topic: Topic, tier: IngestTier) -> None:
    """`max.message.bytes` is lowered while ingest runs: a collection with a payload that is now too large is a 413 and
    nothing of it is in the topic, the rest goes on.
    """
    with RuleFollowers(tier, size=300) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=5)
        asyncio.run(limit(topic, 2_000))
        large = [[*payloads(2), *payloads(1, size=4_000), *payloads(1)] for _ in range(6)]
        told = [request(tier.collections_url, envelope(items)) for items in large]
        clients.wait_accepted("the small ones", deadline_s=OPEN_DEADLINE_S, more=20)
        for items in large:
            clients.answers.refused.update(items)
        settle(tier, topic, clients)
    assert [(answer.status, answer.document["code"]) for answer in told] == [(413, "record_too_large")] * 6
    assert set(clients.codes()) == {""}


async def limit(topic: Topic, message_bytes_max: int) -> None:
    resource_of = ConfigResource(
        ConfigResourceType.TOPIC, topic.name, {"max.message.bytes": str(message_bytes_max), "min.insync.replicas": "1"}
    )
    async with admin(topic.bootstrap_servers) as client:
        answers = await client.alter_configs([resource_of])
    assert all(one[0] == 0 for answer in answers for one in answer.resources), answers


@pytest.fixture
def movable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker whose address the test changes."""
    broker = EmbeddedKafka(tmp_path_factory.mktemp("movable"))
    broker.start()
    yield broker
    broker.stop()


def test_all_addresses_change(movable: EmbeddedKafka, make_topic: Callable[..., Topic], processes: Processes) -> None:
    """The broker comes back at another address behind the same bootstrap address: the producer, which knows only the
    old one, is replaced without a restart.
    """
    with Forwarder(free_port(), movable.port) as bootstrap:
        topic = make_topic(bootstrap_servers=bootstrap.address)
        tier = start_ingest(processes, topic, {"KAFKA_REPLACE_AFTER_S": "300"})  # it is not for the silence
        tier.wait_ready()
        with RuleFollowers(tier) as clients:
            clients.wait_accepted("the first answers", deadline_s=20, more=20)
            movable.stop()
            until(lambda: clients.codes()["kafka_unavailable"] > 5, "refusals", deadline_s=30)
            movable.port = bootstrap.target_port = free_port()
            movable.start()
            reopens(clients, topic)
            settle(tier, topic, clients)
        assert tier.metric("spillway_ingest_producer_restarts_total") == 1
    assert set(clients.codes()) <= {"", "kafka_unavailable", "outcome_unknown"}
