"""What a test watches from outside while it breaks things: the group's commits against the store, and memory.

Owns a thread that samples until the test's processes are ended. Judges nothing: `oracle` does, at the end. The order
within a sample is what makes it proof: the broker is asked for the commits first and the store is looked at afterwards,
so that a commit past what the store holds by then was a commit of something not stored.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from aiokafka.errors import KafkaError

from tests.harness.broker import Topic, admin
from tests.harness.oracle import Sample
from tests.harness.tiers import Tier, get

_COMMITS_EVERY_S = 0.25
_MEMORY_EVERY_S = 0.25
_ASK_TIMEOUT_S = 5


@dataclass(slots=True)
class Memory:
    """Resident bytes of one process: from when it had started, or from the last `mark`; and the most since then."""

    tier: Tier
    from_bytes: int = 0  # 0 until it has started
    peak_bytes: int = 0
    last_bytes: int = 0

    @property
    def grown_bytes(self) -> int:
        """How far the peak lies above the start."""
        return self.peak_bytes - self.from_bytes

    def __str__(self) -> str:
        process, mib = self.tier.process, 1024 * 1024
        return (
            f"{process.name} (pid {process.pid}): {self.from_bytes / mib:.1f} MiB when it began, "
            f"{self.peak_bytes / mib:.1f} at its peak, {self.last_bytes / mib:.1f} at last"
        )


class Watch:
    """Watches one topic's group and the processes it is told of.

    Attributes:
        samples: commits and writes, oldest first; only ever appended to by the thread.
        memory: one entry a process.

    """

    def __init__(self, topic: Topic, writes: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self.memory: list[Memory] = []
        self._topic = topic
        self._writes = writes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="watch", daemon=True)

    def add(self, tier: Tier) -> None:
        """Watch a process too, until it ends."""
        self.memory.append(Memory(tier))
        if not self._thread.is_alive():
            self._thread.start()

    def mark(self) -> None:
        """Memory counts from now on: what warmed up until now is not the growth in question."""
        for memory in self.memory:
            memory.from_bytes = memory.peak_bytes = memory.last_bytes

    def forget_commits(self) -> None:
        """The test remade the topic or deleted the group: old offsets say nothing of the new ones."""
        self.samples = []

    def has_seen(self) -> bool:
        """Whether there is a commit to judge, and a process that was measured."""
        return any(sample.committed for sample in self.samples) and any(memory.peak_bytes for memory in self.memory)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * _ASK_TIMEOUT_S)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_commits())
            group.create_task(self._watch_memory())

    async def _watch_commits(self) -> None:
        """A broker that is away is asked again, by a new client: one that lost all brokers does not find them again."""
        while not self._stop.is_set():
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with admin(self._topic.bootstrap_servers) as client:
                    while not self._stop.is_set():
                        samples = self.samples
                        async with asyncio.timeout(_ASK_TIMEOUT_S):
                            found = await client.list_consumer_group_offsets(self._topic.group)
                        committed = {
                            tp.partition: at.offset for tp, at in found.items() if tp.topic == self._topic.name
                        }
                        samples.append(Sample(committed, self._writes()))
                        await asyncio.sleep(_COMMITS_EVERY_S)
            await asyncio.sleep(_COMMITS_EVERY_S)

    async def _watch_memory(self) -> None:
        while not self._stop.is_set():
            for memory in list(self.memory):
                await asyncio.to_thread(_look, memory)
            await asyncio.sleep(_MEMORY_EVERY_S)


def _look(memory: Memory) -> None:
    if memory.tier.process.returncode is not None:
        return
    if not memory.from_bytes:
        status, body = get(f"{memory.tier.ops_url}/readyz", timeout_s=1)
        if not status or "starting" in body:  # what it is not ready for after that is the test's own fault
            return
    with contextlib.suppress(psutil.NoSuchProcess):
        memory.last_bytes = psutil.Process(memory.tier.process.pid).memory_info().rss
        memory.from_bytes = memory.from_bytes or memory.last_bytes
        memory.peak_bytes = max(memory.peak_bytes, memory.last_bytes)
