"""What is asked for and what is committed: room, memory and fairness over partitions, and commits behind failures."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from services.uploader.partition import RECORD_OVERHEAD_BYTES
from tests.fakes.kafka_broker import Broker
from tests.fakes.script import SLOW_DOWN, Cut
from tests.harness.core_bench import Bench, running, settings, shorten, until

TP = TopicPartition("t", 0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def bench(partitions: int = 1, **given: Any) -> Bench:
    return Bench(Broker(partitions=partitions), settings(**given))


async def test_only_partitions_with_room_are_asked_for_and_never_all_by_an_empty_list() -> None:
    """A full partition is not asked for while others are; when none has room, one is asked for that nobody holds."""
    b = bench(2, max_queue=10, max_workers=1)
    fullest = 0

    def measure(_: object) -> None:
        nonlocal fullest
        fullest = max(fullest, *(len(partition.window) for partition in b.table.values()))

    async with running(b):
        await b.joined()
        b.client.after_poll = measure
        stuck = b.store.script.inject(Cut.HANG, key=lambda key: "/t-0-" in key)
        b.broker.append(5, 0)
        await until(lambda: len(b.table[TP].window) == 5)  # half full: asked again, and 5 more may come
        b.broker.append(95, 0)
        b.broker.append(100, 1)
        await until(lambda: b.committed(1) == 100)  # the other one is not starved
        both = b.store.script.inject(Cut.HANG)
        b.broker.append(100, 1)
        nobody = TopicPartition("t", -1)
        await until(lambda: b.client.polls[-1].asked == (nobody,))
        stuck.heal()
        both.heal()
        b.store.script.heal()
        await until(b.done)
    assert fullest <= 10
    assert all(poll.asked for poll in b.client.polls)


async def test_the_byte_budget_holds_and_a_partition_of_huge_records_starves_no_other() -> None:
    """One partition of huge records that hang: memory stays within the budget and a poll, and the small one goes on."""
    size, budget = 10_000, 400_000
    b = bench(2, max_queue=100, max_workers=1, max_buffer_bytes=budget)
    b.broker.fetch_max = 5
    most = 0

    def measure(_: object) -> None:
        nonlocal most
        most = max(most, sum(partition.window.pending_bytes for partition in b.table.values()))

    async with running(b):
        await b.joined()
        b.client.after_poll = measure
        stuck = b.store.script.inject(Cut.HANG, key=lambda key: "/t-0-" in key)
        b.broker.append(100, 0, size_bytes=size)
        b.broker.append(100, 1)
        await until(lambda: b.committed(1) == 100)
        stuck.heal()
        await until(b.done)
    assert most <= budget + 5 * (size + RECORD_OVERHEAD_BYTES)


async def test_no_commit_passes_a_record_that_is_not_stored() -> None:
    """One record fails for long, its neighbours are stored: the commit stands at it, through rebalances too."""
    b = bench()
    async with running(b):
        await b.joined()
        refused = b.store.script.inject(SLOW_DOWN, key=lambda key: "/t-0-7-" in key)
        b.broker.append(20)
        await until(lambda: b.missing() == {(0, 7)})
        await until(lambda: b.committed() == 7)
        await b.client.rebalance()
        hits = refused.hits
        await until(lambda: refused.hits > hits)
        assert b.committed() == 7
        refused.heal()
        await until(b.done)
