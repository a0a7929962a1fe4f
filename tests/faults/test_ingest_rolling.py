"""Ingests are restarted one after the other, as a deployment does, and no client that follows the rules notices.

Judged from outside: what clients were told, Kafka's log or the bucket, exit codes, readiness as a balancer sees it.
"""

import http.client
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from deploy.local.kafka import EmbeddedKafka
from shared.record import new_collection_id
from tests.harness.balancer import Balancer
from tests.harness.broker import Topic
from tests.harness.durations import Durations
from tests.harness.front import front
from tests.harness.http_client import Answer, request
from tests.harness.load import envelope, payloads
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes, free_port
from tests.harness.raw_http import post as raw_post
from tests.harness.replica import EXIT_SLACK_S, HTTP_DEADLINE_S, Replica
from tests.harness.rule_following import RuleFollowers, judge_log
from tests.harness.tiers import IngestTier, get, start_ingest
from tests.harness.waiting import eventually, never, until

TOLD = {"", "lost", "draining", "overloaded"}
"""What a client may meet in a rolling restart: 200, a connection that is gone, and two kinds of 503."""


def test_a_rolling_restart_under_load(
    make_topic: Callable[..., Topic], processes: Processes, durations: Durations
) -> None:
    """Two replicas behind a balancer, restarted one after the other: somebody answers 200 at any time, every 200 is in
    the topic exactly, nothing else is told but the documented 503, and each collection comes to its 200.
    """
    topic = make_topic()
    replicas = [Replica.begin(lambda ports: start_ingest(processes, topic, ports)) for _ in range(2)]
    for replica in replicas:
        replica.tier.wait_ready()
    with Balancer([replica.backend for replica in replicas], free_port()) as balancer, ExitStack() as stack:
        until(lambda: len(balancer.ready) == 2, "the balancer to see both", deadline_s=10)
        clients = [stack.enter_context(one) for one in followers(replicas[0].tier, balancer)]
        for replica in replicas * (2 if durations.form == "long" else 1):
            wait_all(clients, "answers before the restart", more=10)
            replica.stop()
            wait_all(clients, "answers of the other one", more=10)
            replica.again()
            until(lambda: len(balancer.ready) == 2, "the balancer to see it again", deadline_s=10)
            taken = balancer.taken[replica.backend]
            until(lambda: balancer.taken[replica.backend] > taken, "connections to the new one", deadline_s=10)  # noqa: B023 - asked at once
        wait_all(clients, "answers after the restarts", more=10)
        for one in clients:
            answers = one.stop()  # the same, of all of them
    verdict = judge_log(answers, topic)
    told = sum((one.codes() for one in clients), Counter[str]())
    print(f"{verdict}; told {dict(told)}; {balancer.refused} connections refused")  # noqa: T201 - asked for
    assert not verdict.faults, f"{verdict}\ntold: {told}"
    assert set(told) <= TOLD, told
    # The delay is there so that the balancer can notice: no new connection went to one that took none.
    assert (balancer.refused, balancer.unserved) == (0, 0)


def followers(tier: IngestTier, balancer: Balancer) -> list[RuleFollowers]:
    """Clients that keep their connections, that connect for each request, that send large bodies over slow lines."""
    entry, answers = replace(tier, url=balancer.url), Answers()
    return [
        RuleFollowers(entry, answers=answers),
        RuleFollowers(entry, headers={"Connection": "close"}, answers=answers),
        RuleFollowers(entry, clients=3, items=4, size=200_000, upload_s=0.5, answers=answers),
    ]


def wait_all(clients: Sequence[RuleFollowers], what: str, *, more: int) -> None:
    for one in clients:
        one.wait_accepted(what, deadline_s=20, more=more)


@pytest.fixture
def topic(own_kafka: EmbeddedKafka, make_topic: Callable[..., Topic]) -> Topic:
    """4 partitions on a broker that the test may freeze."""
    return make_topic(bootstrap_servers=own_kafka.bootstrap_servers)


@contextmanager
def waiting_for_its_ack(broker: EmbeddedKafka, tier: IngestTier, body: bytes) -> Iterator[Future[Answer]]:
    """A request that a frozen broker does not acknowledge; the broker thaws at the end."""
    tier.wait_ready()
    assert request(tier.collections_url, b'{"version":"1","data":[0]}').status == 200  # the way is open: it is sent
    with ThreadPoolExecutor(1) as pool:
        broker.freeze()
        try:
            asked = pool.submit(request, tier.collections_url, body)
            until(lambda: tier.metric("spillway_ingest_in_flight_bytes"), "the request to be in flight", deadline_s=5)
            yield asked
        finally:
            broker.thaw()


def stop_listening(tier: IngestTier) -> None:
    """SIGTERM, and wait until it takes no connection any more."""
    tier.process.send(signal.SIGTERM)
    until(lambda: get(tier.url)[0] == 0, "the listener to close", deadline_s=5)
    assert tier.process.returncode is None


