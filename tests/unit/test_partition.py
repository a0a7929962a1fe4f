"""One partition's queue and workers over a store that breaks by script; the window is the real one."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from prometheus_client import CollectorRegistry

from services.uploader import retry
from services.uploader.assignment import Assignment
from services.uploader.errors import TransientError
from services.uploader.health import StoreHealth
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Partition, Sink, held_bytes, read_record
from services.uploader.retry import Backoff
from services.uploader.settings import UploaderSettings
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.record import decode
from shared.telemetry import UploaderMetrics
from tests.fakes.dead_letters import ScriptedDeadLetters
from tests.fakes.script import ACCESS_DENIED, ENTITY_TOO_LARGE, SLOW_DOWN, Cut, Delay
from tests.fakes.scripted_store import ScriptedStore

TP = TopicPartition("t", 0)
DEADLINE_S = 30
TIMESTAMP_MS = 1_795_521_600_000
KEYS = KeyTemplate(DEFAULT_TEMPLATE, "payloads")


@dataclass
class Bench:
    """A partition under test and what it stands on."""

    partition: Partition
    store: ScriptedStore
    readiness: Readiness
    dead_letters: ScriptedDeadLetters
    registry: CollectorRegistry

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - a condition with a deadline
                await asyncio.sleep(0.001)

    def key(self, offset: int) -> str:
        record = decode(topic="t", partition=0, offset=offset, timestamp_ms=TIMESTAMP_MS, value=b"x", headers=())
        return KEYS.key(record)


def _record(offset: int, value: bytes | None = b"x") -> ConsumerRecord:
    return ConsumerRecord(
        topic="t",
        partition=0,
        offset=offset,
        timestamp=TIMESTAMP_MS,
        timestamp_type=1,
        key=None,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=0,
        headers=(),
    )


@asynccontextmanager
async def bench(*, max_workers: int = 4) -> AsyncIterator[Bench]:
    store = ScriptedStore(timeout_s=60)
    readiness = Readiness()
    registry = CollectorRegistry()
    metrics = UploaderMetrics(registry)
    dead_letters = ScriptedDeadLetters()
    sink = Sink(
        store,
        KEYS,
        StoreHealth(readiness, metrics),
        UploadLimit(Limiter(1000), metrics),
        cast("Any", dead_letters),
        metrics,
        max_workers,
    )
    async with asyncio.TaskGroup() as group:
        partition = Partition(TP, sink, group)
        partition.start_at(0, None)
        try:
            yield Bench(partition, store, readiness, dead_letters, registry)
        finally:
            await partition.close(0)


def admit(partition: Partition, offsets: Sequence[int]) -> None:
    partition.admit([_record(offset) for offset in offsets])


async def test_everything_admitted_is_stored_and_committable() -> None:
    """100 records, holes among them: 100 objects, and the committable offset after the last."""
    async with bench() as b:
        admit(b.partition, range(0, 200, 2))
        await b.until(lambda: b.partition.window.committable == 199)
        assert len(b.store.shelf) == 100


async def test_an_object_tells_where_its_payload_came_from() -> None:
    """A redriven record is read from a letter: its own partition and offset, and not those of the letter."""
    async with bench() as b:
        own = dataclasses.replace(b.partition._sink, read=lambda raw: read_record(raw)._replace(partition=7, offset=42))
        b.partition._sink = own
        admit(b.partition, [0])
        await b.until(lambda: b.partition.window.committable == 1)
        (versions,) = b.store.shelf.versions().values()
        told = versions[0].metadata
        assert (told["spillway-partition"], told["spillway-offset"]) == ("7", "42")


async def test_a_records_age_is_counted_once_when_it_is_stored() -> None:
    """Since its time stamp, retries included and not counted; none of a tombstone, nor where there is no time stamp."""
    async with bench() as b:
        old_ms = round(time.time() * 1000) - 7_200_000
        b.store.script.inject(SLOW_DOWN, times=1)
        tombstone, unstamped = _record(1, None), replace(_record(2), timestamp=-1)
        b.partition.admit([replace(_record(0), timestamp=old_ms), tombstone, unstamped])
        await b.until(lambda: b.partition.window.committable == 3)
        name = "spillway_uploader_stored_age_seconds"
        assert b.registry.get_sample_value(f"{name}_count") == 1
        for le, count in (("3600.0", 0), ("14400.0", 1)):  # two hours
            assert b.registry.get_sample_value(f"{name}_bucket", {"le": le}) == count


async def test_max_workers_bounds_the_puts_in_flight() -> None:
    """Never more than MAX_WORKERS puts at once, and as many as that when there is work."""
    async with bench(max_workers=3) as b:
        b.store.script.inject(Delay(0.002))
        admit(b.partition, range(30))
        await b.until(lambda: b.partition.window.committable == 30)
        assert b.store.in_flight_max == 3


async def test_one_admission_after_another_never_leaves_the_queue_to_nobody() -> None:
    """A record that comes at any turn of the loop around the end of the only worker still finds one."""
    for turns in range(20):
        async with bench(max_workers=1) as b:
            admit(b.partition, [0])
            for _ in range(turns):
                await asyncio.sleep(0)
            admit(b.partition, [1])
            await b.until(lambda: b.partition.window.committable == 2)


async def test_a_failing_record_holds_the_commit_and_no_other_record() -> None:
    """One key refused: its neighbours are stored, nothing at or behind it is committable; healed, all is."""
    async with bench() as b:
        refused = b.key(3)
        fault = b.store.script.inject(SLOW_DOWN, key=lambda key: key == refused)
        admit(b.partition, range(10))
        await b.until(lambda: len(b.store.shelf) == 9)
        assert b.partition.window.committable == 3
        fault.heal()
        await b.until(lambda: b.partition.window.committable == 10)


@pytest.mark.parametrize("fault", [SLOW_DOWN, ACCESS_DENIED, Cut.RESET])
async def test_any_failure_is_retried_until_it_passes(fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transient and environment errors alike: no last attempt, no record dropped."""
    for name in ("ENVIRONMENT", "TRANSIENT"):
        monkeypatch.setattr(retry, name, Backoff(base_s=0.001, cap_s=0.001))
    async with bench() as b:
        b.store.script.inject(fault, times=20)  # type: ignore[arg-type]
        admit(b.partition, [0])
        await b.until(lambda: b.partition.window.committable == 1)


