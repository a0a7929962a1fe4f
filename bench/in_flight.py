"""What the puts in flight are worth: throughput against Little's law, with 150 ms of injected latency.

The uploader's own partitions, gate, limiter and store, without Kafka: records are admitted from memory. The stores:
our S3 clients, over loopback to a sink in another process; and a stand-in that only sleeps, which shows what the
pipeline itself reaches. Medians of several runs; the ramp-up of the limit is left out. `make bench` asks for the row of
512 of each store (`--client`, with S3_ENDPOINT_URL); `python -m bench.in_flight` alone makes the whole table.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import uvloop
from aiokafka import ConsumerRecord, TopicPartition
from prometheus_client import CollectorRegistry

from bench.building import build_tools
from bench.processes import get
from services.uploader.dead_letter import DeadShare
from services.uploader.dead_letter_topic import DeadLetters
from services.uploader.health import StoreHealth
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Partition, Sink
from services.uploader.settings import UploaderSettings
from services.uploader.store import Store
from services.uploader.store.options import StoreOptions
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.record import Stamp, new_collection_id
from shared.telemetry import UploaderMetrics

LATENCY_S = 0.15
IN_FLIGHT = (64, 128, 256, 512)
RUNS = 5
WARM_UP_S = 2.5  # connections are opened and the limit rises
MEASURED_S = 4.0
PARTITIONS = 12
QUEUE_RECORDS = 1000  # MAX_QUEUE's default
BODY = b'{"host":"a","load":[0.1,0.2,0.3],"note":"' + b"x" * 760 + b'"}'


class Asleep:
    """A store that costs nothing but its latency."""

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:  # noqa: ARG002 - the protocol's
        """Sleep."""
        await asyncio.sleep(LATENCY_S)


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        puts_per_s: stored ones.
        busy: the share of one core that the process used.
        starved: the share of the time that it wanted a core and had none: over a few percent, other processes of the
            machine were measured too.
        limit: at the end.
        failed: puts that failed meanwhile.

    """

    puts_per_s: float
    busy: float
    starved: float
    limit: int
    failed: float


