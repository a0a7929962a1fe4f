"""Random schedules over the whole core: whatever the order of polls, puts, failures, rebalances, commits and crashes,
every record is stored in the end, and no commit ever passed one that was not.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.uploader import assignment as assignment_module
from services.uploader import committer as committer_module
from services.uploader import consumer as consumer_module
from services.uploader import retry
from services.uploader.retry import Backoff
from tests.fakes.kafka_broker import Broker, Hold
from tests.fakes.script import SLOW_DOWN, Cut, Delay, Fault
from tests.harness.core_bench import DEADLINE_S, Bench, settings, turns, until

PARTITIONS = 3

BOUNDS_S = {
    consumer_module: {"SESSION_PAUSE_S": 0.001, "POLL_STOP_TIMEOUT_S": 0.01, "STOP_TIMEOUT_S": 0.05},
    assignment_module: {"POSITION_RETRY_S": 0.001},
    committer_module: {"COMMIT_TIMEOUT_S": 0.01, "POSITION_TIMEOUT_S": 0.01},
}


class Schedule:
    """A running consumer, and the misfortunes that may befall it."""

    def __init__(self) -> None:
        self.broker = Broker(partitions=PARTITIONS)
        given: dict[str, Any] = {"max_workers": 3, "max_queue": 8, "commit_interval_s": 0.0005, "drain_timeout_s": 0.01}
        self.bench = Bench(self.broker, settings(**given))
        self.broker.fetch_max = 5
        self.holds: list[Hold] = []
        self._begin()

    def _begin(self) -> None:
        self.consumer = self.bench.consumer()
        self.run = asyncio.create_task(self.consumer.run())

    def _hold(self, call: str) -> None:
        hold = Hold()
        self.holds.append(hold)
        self.broker.next(call, hold)

    def _inject(self, fault: Fault, times: int, share: int) -> None:
        """Let a third of the keys meet the fault, whichever partition they belong to."""
        self.bench.store.script.inject(fault, times=times, key=lambda key: sum(key.encode()) % 3 == share)

    async def append(self, partition: int, count: int) -> None:
        """Mostly to one partition."""
        for number in range(PARTITIONS):
            self.broker.append(4 * count if number == partition else 1, number)

    async def hole(self, partition: int, count: int) -> None:
        self.broker.logs[TopicPartition("t", partition)].skip(count)

    async def refuse(self, share: int, count: int) -> None:
        self._inject(SLOW_DOWN, 5 * count, share)

    async def slow(self, share: int, count: int) -> None:
        self._inject(Delay(0.005), 2 * count, share)

    async def hang(self, share: int, count: int) -> None:
        self._inject(Cut.HANG, count, share)

    async def lose_the_answer(self, share: int, count: int) -> None:
        self._inject(Cut.STORE_THEN_HANG, count, share)

    async def heal(self, _partition: int, _count: int) -> None:
        self.bench.store.script.heal()
        for hold in self.holds:
            hold.release()

    async def rebalance(self, partition: int, count: int) -> None:
        """Keep all but some partitions; others take those, and give them back at the end."""
        if self.bench.clients and self.bench.client.listener is not None:
            kept = [tp for tp in self.broker.logs if (tp.partition + partition) % 4 >= count - 1]
            self.bench.client.request_rebalance(kept)

    async def rebalance_all(self, _partition: int, _count: int) -> None:
        if self.bench.clients and self.bench.client.listener is not None:
            self.bench.client.request_rebalance(list(self.broker.logs))

    async def evict(self, partition: int, count: int) -> None:
        if self.bench.clients:
            self.bench.client.evict()
            await self.rebalance_all(partition, count)

    async def hold_commit(self, _partition: int, _count: int) -> None:
        self._hold("commit")

    async def hold_commit_answer(self, _partition: int, _count: int) -> None:
        self._hold("commit_answer")

    async def hold_start(self, _partition: int, _count: int) -> None:
        self._hold("committed")

    async def fail_commit(self, partition: int, _count: int) -> None:
        errors = (CommitFailedError(), KafkaConnectionError(), KafkaError())
        self.broker.next("commit", errors[partition])

    async def fail_poll(self, partition: int, _count: int) -> None:
        errors = (KafkaError(), RuntimeError(), asyncio.CancelledError())
        self.broker.next("getmany", errors[partition])

    async def fail_start(self, _partition: int, _count: int) -> None:
        self.broker.next("end_offsets", KafkaConnectionError())

    async def crash(self, _partition: int, _count: int) -> None:
        """The group goes on at once; what the dead process still says is refused, and another begins."""
        if self.bench.clients:
            self.bench.client.evict()
        self.consumer.stop()  # beside the cancel, which `wait_for` of Python 3.11 may swallow
        self.run.cancel()
        await asyncio.wait({self.run})
        self._begin()

    async def restart(self, _partition: int, _count: int) -> None:
        self.consumer.stop()
        await asyncio.wait({self.run})
        self._begin()

    async def end(self) -> None:
        """Everything heals; everything has to be done."""
        self.broker.heal()
        for _ in range(2):
            await self.heal(0, 0)
        await until(lambda: self.bench.clients and self.bench.client.listener is not None)
        await self.rebalance_all(0, 0)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not self.bench.done():
                    await self.heal(0, 0)
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"missing {self.bench.missing()}, committed {self.broker.committed}") from None
        self.consumer.stop()
        await asyncio.wait_for(self.run, DEADLINE_S)


ACTIONS: list[Callable[[Schedule, int, int], Awaitable[None]]] = [
    Schedule.append,
    Schedule.append,
    Schedule.append,
    Schedule.hole,
    Schedule.refuse,
    Schedule.slow,
    Schedule.hang,
    Schedule.lose_the_answer,
    Schedule.heal,
    Schedule.rebalance,
    Schedule.rebalance_all,
    Schedule.evict,
    Schedule.hold_commit,
    Schedule.hold_commit_answer,
    Schedule.hold_start,
    Schedule.fail_commit,
    Schedule.fail_poll,
    Schedule.fail_start,
    Schedule.crash,
    Schedule.restart,
]

PAUSES_TURNS = [0, 1, 2, 5, 10, 20, 50]

steps = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS), st.integers(0, PARTITIONS - 1), st.integers(1, 6), st.sampled_from(PAUSES_TURNS)
    ),
    min_size=10,
    max_size=40,
)


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_every_record_is_stored_and_no_commit_passes_one_that_is_not(
    schedule: list[tuple[Callable[[Schedule, int, int], Awaitable[None]], int, int, int]],
) -> None:
    """0 lost, commits a contiguous prefix, and the group at the logs' ends by itself, after any schedule."""

    async def play() -> None:
        s = Schedule()
        try:
            for action, partition, count, pause_turns in schedule:
                await action(s, partition, count)
                await turns(pause_turns)
            await s.end()
        finally:
            s.run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await s.run
        assert s.bench.wrong_commits == []

    with pytest.MonkeyPatch.context() as patch:
        for module, bounds in BOUNDS_S.items():
            for name, value_s in bounds.items():
                patch.setattr(module, name, value_s)
        for name in ("ENVIRONMENT", "TRANSIENT"):
            patch.setattr(retry, name, Backoff(base_s=0.001, cap_s=0.005))
        asyncio.run(play())
