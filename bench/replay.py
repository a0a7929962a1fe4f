"""Is a replay as fast as `run`, and what does it cost a live group? The same backlog, the same store, in turn.

A real broker, a sink that answers every PUT at once and keeps nothing (bench/sink), the two commands as processes.
Measured by the commits at the broker, from the first that moved to the last; CPU by the kernel's own accounting. Run
with `python -m bench.replay`; `make bench` has a shorter form.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.errors import GroupCoordinatorNotAvailableError

from bench.in_flight import sink_process
from deploy.local.kafka import EmbeddedKafka
from services.uploader.jobs.storing.state import group_of
from shared.record import Stamp, new_collection_id
from tests.harness.broker import Topic, admin
from tests.harness.processes import Process, Processes
from tests.harness.waiting import until

RECORDS = 20_000
RUNS = 3
PARTITIONS = 12
BODY = b'{"host":"a","load":[0.1,0.2,0.3],"note":"' + b"x" * 760 + b'"}'
DEADLINE_S = 300
BESIDE_PER_S = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """One drain of the backlog. `cpu_us`: of the process, a record."""

    records_per_s: float
    cpu_us: float


async def fill(topic: Topic) -> None:
    """Write the backlog, as tier 1 would."""
    client = AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers, linger_ms=20, max_batch_size=512 * 1024)
    await client.start()
    now_ms = time.time_ns() // 1_000_000
    stamp = Stamp.of(
        collection_id=new_collection_id(now_ms, os.urandom(10)),
        folder="payloads",
        version="1",
        received_ns=now_ms * 1_000_000,
        request_id="r",
        count=RECORDS,
    )
    acks = [
        await client.send(topic.name, BODY, headers=stamp.headers(index), partition=index % PARTITIONS)
        for index in range(RECORDS)
    ]
    await asyncio.gather(*acks)
    await client.stop()


async def _settled(topic: Topic, group: str) -> int:
    async with admin(topic.bootstrap_servers) as client:
        try:
            found = await client.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:  # the broker's first group makes its topic
            return 0
    return sum(at.offset for place, at in found.items() if place.topic == topic.name)


def drained(topic: Topic, group: str, process: Process) -> Measured:
    """Wait for the commits to move, and then to reach the end."""
    usage = psutil.Process(process.pid)

    def at_least(count: int) -> bool:
        return asyncio.run(_settled(topic, group)) >= count

    until(lambda: at_least(1), "a first commit", deadline_s=DEADLINE_S)
    first, began_s, began_cpu_s = asyncio.run(_settled(topic, group)), time.monotonic(), sum(usage.cpu_times()[:2])
    cpu_s, moved_s, last = began_cpu_s, began_s, first
    while last < RECORDS:
        with usage.oneshot():
            cpu_s = sum(usage.cpu_times()[:2]) if usage.is_running() and usage.status() != "zombie" else cpu_s
        time.sleep(0.2)  # a question costs CPU that the process wants
        last, moved_s = asyncio.run(_settled(topic, group)), time.monotonic()
        if moved_s - began_s > DEADLINE_S:
            raise SystemExit(f"{process.name}: {last} of {RECORDS} after {DEADLINE_S} s\n{process.tail()}")
    return Measured((RECORDS - first) / (moved_s - began_s), 1e6 * (cpu_s - began_cpu_s) / (RECORDS - first))


def run_live(processes: Processes, topic: Topic, environment: Mapping[str, str], number: int) -> Measured:
    """`run`, in a group that has committed nothing."""
    group = f"live-{number}"
    settings = {**environment, "KAFKA_GROUP_ID": group}
    process = processes.python("run", "services.uploader", "run", environment=settings)
    measured = drained(topic, group, process)
    process.terminate()
    return measured


def run_beside(processes: Processes, topic: Topic, environment: Mapping[str, str], number: int) -> Measured:
    """`run`, while a replay of the same topic puts BESIDE_PER_S a second."""
    arguments = ("replay", "--from", "beginning", "--job", f"beside-{number}", "--rate", str(BESIDE_PER_S))
    replay = processes.python("beside", "services.uploader", *arguments, environment=environment)
    measured = run_live(processes, topic, environment, RUNS + number)
    replay.terminate()
    return measured


def run_replay(processes: Processes, topic: Topic, environment: Mapping[str, str], number: int) -> Measured:
    """`replay` of everything, as a job of its own."""
    job = f"bench-{number}"
    arguments = ("replay", "--from", "beginning", "--job", job)
    process = processes.python("replay", "services.uploader", *arguments, environment=environment)
    measured = drained(topic, group_of(environment["KAFKA_GROUP_ID"], job), process)
    process.wait(deadline_s=30)
    return measured


def row(name: str, runs: list[Measured]) -> str:
    """Medians, and between what the rates lay."""
    rates = [one.records_per_s for one in runs]
    cpu_us = statistics.median(one.cpu_us for one in runs)
    return f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} to {max(rates):.0f} | {cpu_us:.0f} |"


def main() -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as name, sink_process(0.0) as url:
        kafka = EmbeddedKafka(Path(name) / "kafka")
        kafka.start()
        processes = Processes(Path(name))
        try:
            topic = Topic(kafka.bootstrap_servers, "payloads", PARTITIONS)
            topic.create()
            asyncio.run(fill(topic))
            environment = {
                **topic.environment(),
                "S3_BUCKET": "bench",
                "S3_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_REGION": "us-east-1",
                "UPLOADER_OPS_PORT": "0",
            }
            live, again, beside = [], [], []
            for number in range(RUNS):
                live.append(run_live(processes, topic, environment, number))
                again.append(run_replay(processes, topic, environment, number))
                beside.append(run_beside(processes, topic, environment, number))
        finally:
            processes.end_all()
            kafka.stop()
    print("| command | records/s | runs | µs of CPU a record |")
    print("|---|---|---|---|")
    print(row("run", live))
    print(row("replay", again))
    print(row(f"run, beside a replay of {BESIDE_PER_S}/s", beside))


if __name__ == "__main__":
    main()