def test_what_waits_for_its_ack_is_answered_before_the_exit(
    own_kafka: EmbeddedKafka, topic: Topic, processes: Processes
) -> None:
    """The broker is slow just when SIGTERM comes: its ack is waited for, and told."""
    tier = start_ingest(processes, topic)
    items = payloads(3)
    with waiting_for_its_ack(own_kafka, tier, envelope(items)) as asked:
        stop_listening(tier)
        never(lambda: asked.done() or tier.process.returncode is not None, "an end before the ack", for_s=1)
        own_kafka.thaw()
        answer = asked.result(HTTP_DEADLINE_S)
        assert tier.process.wait(deadline_s=HTTP_DEADLINE_S + EXIT_SLACK_S) == 0
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    answers = Answers(unknown={b"0"})
    answers.accept(answer.document["ids"], items)
    verdict = judge_log(answers, topic)
    assert not verdict.faults, verdict


def test_an_ack_that_does_not_come_is_told_before_the_exit(
    own_kafka: EmbeddedKafka, topic: Topic, processes: Processes
) -> None:
    """The broker stays frozen: the client is told at the deadline that nobody knows, and the process leaves in time."""
    tier = start_ingest(processes, topic, {"HTTP_DEADLINE_S": "3", "KAFKA_PRODUCE_TIMEOUT_S": "2"})
    with waiting_for_its_ack(own_kafka, tier, envelope(payloads(3))) as asked:
        stop_listening(tier)
        answer = asked.result(HTTP_DEADLINE_S)
        assert tier.process.wait(deadline_s=3 + EXIT_SLACK_S) == 0
    assert (answer.status, answer.document["code"]) == (504, "outcome_unknown")
    assert '"level": "error"' not in tier.process.output()


def test_a_second_signal_waits_for_no_ack(own_kafka: EmbeddedKafka, topic: Topic, processes: Processes) -> None:
    """An operator who asks twice is obeyed at once, and the exit code says so; the client is told nothing."""
    tier = start_ingest(processes, topic)
    with waiting_for_its_ack(own_kafka, tier, envelope(payloads(3))) as asked:
        stop_listening(tier)
        tier.process.send(signal.SIGTERM)
        assert tier.process.wait(deadline_s=5) == 128 + signal.SIGTERM
        with pytest.raises((OSError, http.client.HTTPException)):
            asked.result(HTTP_DEADLINE_S)


async def test_an_answer_that_nobody_finds_is_not_made_up() -> None:
    """Something is stuck beyond every deadline: the connection is cut, which is unknown, and the server ends."""
    quick = {"http_deadline_s": 0.2, "kafka_produce_timeout_s": 0.1}
    async with front(quick, submit=lambda _: None) as served, await served.connect() as client:
        await client.send(raw_post(envelope(payloads(1))))
        await eventually(lambda: served.submitted, "the request to be taken")
        served.server.drain()
        assert await client.ended() == b""


def test_it_is_ready_when_kafka_and_the_topic_are(own_kafka: EmbeddedKafka, processes: Processes) -> None:
    """From the start on it is alive, and not ready until brokers answer and the topic is there."""
    own_kafka.stop()
    topic = Topic(own_kafka.bootstrap_servers, f"late-{os.getpid()}", 2)
    tier = start_ingest(processes, topic)
    until(lambda: {"kafka", "topic"} <= tier.reasons().keys(), "it to say that both are missing", deadline_s=20)
    assert (get(f"{tier.ops_url}/livez")[0], get(f"{tier.ops_url}/readyz")[0]) == (200, 503)
    own_kafka.start()
    until(lambda: tier.reasons().keys() == {"topic"}, "it to say that the topic is missing", deadline_s=20)
    assert request(tier.collections_url, envelope(payloads(1))).document["code"] == "topic_unavailable"
    topic.create()
    tier.wait_ready()
    assert request(tier.collections_url, envelope(payloads(1))).status == 200


def test_one_key_is_one_collection_for_every_replica(pipeline: Pipeline) -> None:
    """The same key and body through two replicas, and again after both were restarted: the same ids, one key in S3 for
    each payload, whose every version has its bytes. Another body under that key stands beside it.
    """
    replicas = [Replica.begin(pipeline.ingest) for _ in range(2)]
    uploader = pipeline.uploader()
    for tier in (uploader, *(replica.tier for replica in replicas)):
        tier.wait_ready()
    key = new_collection_id(time.time_ns() // 1_000_000, os.urandom(10))
    items, others = payloads(3), payloads(3)
    told = [post(replica, items, key) for replica in replicas]
    for replica in replicas:
        replica.stop()
        replica.again()
    told += [post(replica, items, key) for replica in replicas]
    ids, other_ids = told[0], post(replicas[1], others, key)
    assert told == [ids] * 4
    answers = Answers()
    answers.accept(ids, items)
    answers.accept(other_ids, others)
    assert not answers.repeated_ids
    pipeline.settle(answers)
    stored = {name.rpartition("/")[2]: versions for name, versions in pipeline.objects().items()}
    assert {one: {version.body for version in versions} for one, versions in stored.items()} == {
        one: {item} for one, item in zip([*ids, *other_ids], [*items, *others], strict=True)
    }
    assert len(pipeline.objects()) == 6
    assert sum(len(stored[one]) for one in ids) == 12  # each of the four was stored: there was something to overwrite


def post(replica: Replica, items: Sequence[bytes], key: str) -> list[str]:
    answer = request(replica.tier.collections_url, envelope(items), headers={"Idempotency-Key": key})
    assert answer.status == 200, answer
    ids: list[str] = answer.document["ids"]
    return ids