def waited_s() -> float:
    """Seconds that this process has waited for a core so far; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def records(partition: int, start: int, count: int) -> list[ConsumerRecord]:
    """Records of one collection, as tier 1 writes them."""
    now_ms = time.time_ns() // 1_000_000
    stamp = Stamp.of(
        collection_id=new_collection_id(now_ms, os.urandom(10)),
        folder="payloads",
        version="1",
        received_ns=now_ms * 1_000_000,
        request_id="r",
        count=count,
    )
    return [
        ConsumerRecord(
            topic="payloads",
            partition=partition,
            offset=start + index,
            timestamp=now_ms,
            timestamp_type=1,
            key=None,
            value=BODY,
            checksum=None,
            serialized_key_size=-1,
            serialized_value_size=len(BODY),
            headers=stamp.headers(index),
        )
        for index in range(count)
    ]


async def feed(partition: Partition) -> None:
    """Keep the queue at least half full, as polling does."""
    offset = 0
    while True:
        if len(partition.window) <= QUEUE_RECORDS // 2:
            partition.admit(records(partition.tp.partition, offset, QUEUE_RECORDS // 2))
            offset += QUEUE_RECORDS // 2
        await asyncio.sleep(0.02)


async def measure(store: Store, in_flight_max: int, registry: CollectorRegistry) -> Measured:
    """One run: warm up, then count for a while."""
    metrics = UploaderMetrics(registry)
    readiness = Readiness()
    settings = UploaderSettings(s3_bucket="bench")
    limit = UploadLimit(Limiter(in_flight_max), metrics)
    sink = Sink(
        store,
        KeyTemplate(DEFAULT_TEMPLATE, "payloads"),
        StoreHealth(readiness, metrics),
        limit,
        DeadLetters(settings, readiness, metrics, DeadShare(0.0)),  # never entered: nothing here is poison
        metrics,
        -(-in_flight_max // PARTITIONS),
    )

    def count(outcome: str) -> float:
        return registry.get_sample_value("spillway_uploader_uploads_total", {"outcome": outcome}) or 0.0

    async with asyncio.TaskGroup() as group:
        partitions = [Partition(TopicPartition("payloads", number), sink, group) for number in range(PARTITIONS)]
        feeders = []
        for partition in partitions:
            partition.start_at(0, None)
            feeders.append(group.create_task(feed(partition)))
        await asyncio.sleep(WARM_UP_S)
        began_s, cpu_s, queued_s = time.monotonic(), time.process_time(), waited_s()
        stored, failed = count("stored"), count("failed")
        await asyncio.sleep(MEASURED_S)
        took_s = time.monotonic() - began_s
        measured = Measured(
            (count("stored") - stored) / took_s,
            (time.process_time() - cpu_s) / took_s,
            (waited_s() - queued_s) / took_s,
            limit.limit,
            count("failed") - failed,
        )
        for feeder in feeders:
            feeder.cancel()
        await asyncio.gather(*(partition.close(5) for partition in partitions))
    return measured


@contextlib.contextmanager
def sink_process(latency_s: float = LATENCY_S) -> Iterator[str]:
    """The sink alone, and its URL."""
    with tempfile.TemporaryDirectory() as name:
        command = [str(build_tools().sink), "-directory", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
                url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
                get(f"{url}/reset?latency_ms={latency_s * 1000:.0f}", method="POST")
                yield url
            finally:
                process.kill()


@contextlib.asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Store]:
    """The store of that kind."""
    if kind == "sleep":
        yield Asleep()
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    restarts = UploaderMetrics(CollectorRegistry()).store_restarts
    options = StoreOptions(bucket="bench", endpoint_url=url, path_style=True, connections_max=max(IN_FLIGHT))
    async with import_module(f"services.uploader.store.{kind}").open_store(options, restarts) as store:
        yield store


async def run(kind: str, in_flight_max: int, url: str) -> Measured:
    """One run on a fresh store."""
    registry = CollectorRegistry()
    async with opened(kind, url) as store:
        return await measure(store, in_flight_max, registry)


async def _through_the_gate(puts: int) -> float:
    """Microseconds of CPU of the gate and the limiter a put, with nothing inside."""
    limit = UploadLimit(Limiter(max(IN_FLIGHT)), UploaderMetrics(CollectorRegistry()))
    began_ns = time.process_time_ns()
    for _ in range(puts):
        async with limit.slot(len(BODY)):
            pass
    return (time.process_time_ns() - began_ns) / puts / 1000


def row(kind: str, in_flight_max: int, runs: list[Measured]) -> str:
    """One line of the table: medians, and between what the rates lay."""
    rates = [one.puts_per_s for one in runs]
    rate, busy = statistics.median(rates), statistics.median(one.busy for one in runs)
    starved = statistics.median(one.starved for one in runs)
    little, put_us = rate / (in_flight_max / LATENCY_S), 1e6 * busy / max(rate, 1)
    return (
        f"| {kind} | {in_flight_max} | {rate:.0f} | {little:.0%} | {min(rates):.0f} to {max(rates):.0f} | {busy:.0%} "
        f"| {put_us:.0f} | {starved:.0%} | {min(one.limit for one in runs)} | {sum(one.failed for one in runs):.0f} |"
    )


def once(kind: str, url: str) -> dict[str, float]:
    """One run with 512 in flight, for `make bench`."""
    in_flight_max = max(IN_FLIGHT)
    measured = uvloop.run(run(kind, in_flight_max, url))
    little = measured.puts_per_s / (in_flight_max / LATENCY_S)
    return {
        "puts": round(measured.puts_per_s * MEASURED_S),
        "seconds": MEASURED_S,
        "cpu_us": 1e6 * measured.busy / max(measured.puts_per_s, 1),
        "little": little,
        "busy": measured.busy,
        "failed_puts": measured.failed,
    }


def main() -> None:
    """The whole table, or one run of one store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", help="sleep or an S3 client: one run, at S3_ENDPOINT_URL")
    parser.add_argument("--clients", nargs="+", default=["sleep", "aiobotocore"], help="of the table")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=MEASURED_S, help="ignored: the ramp fixes them")
    arguments = parser.parse_args()
    if arguments.client:
        print(json.dumps(once(arguments.client, os.environ.get("S3_ENDPOINT_URL", ""))))
        return
    table(arguments.clients)


def table(clients: list[str]) -> None:
    """Measure, each case once in turn, and print one row a case."""
    gate_us = min(uvloop.run(_through_the_gate(200_000)) for _ in range(7))
    print(f"the gate and the limiter: {gate_us:.2f} µs of CPU a put\n")
    cases = [(kind, in_flight_max) for kind in clients for in_flight_max in IN_FLIGHT]
    measured: dict[tuple[str, int], list[Measured]] = {case: [] for case in cases}
    with sink_process() as url:
        for _ in range(RUNS):
            for kind, in_flight_max in cases:
                measured[kind, in_flight_max].append(uvloop.run(run(kind, in_flight_max, url)))
    print("| store | in flight | puts/s | of Little | runs | core | µs a put | starved | limit | failed |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (kind, in_flight_max), runs in measured.items():
        print(row(kind, in_flight_max, runs))


if __name__ == "__main__":
    main()
