"""Ingest while Kafka is frozen, stopped, missing or refusing: what a client is told is what happened.

Time-outs are shortened in proportion: request 2 s < deadline 3 s.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local.kafka import EmbeddedKafka
from services.ingest.problems import Code
from tests.conftest import MakeTopic
from tests.harness.broker import Broker, Topic, admin
from tests.harness.http_client import Answer, request
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import IngestTier, start_ingest
from tests.harness.waiting import until

QUICK = {
    "KAFKA_PRODUCE_TIMEOUT_S": "2",
    "HTTP_DEADLINE_S": "3",
    "KAFKA_AWAY_AFTER_S": "1",
    "KAFKA_REPLACE_AFTER_S": "5",
    "INGEST_DRAIN_DELAY_S": "0",
}


@pytest.fixture(scope="module")
def _breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    # As brokers are by default: a topic that is asked for by name is made, of one partition.
    broker = EmbeddedKafka(tmp_path_factory.mktemp("breakable"), properties={"auto.create.topics.enable": "true"})
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def breakable(_breakable: EmbeddedKafka) -> Iterator[EmbeddedKafka]:
    """A broker that each test may break and leaves whole, since a start costs seconds; a failed one is mended here."""
    yield _breakable
    if _breakable.process.running:
        _breakable.thaw()
    else:
        _breakable.start()


def post(tier: IngestTier, payload: bytes) -> Answer:
    return request(tier.collections_url, b'{"version":"1","data":[' + payload + b"]}", timeout_s=20)


def make(bootstrap_servers: str, name: str, **options: str) -> Topic:
    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, 1, 1, topic_configs=options)])
        finally:
            await admin.close()

    asyncio.run(create())
    return Topic(bootstrap_servers, name, 1)


def values(topic: Topic) -> Counter[bytes | None]:
    return Counter(record.value for record in topic.records())


def test_no_200_before_the_acks(breakable: EmbeddedKafka, processes: Processes) -> None:
    """While the broker is frozen nothing is answered 200: what was under way is a 504 at the deadline, what never
    reached a batch a 503, and later collections are refused at once. After the thaw it works again by itself.
    """
    # Batches of one collection each, so that what waits behind the produce in flight is in no batch.
    topic = make(breakable.bootstrap_servers, "frozen", **{"max.message.bytes": "3000"})
    tier = start_ingest(processes, topic, QUICK)
    tier.wait_ready()
    assert post(tier, b'"before"').status == 200
    sent = [b'"%d%s"' % (number, b"x" * 2000) for number in range(6)]
    breakable.freeze()
    try:
        with ThreadPoolExecutor(len(sent)) as pool:
            answers: list[Future[Answer]] = [pool.submit(post, tier, payload) for payload in sent]
            told = [answer.result().document["code"] for answer in answers]
        until(lambda: not tier_ready(tier), "ingest to see that Kafka is away", deadline_s=5)
        asked_at = time.monotonic()
        refused = post(tier, b'"refused"')
        took_s = time.monotonic() - asked_at
        until(lambda: tier.metric("spillway_ingest_producer_restarts_total") >= 1, "a replaced producer", deadline_s=15)
    finally:
        breakable.thaw()
    thawed_at = time.monotonic()
    until(lambda: post(tier, b'"after"').status == 200, "ingest to open again", deadline_s=15, every_s=0.2)
    healed_s = time.monotonic() - thawed_at

    assert set(told) == {"outcome_unknown", "kafka_unavailable"}
    assert told.count("outcome_unknown") <= 2  # one produce in flight at a time: at 0 s, and at 2 s
    assert (refused.status, refused.document["code"]) == (503, "kafka_unavailable")
    assert took_s < 1
    assert int(refused.headers["retry-after"]) >= 1
    assert healed_s < 5
    found = values(topic)
    not_written = [payload for payload, code in zip(sent, told, strict=True) if code == "kafka_unavailable"]
    assert not any(found[payload] for payload in [*not_written, b'"refused"'])
    assert found[b'"before"'] == found[b'"after"'] == 1


def tier_ready(tier: IngestTier) -> bool:
    return not tier.reasons()


def test_a_stopped_broker_is_a_503_and_its_return_is_seen(breakable: EmbeddedKafka, processes: Processes) -> None:
    """Refused connections: nothing is written, so 503 and never 504; readiness says which address is silent. An ingest
    that starts meanwhile serves such 503s too, and both go on when Kafka comes.
    """
    topic = make(breakable.bootstrap_servers, "stopped")
    tier = start_ingest(processes, topic, QUICK)
    tier.wait_ready()
    assert post(tier, b'"before"').status == 200
    breakable.stop()
    started = start_ingest(processes, topic, QUICK)
    answers = [post(tier, b'"meanwhile"')]
    for one in (tier, started):
        until(lambda one=one: "no broker" in tier_reasons(one).get("kafka", ""), "readiness to say so", deadline_s=10)
        assert breakable.bootstrap_servers in one.reasons()["kafka"]
        answers.append(post(one, b'"meanwhile"'))
    assert [(answer.status, answer.document["outcome"]) for answer in answers] == [(503, "not_written")] * 3
    assert breakable.bootstrap_servers in answers[-1].document["detail"]
    breakable.start()
    for one in (tier, started):
        until(lambda one=one: post(one, b'"after"').status == 200, "ingest to open again", deadline_s=15, every_s=0.2)
    found = values(topic)
    assert (found[b'"before"'], found[b'"meanwhile"'], found[b'"after"']) == (1, 0, 2)


def tier_reasons(tier: IngestTier) -> dict[str, str]:
    try:
        return tier.reasons()
    except ValueError:  # nobody answers on the ops port yet
        return {}


def test_a_missing_topic_is_named_and_never_made_by_accident(breakable: EmbeddedKafka, processes: Processes) -> None:
    """Without its topic ingest answers 503 and names the command; once the topic is there it goes on. Ingest itself
    makes none, though the broker would for the asking: neither at the start nor when it is deleted.
    """
    name = f"missing-{free_port()}"
    tier = start_ingest(processes, Topic(breakable.bootstrap_servers, name, 1), QUICK)
    for _ in range(2):
        until(lambda: name in tier_reasons(tier).get("topic", ""), "readiness to name the topic", deadline_s=20)
        answer = post(tier, b"1")
        assert (answer.status, answer.document["code"]) == (503, Code.TOPIC_UNAVAILABLE.name.lower())
        assert "spillway-uploader topics" in answer.document["detail"]
        assert name not in topics(breakable.bootstrap_servers)
        topic = make(breakable.bootstrap_servers, name)
        tier.wait_ready()
        assert post(tier, b'"now"').status == 200
        assert values(topic) == Counter([b'"now"'])
        delete(topic)
        until(lambda: post(tier, b"2").status == 503, "the deletion to be noticed", deadline_s=20)


def topics(bootstrap_servers: str) -> list[str]:
    async def ask() -> list[str]:
        async with admin(bootstrap_servers) as client:
            found: list[str] = await client.list_topics()
        return found

    return asyncio.run(ask())


def delete(topic: Topic) -> None:
    async def ask() -> None:
        async with admin(topic.bootstrap_servers) as client:
            answer = await client.delete_topics([topic.name])
        assert [entry[1] for entry in answer.topic_error_codes] == [0], answer

    asyncio.run(ask())
    until(lambda: topic.name not in topics(topic.bootstrap_servers), "the topic to be gone", deadline_s=10)


@pytest.mark.parametrize("min_insync", ["1", "2"])
def test_too_few_replicas_to_be_durable(min_insync: str, kafka: Broker, processes: Processes) -> None:
    """A topic below KAFKA_MIN_INSYNC takes nothing: acks=all would promise what it cannot keep. At one replica Kafka 4
    acknowledges with one copy even where min.insync.replicas is 2.
    """
    topic = make(kafka.bootstrap_servers, f"thin-{free_port()}", **{"min.insync.replicas": min_insync})
    tier = start_ingest(processes, topic, {**QUICK, "KAFKA_MIN_INSYNC": "2"})
    until(lambda: "KAFKA_MIN_INSYNC=2" in tier_reasons(tier).get("topic", ""), "readiness to say so", deadline_s=20)
    answer = post(tier, b"1")
    assert (answer.status, answer.document["outcome"]) == (503, "not_written")
    assert values(topic) == Counter()


def test_a_refusal_of_the_broker_is_told_at_once(kafka: Broker, processes: Processes) -> None:
    """A batch that the broker refuses on the first try: 503, nothing written, and the reason in the detail."""
    topic = make(kafka.bootstrap_servers, f"old-{free_port()}", **{"message.timestamp.before.max.ms": "0"})
    tier = start_ingest(processes, topic, QUICK)
    tier.wait_ready()
    asked_at = time.monotonic()
    answer = post(tier, b"1")
    assert (answer.status, answer.document["code"]) == (503, "kafka_refused")
    assert "InvalidTimestamp" in answer.document["detail"]
    assert time.monotonic() - asked_at < 1.5
    assert values(topic) == Counter()


def test_full_admission_sheds_at_once(breakable: EmbeddedKafka, processes: Processes, make_topic: MakeTopic) -> None:
    """Past MAX_IN_FLIGHT_BYTES a collection is refused at once instead of queued in front of the queue."""
    topic = make_topic(partitions=1, bootstrap_servers=breakable.bootstrap_servers)
    settings = {"MAX_BODY_BYTES": "10000", "MAX_IN_FLIGHT_BYTES": "20000", "KAFKA_AWAY_AFTER_S": "4.9"}
    tier = start_ingest(processes, topic, {**QUICK, **settings})
    tier.wait_ready()
    assert post(tier, b"0").status == 200
    breakable.freeze()
    try:
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(post, tier, b'"' + b"x" * 9000 + b'"') for _ in range(2)]
            until(lambda: tier.metric("spillway_ingest_in_flight_bytes") > 18000, "the bodies in flight", deadline_s=5)
            asked_at = time.monotonic()
            shed = post(tier, b'"' + b"y" * 2000 + b'"')
            took_s = time.monotonic() - asked_at
            assert [one.result().status for one in held] == [504, 504]
    finally:
        breakable.thaw()
    assert (shed.status, shed.document["code"]) == (503, "overloaded")
    assert took_s < 1
    assert int(shed.headers["retry-after"]) >= 1
    assert tier.metric("spillway_ingest_in_flight_bytes") == 0
