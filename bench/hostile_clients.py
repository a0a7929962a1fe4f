"""What good clients notice of hostile ones: their latencies alone, and while slow ones, stalled ones and bombs come.

A real ingest, a real broker, shorter deadlines than by default and a tokens file: the good clients have one token
and the others another, as fair shares want it (DESIGN §6). The hostile clients run in a process of their own, so that
the measuring client's loop is not the bottleneck; they share the two cores all the same. Run with
`python -m bench.hostile_clients`.
"""

import asyncio
import contextlib
import gc
import hashlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.local.kafka import EmbeddedKafka
from tests.harness.broker import Topic
from tests.harness.hostile import Hostile, Kind, Plan
from tests.harness.load import envelope, payloads
from tests.harness.processes import Processes
from tests.harness.raw_http import RawClient, post
from tests.harness.tiers import IngestTier, start_ingest

PER_S = 100
CONNECTIONS = 20
PAYLOADS, PAYLOAD_BYTES = 5, 400
ALONE_S = 8.0
WITH_S = 10.0
DEADLINES = {"HEAD_DEADLINE_S": "5", "BODY_DEADLINE_S": "10"}  # shortened: more come in a minute
WARM_UP_S = 2.0
SETTLE_S = 1.0
GOOD, BAD = "good-token", "bad-token"

SLOW = {Kind.HEAD: 500, Kind.BODY: 500, Kind.STALL: 200}
BOMBS = {Kind.GZIP: 25, Kind.ZSTD: 25}


@dataclass(slots=True)
class Phase:
    """What the good clients saw for a while."""

    name: str
    seconds: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0  # the share of one core that ingest used

    def quantile_ms(self, percent: int) -> float:
        """The latency that so many percent were below."""
        return statistics.quantiles(self.seconds, n=100)[percent - 1] * 1000

    def row(self) -> str:
        """For the table."""
        shown = (f"{self.quantile_ms(percent):.1f}" for percent in (50, 90, 99))
        refused = sum(count for code, count in self.codes.items() if code)
        return f"| {self.name} | {' | '.join(shown)} | {len(self.seconds)} | {refused} | {self.busy:.0%} |"


async def good_clients(tier: IngestTier, phase: Phase, seconds: float) -> None:
    """An open loop: a request is due at its moment whether or not the last was answered, and its wait counts."""
    port = int(tier.url.rpartition(":")[2])
    process = psutil.Process(tier.process.pid)
    began_cpu_s = sum(process.cpu_times()[:2])
    begin_s = time.monotonic()

    async def one(number: int) -> None:
        async with await RawClient.connect(port) as client:
            due_s = begin_s + number / PER_S
            while due_s < begin_s + seconds:
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
                body = envelope(payloads(PAYLOADS, size=PAYLOAD_BYTES))
                answer = await client.ask(post(body, f"Authorization: Bearer {GOOD}"))
                phase.seconds.append(time.monotonic() - due_s)
                phase.codes[answer.code] += 1
                due_s += CONNECTIONS / PER_S

    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(one(number))
    phase.busy = (sum(process.cpu_times()[:2]) - began_cpu_s) / (time.monotonic() - begin_s)


@contextlib.contextmanager
def stand() -> Iterator[tuple[Processes, IngestTier]]:
    """A broker, a topic of 12 partitions and a ready ingest with two tokens."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kafka = EmbeddedKafka(directory / "kafka")
        kafka.start()
        processes = Processes(directory)
        try:
            topic = Topic(kafka.bootstrap_servers, "payloads", 12)
            topic.create()
            tokens = directory / "tokens.json"
            entries = [{"name": one, "sha256": hashlib.sha256(one.encode()).hexdigest()} for one in (GOOD, BAD)]
            tokens.write_text(json.dumps(entries))
            tier = start_ingest(processes, topic, {"INGEST_TOKENS_FILE": str(tokens), **DEADLINES})
            tier.wait_ready()
            yield processes, tier
        finally:
            processes.end_all()
            kafka.stop()


def measure(processes: Processes, tier: IngestTier, phase: Phase, *, again: bool) -> Counter[str]:
    """The good clients, while the slow ones are there and the bombs come; what the others were told."""
    port = int(tier.url.rpartition(":")[2])
    replaced_s = WITH_S + SETTLE_S if again else 0
    told: Counter[str] = Counter()
    crowds = []
    for kinds in (SLOW, BOMBS):
        plan = Plan(port, kinds, seconds=replaced_s, give_up_s=45, token=BAD)
        crowds.append(Hostile(processes, plan))
        crowds[-1].wait_begun()
        if kinds is SLOW:
            time.sleep(SETTLE_S)  # 1,200 connects at one moment are another question
    asyncio.run(good_clients(tier, phase, WITH_S))
    for crowd in crowds:
        told += crowd.told(deadline_s=replaced_s + 45).all_codes
    return told


def main() -> None:
    """Print one table."""
    with stand() as (processes, tier):
        gc.disable()  # a collection of this process is not the ingest's latency
        asyncio.run(good_clients(tier, Phase("warm up"), WARM_UP_S))
        alone = Phase("alone")
        asyncio.run(good_clients(tier, alone, ALONE_S))
        once = Phase("1,000 dripping, 200 stalled; 50 bombs at once")
        told = measure(processes, tier, once, again=False)
        again = Phase("the same, each replaced as it ends")
        told_again = measure(processes, tier, again, again=True)
    print("| good clients | 50 %, ms | 90 %, ms | 99 %, ms | requests | refused | ingest, of a core |")
    print("|---|---|---|---|---|---|---|")
    for phase in (alone, once, again):
        print(phase.row())
    for phase, others in ((once, told), (again, told_again)):
        factor = phase.quantile_ms(99) / alone.quantile_ms(99)
        print(f"\n{phase.name}: 99 % moved by a factor of {factor:.1f}; the others were told {dict(others)}")


if __name__ == "__main__":
    main()