async def test_readiness_names_the_failure() -> None:
    """While S3 refuses, the condition `s3` says why."""
    async with bench() as b:
        fault = b.store.script.inject(ACCESS_DENIED)
        admit(b.partition, [0])
        await b.until(lambda: "access_denied" in b.readiness.reasons.get("s3", ""))
        fault.heal()
        await b.until(lambda: b.partition.window.committable == 1)


async def test_a_tombstone_completes_without_an_object() -> None:
    """A null value is counted, stores nothing, and does not stop the commit."""
    async with bench() as b:
        b.partition.admit([_record(0, None), _record(1, b"")])
        await b.until(lambda: b.partition.window.committable == 2)
        assert [version.body for versions in b.store.shelf.versions().values() for version in versions] == [b""]


async def test_poison_is_complete_once_its_letter_is() -> None:
    """Held, it blocks the commit and nothing else; acknowledged as a dead letter, the commit passes it."""
    async with bench() as b:
        b.store.script.inject(ENTITY_TOO_LARGE, key=lambda key: key == b.key(1))
        b.dead_letters.refusing = True
        admit(b.partition, range(4))
        await b.until(lambda: b.dead_letters.held == {1} and b.dead_letters.stored == 3)
        assert b.partition.window.committable == 1
        assert b.partition.failing == "entity_too_large"
        b.dead_letters.refusing = False
        await b.until(lambda: b.partition.window.committable == 4)
        assert b.dead_letters.letters == [1]
        assert b.partition.failing is None
        assert "s3" not in b.readiness.reasons, "S3 is well: it is the record that is not"


async def test_a_held_record_that_s3_takes_in_the_end_is_released() -> None:
    """Somebody mended what made it poison: it is an object, and no letter."""
    async with bench() as b:
        refusal = b.store.script.inject(ENTITY_TOO_LARGE, key=lambda key: key == b.key(0))
        b.dead_letters.refusing = True
        admit(b.partition, [0])
        await b.until(lambda: b.dead_letters.held == {0})
        refusal.heal()
        await b.until(lambda: b.partition.window.committable == 1)
        assert (b.dead_letters.held, b.dead_letters.letters) == (set(), [])


async def test_close_lets_puts_on_the_wire_finish() -> None:
    """A put that is under way when the partition goes still counts, and what is queued is left to the next owner."""
    async with bench(max_workers=2) as b:
        b.store.script.inject(Delay(0.05), times=2)
        admit(b.partition, range(10))
        await b.until(lambda: b.store.in_flight == 2)
        await b.partition.close(5)
        assert b.partition.window.committable == 2
        assert len(b.store.shelf) == 2


