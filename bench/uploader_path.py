"""What tier 2 costs a record between Kafka and the S3 client: fetch, decode, key, window, queue, gate, metrics, commit.

A real broker with a backlog as tier 1 writes it (one payload of 1 KB a collection), the real consumer, and a store in
the same process that costs next to nothing: every put waits for one turn of a timer, as a put on a wire does, and is
stored. CPU by the kernel's accounting of this process, from the first tenth of the backlog to its end.

    python -m bench.uploader_path fill BOOTSTRAP TOPIC RECORDS
    python -m bench.uploader_path drain BOOTSTRAP TOPIC RECORDS

To compare two trees, run `drain` of each in turn over one topic, and compare medians.
"""

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Mapping

import uvloop
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from services.uploader.consumer import GroupConsumer, consumer_client
from services.uploader.dead_letter import DeadShare
from services.uploader.dead_letter_topic import DeadLetters
from services.uploader.health import StoreHealth
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Sink
from services.uploader.settings import UploaderSettings
from services.uploader.topic_view import TopicView
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.record import Stamp, new_collection_id
from shared.telemetry import UploaderMetrics
from tests.harness.broker import Topic

PARTITIONS = 12
BATCH_RECORDS = 64
TURN_S = 0.002
DEADLINE_S = 100.0
BODY = json.dumps(
    {f"field_{number}": {"value": number * 1.5, "unit": "celsius"} for number in range(25)}, separators=(",", ":")
).encode()[:1024]


async def fill(topic: Topic, count: int) -> None:
    """Write the backlog, a batch a partition in turn."""
    client = AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers, acks="all", max_batch_size=512 * 1024)
    await client.start()
    acks = []
    for start in range(0, count, BATCH_RECORDS):
        batch = client.create_batch()
        for _ in range(start, min(start + BATCH_RECORDS, count)):
            now_ns = time.time_ns()
            stamp = Stamp.of(
                collection_id=new_collection_id(now_ns // 1_000_000, os.urandom(10)),
                folder="payloads",
                version="1",
                received_ns=now_ns,
                request_id=os.urandom(16).hex(),
                count=1,
            )
            batch.append(key=None, value=BODY, timestamp=now_ns // 1_000_000, headers=stamp.headers(0))
        batch.close()
        acks.append(await client.send_batch(batch, topic.name, partition=start // BATCH_RECORDS % PARTITIONS))
    await asyncio.gather(*acks)
    await client.stop()


class Turn:
    """A store that keeps counts only. All puts of TURN_S are answered together, as one read of a busy socket does."""

    def __init__(self, count: int, consumer_stop: asyncio.Event) -> None:
        self.stored = 0
        self.began_us = 0
        self.began_s = 0.0
        self.ended_us = 0
        self.ended_s = 0.0
        self._count = count
        self._enough = consumer_stop
        self._waiting: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:  # noqa: ARG002 - the protocol's
        """Wait for the turn."""
        if not self._waiting:
            self._loop.call_later(TURN_S, self._answer)
        answered = self._loop.create_future()
        self._waiting.append(answered)
        await answered

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)
        before, self.stored = self.stored, self.stored + len(waiting)
        if before < self._count // 10 <= self.stored:
            self.began_us, self.began_s = _cpu_us(), time.monotonic()
            self.began = self.stored
        if before < self._count <= self.stored:
            self.ended_us, self.ended_s = _cpu_us(), time.monotonic()
            self._enough.set()


def _cpu_us() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(1e6 * (used.ru_utime + used.ru_stime))


async def drain(topic: Topic, count: int) -> None:
    """Consume it all, and print one line of JSON."""
    os.environ |= topic.environment() | {"KAFKA_GROUP_ID": f"bench-{os.urandom(4).hex()}", "S3_BUCKET": "bench"}
    settings = UploaderSettings()
    readiness, registry, enough = Readiness(), CollectorRegistry(), asyncio.Event()
    metrics = UploaderMetrics(registry)
    store = Turn(count, enough)
    limit = UploadLimit(Limiter(settings.max_uploads), metrics)
    sink = Sink(
        store,
        KeyTemplate(DEFAULT_TEMPLATE, "payloads"),
        StoreHealth(readiness, metrics),
        limit,
        DeadLetters(settings, readiness, metrics, DeadShare(0.0)),  # never entered: nothing here is poison
        metrics,
        settings.max_workers,
    )
    consumer = GroupConsumer(
        settings, sink, readiness, metrics, lambda: consumer_client(settings), lambda: TopicView(settings), sys.exit
    )
    gc.collect()
    gc.freeze()  # as `run` does
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(DEADLINE_S):
        await enough.wait()
    consumer.stop()
    await running
    per = count - store.began
    report = {
        "cpu_us": round((store.ended_us - store.began_us) / per, 2),
        "records_per_s": round(per / (store.ended_s - store.began_s)),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "stored": registry.get_sample_value("spillway_uploader_uploads_total", {"outcome": "stored"}),
        "limit": limit.limit,
        "commits": registry.get_sample_value("spillway_uploader_commits_total", {"outcome": "committed"}),
    }
    print(json.dumps(report))


def main() -> None:
    """One of the two commands."""
    command, bootstrap, name, count = sys.argv[1:]
    topic = Topic(bootstrap, name, PARTITIONS)
    if command == "fill":
        topic.create()
        uvloop.run(fill(topic, int(count)))
    else:
        uvloop.run(drain(topic, int(count)))


if __name__ == "__main__":
    main()
