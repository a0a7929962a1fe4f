"""When the producer is replaced; and what we rely on inside the Kafka client: a batch is tried once, and its error is
the whole story.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Never

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.metadata import MetadataRequest
from prometheus_client import CollectorRegistry

from services.ingest.brokers import Address
from services.ingest.producer import KAFKA, TOPIC, KafkaLink
from services.ingest.settings import IngestSettings
from shared.kafka import once_only
from shared.ops import Readiness
from shared.telemetry import IngestMetrics

LISTED = ("listed", 1)


async def test_the_client_tries_a_batch_once() -> None:
    """After a try that timed out the client must not send the batch again behind our back: the second answer would hide
    that the first may have been written.
    """
    producer = once_only(AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", acks="all"))
    tries = []

    async def send(node_id: int, *_: object) -> Never:
        tries.append(node_id)
        raise RequestTimedOutError  # a retriable error, to the client

    producer.client.send = send
    place = TopicPartition("payloads", 0)
    builder = producer.create_batch()
    builder.append(timestamp=None, key=None, value=b"1", headers=[])
    accumulator = producer._message_accumulator
    accumulator._append_batch(builder, place)
    batch = accumulator._pop_batch(place)
    await SendProduceReqHandler(producer._sender, {place: batch}).do(7)
    assert tries == [7]
    assert isinstance(batch.future.exception(), RequestTimedOutError)
    assert place not in accumulator._batches
    await producer.stop()


class Cluster:
    """Brokers that answer at `here`, as long as they do, and name `named`; what the producer's client knows of them."""

    def __init__(self) -> None:
        self.here = {LISTED, ("one", 1)}
        self.named = ("one", 1)
        self.producers: list[str] = []  # each by the address that it was started from
        self.stopped = 0
        self.asked = 0
        self.learned = 0  # what the producer was told of who leads what

    def make_producer(self, bootstrap_servers: str) -> Any:
        self.producers.append(bootstrap_servers)
        known = [SimpleNamespace(host=self.named[0], port=self.named[1])]
        cluster = SimpleNamespace(brokers=lambda: known, update_metadata=self.learn)
        return SimpleNamespace(
            _message_accumulator=SimpleNamespace(_batch_ttl=0),
            client=SimpleNamespace(cluster=cluster),
            start=self.nothing,
            stop=self.stop,
        )

    def learn(self, _response: object) -> None:
        self.learned += 1

    async def nothing(self) -> None:
        """The producer starts."""

    async def stop(self) -> None:
        self.stopped += 1

    async def connect(self, host: str, port: int) -> Any:
        self._at((host, port))
        connection = SimpleNamespace(connected=lambda: True, close=lambda: None)
        connection.send = lambda request: self.answer((host, port), request)
        return connection

    async def answer(self, address: Address, request: object) -> object:
        self._at(address)
        self.asked += 1
        if isinstance(request, MetadataRequest):
            topic = {"topic": "payloads", "error_code": 0, "partitions": [{"replicas": [1]}]}
            return SimpleNamespace(brokers=[(1, *self.named, None)], to_object=lambda: {"topics": [topic]})
        values = {
            "min.insync.replicas": "1",
            "max.message.bytes": "1000000",
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": "-1",
            "retention.bytes": "-1",
        }
        return SimpleNamespace(resources=[(0, "", 2, "payloads", list(values.items()))])

    def _at(self, address: Address) -> None:
        if address not in self.here:
            raise ConnectionRefusedError(f"nobody at {address}")


@asynccontextmanager
async def linked(cluster: Cluster, pending: Callable[[], bool], *, replace_after_s: float) -> AsyncIterator[KafkaLink]:
    """A running link, once it takes collections."""
    settings = IngestSettings(
        kafka_bootstrap_servers="listed:1",
        kafka_min_insync=1,
        kafka_produce_timeout_s=0.1,
        kafka_away_after_s=0.1,
        kafka_replace_after_s=replace_after_s,
    )
    link = KafkaLink(
        settings,
        make_producer=cluster.make_producer,
        connect=cluster.connect,
        readiness=Readiness(KAFKA, TOPIC),
        metrics=IngestMetrics(CollectorRegistry()),
        tick_s=0.05,
    )
    running = asyncio.create_task(link.run(pending=pending, troubled=pending))
    try:
        await turn(lambda: link.refusal is None)
        yield link
    finally:
        running.cancel()
        await asyncio.wait({running})


async def turn(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the link sets no event
            await asyncio.sleep(0.01)


async def test_a_producer_that_gets_nowhere_is_replaced() -> None:
    """The brokers answer, collections wait, and no produce ends in any way: the client is wedged, and goes. As long as
    produces end, or none is waited for, it stays.
    """
    cluster, waiting = Cluster(), False
    async with linked(cluster, lambda: waiting, replace_after_s=1) as link:
        asked = cluster.asked
        waiting = True
        while cluster.asked < asked + 40:  # one a tick of 0.05 s: twice the bound
            link.moved()
            await asyncio.sleep(0.01)
        assert len(cluster.producers) == 1
        await turn(lambda: len(cluster.producers) == 2)
        waiting = False
        await turn(lambda: link.refusal is None)
    assert cluster.stopped == 2


async def test_brokers_that_have_moved_are_found(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left at any address that the producer knows, and the bootstrap list names another: a new producer at
    once, long before KAFKA_REPLACE_AFTER_S. A cluster that is only away is waited for with the old one.
    """
    cluster = Cluster()
    async with linked(cluster, lambda: True, replace_after_s=30) as link:
        cluster.here = set()
        await turn(lambda: link.refusal is not None)
        cluster.here = {LISTED, ("one", 1)}
        await turn(lambda: link.refusal is None)
        assert cluster.producers == ["listed:1"]
        cluster.here, cluster.named = {LISTED, ("two", 2)}, ("two", 2)
        await turn(lambda: len(cluster.producers) == 2)
        await turn(lambda: link.refusal is None)
    assert cluster.producers == ["listed:1", "listed:1"]
    assert [vars(record)["reason"] for record in caplog.records if record.message == "replacing the producer"] == [
        "the brokers have other addresses now"
    ]


async def test_trouble_is_looked_into() -> None:
    """A partition has no leader, and nothing may be on its way to it: the producer learns of a new one all the same. In
    peace it is left with what it knows.
    """
    cluster, trouble = Cluster(), False
    async with linked(cluster, lambda: trouble, replace_after_s=30) as link:
        learned = cluster.learned
        link.recheck_topic()
        asked = cluster.asked
        await turn(lambda: cluster.asked > asked)
        assert cluster.learned == learned
        trouble = True
        await turn(lambda: cluster.learned > learned + 1)