async def test_close_does_not_wait_for_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers asleep in backoff leave at once, however long they would have slept."""
    monkeypatch.setattr(retry, "ENVIRONMENT", Backoff(base_s=1e6, cap_s=1e6))
    async with bench(max_workers=2) as b:
        b.store.script.inject(ACCESS_DENIED)
        admit(b.partition, range(5))
        await b.until(lambda: "s3" in b.readiness.reasons and b.store.in_flight == 0)
        async with asyncio.timeout(DEADLINE_S):
            await b.partition.close(1e6)
        assert b.partition.window.committable == 0


async def test_close_gives_up_a_put_that_hangs() -> None:
    """Beyond the drain time-out nothing is waited for, and what hung is not committable."""
    async with bench(max_workers=1) as b:
        b.store.script.inject(Cut.HANG)
        admit(b.partition, range(2))
        await b.until(lambda: b.store.in_flight == 1)
        async with asyncio.timeout(DEADLINE_S):
            await b.partition.close(0.01)
        assert b.store.in_flight == 0
        assert b.partition.window.committable == 0
        # Its place is given back, it counts as failed, and the limiter hears nothing of it: S3 has said nothing.
        told = {
            name: b.registry.get_sample_value(f"spillway_uploader_{name}") for name in ("in_flight", "in_flight_limit")
        }
        assert told == {"in_flight": 0, "in_flight_limit": 16}
        assert b.registry.get_sample_value("spillway_uploader_uploads_total", {"outcome": "failed"}) == 1


async def test_a_put_that_fails_after_the_close_is_not_committable() -> None:
    """It was on the wire at the close and got its time, and then S3 refused it: it is the next owner's."""
    async with bench(max_workers=1) as b:
        refused = asyncio.Event()

        class Refusing:
            async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:  # noqa: ARG002
                await refused.wait()
                raise TransientError("slow_down", "503")

        b.partition._sink = replace(b.partition._sink, store=Refusing())
        admit(b.partition, [0])
        await b.until(lambda: b.registry.get_sample_value("spillway_uploader_in_flight") == 1)
        closing = asyncio.create_task(b.partition.close(DEADLINE_S))
        await b.until(lambda: b.partition.closed)
        refused.set()
        await closing
        assert b.partition.window.committable == 0


async def test_a_closed_partition_takes_nothing() -> None:
    """Records admitted after the close (a poll that was under way) are not stored by this owner, nor committed."""
    async with bench() as b:
        await b.partition.close(1)
        admit(b.partition, range(3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b.partition.window.committable == 0
        assert len(b.store.shelf) == 0


async def test_polls_ask_only_for_what_has_room() -> None:
    """Full and unpositioned partitions are not asked for, and the record limit keeps all within MAX_QUEUE. Of the byte
    budget, half is free for all, and each partition has its share of the other half, whatever the others hold.
    """
    size = held_bytes(_record(0))
    settings = UploaderSettings(s3_bucket="bucket", max_queue=10, max_buffer_bytes=64 * size)
    async with bench() as empty, bench() as half, bench() as full, bench() as new:
        table = [empty.partition, half.partition, full.partition, new.partition]
        for partition, b, count in zip(table, (empty, half, full, new), (0, 5, 6, 0), strict=True):
            b.store.script.inject(Cut.HANG)
            partition.tp = TopicPartition("t", table.index(partition))
            admit(partition, range(count))
        assignment = _assignment(settings, table)
        new.partition.positioned = False
        asked, records_max = assignment.hungry()
        assert [tp.partition for tp in asked] == [0, 1]  # 6 of 10 is over the half that makes a partition hungry
        assert records_max == 5  # 10 less the 5 of the fuller one that is asked
        admit(full.partition, range(6, 27))  # 5 + 6 + 21 records: 32, the half that is free for all
        assert [tp.partition for tp in assignment.hungry()[0]] == [0, 1]  # each is below its share, 32 / 4 = 8 records
        admit(empty.partition, range(5))
        assert [tp.partition for tp in assignment.hungry()[0]] == [0, 1]
        # a share is 40 / 2 / 4 = 5 records: those of 5 have used theirs up
        tight = _assignment(settings.model_copy(update={"max_buffer_bytes": 40 * size}), table)
        assert tight.hungry() == ([], 10)
        assert tight.asked == dict.fromkeys(tight.table, False)


async def test_the_smallest_budget_still_lets_one_record_in() -> None:
    """MAX_BUFFER_BYTES=1 is slow and never a standstill: who holds nothing is asked for, who holds anything is not."""
    async with bench() as empty, bench() as full:
        full.store.script.inject(Cut.HANG)
        full.partition.tp = TopicPartition("t", 1)
        admit(full.partition, [0])
        settings = UploaderSettings(s3_bucket="bucket", max_buffer_bytes=1)
        assert _assignment(settings, [empty.partition, full.partition]).hungry()[0] == [empty.partition.tp]


def _assignment(settings: UploaderSettings, table: Sequence[Partition]) -> Assignment:
    """An assignment that asks nobody: only its table and the settings matter here."""
    nobody: Any = None
    assignment = Assignment(
        nobody, nobody, None, nobody, nobody, nobody, settings, Readiness(), UploaderMetrics(CollectorRegistry())
    )
    assignment.table.update({partition.tp: partition for partition in table})
    return assignment
