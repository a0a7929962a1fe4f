"""The lookout: what it tells of lag, age, retention and standstill; when it ends a session. Times are the test's."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from services.uploader.committer import Committer
from services.uploader.partition import Partition
from services.uploader.topic_view import Retention
from services.uploader.watch import RETENTION_INTERVAL_S, SILENT_AFTER_S, TopicRemadeError, Watch, WedgedClientError
from tests.fakes.kafka_broker import TIMESTAMP_MS, Broker
from tests.fakes.kafka_consumer import ScriptedConsumer, ScriptedView
from tests.fakes.script import SLOW_DOWN, Cut
from tests.harness.core_bench import Bench, settings, until

TP = TopicPartition("t", 0)
WRITTEN_S = TIMESTAMP_MS / 1000  # when every record of the scripted broker was written, seconds since 1970
STALLED_AFTER_S = 60.0


class KeepingView(ScriptedView):
    """A view of a topic that keeps its records for an hour."""

    async def retention(self) -> Any:
        return Retention(3_600_000, by_size=False)


class Stand:
    """A watch over one partition that nobody polls: the test admits what it wants to have polled."""

    def __init__(self, bench: Bench, partition: Partition) -> None:
        client = ScriptedConsumer(bench.broker)
        self.bench = bench
        self.partition = partition
        self.committer = Committer(cast("Any", client), bench.settings, bench.metrics)
        self.table = {TP: partition}
        self.asked = {TP: True}
        self.watch = Watch(
            cast("Any", client),
            cast("Any", KeepingView(bench.broker)),
            bench.broker.topic_id,
            self.committer,
            bench.settings,
            bench.readiness,
            bench.metrics,
        )

    def admit(self, count: int) -> None:
        log = self.bench.broker.logs[TP]
        self.partition.admit([log.records[offset] for offset in log.append(count)])

    async def look(self, now_s: float, *, age_s: float = 0) -> None:
        await self.watch.look(self.table, self.asked, now_s, WRITTEN_S + age_s)

    def value(self, name: str, **labels: str) -> float | None:
        return self.bench.registry.get_sample_value(f"spillway_uploader_{name}", {"partition": "0", **labels})


@contextlib.asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    bench = Bench(Broker(), settings(stalled_after_s=STALLED_AFTER_S))
    async with asyncio.TaskGroup() as group:
        partition = bench.partition(TP, group)
        partition.start_at(0, 0)
        try:
            yield Stand(bench, partition)
        finally:
            await partition.close(0)


async def test_lag_age_and_retention_of_what_waits() -> None:
    """Ten records of an hour's retention, written 600 s ago, of which S3 takes none: 3000 s are left."""
    async with stand() as s:
        s.bench.store.script.inject(SLOW_DOWN)
        s.admit(10)
        await s.look(0, age_s=600)
        assert s.value("lag_records") == 10
        assert s.value("lag_bytes") == 30  # ten values of three bytes, "0/0" and so on
        assert s.value("lag_seconds") == pytest.approx(600)
        assert s.value("retention_left_seconds") == pytest.approx(3000)  # 3600 - 600
        assert s.value("buffered_records") == 10


async def test_when_kafka_last_answered_is_told() -> None:
    """The time of the last answered look; it stands while looks go unanswered, and while no session lasts."""
    name = "spillway_uploader_kafka_answered_timestamp_seconds"
    async with stand() as s:
        await s.look(0, age_s=600)
        assert s.bench.registry.get_sample_value(name) == WRITTEN_S + 600
        s.bench.broker.next("end_offsets", KafkaConnectionError("away"))
        await s.look(10, age_s=610)
        assert s.bench.registry.get_sample_value(name) == WRITTEN_S + 600


async def test_nothing_waits() -> None:
    """No lag, no age, and the whole retention for what comes next."""
    async with stand() as s:
        await s.look(0, age_s=600)
        assert (s.value("lag_records"), s.value("lag_seconds"), s.value("retention_left_seconds")) == (0, 0, 3600)


async def test_the_gauges_go_with_the_partition() -> None:
    """Another process reports on it from then on: two of them would be added up."""
    async with stand() as s:
        await s.look(0)
        s.table.clear()
        await s.look(1)
        for name in ("lag_records", "lag_bytes", "lag_seconds", "retention_left_seconds", "idle_seconds"):
            assert s.value(name) is None, name


async def test_a_partition_that_stands_still_is_named_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """From STALLED_AFTER_S on: readiness, metric, one log line; all of it over with the next record stored."""
    caplog.set_level(logging.INFO, "services.uploader.watch")
    async with stand() as s:
        storm = s.bench.store.script.inject(SLOW_DOWN)
        s.admit(1)
        await until(lambda: storm.hits)
        await s.look(0)
        await s.look(STALLED_AFTER_S - 1)
        assert "progress" not in s.bench.readiness.reasons
        for now_s in (STALLED_AFTER_S, STALLED_AFTER_S + 2):
            await s.look(now_s)
            assert s.bench.readiness.reasons["progress"] == "no progress for 60 s or longer in partition 0 (slow_down)"
            assert s.value("stalled", reason="slow_down") == 1
        assert s.value("idle_seconds") == STALLED_AFTER_S + 2
        storm.heal()
        await until(lambda: s.partition.window.committable == 1)
        s.partition.committed = 1
        await s.look(STALLED_AFTER_S + 4)
        assert "progress" not in s.bench.readiness.reasons
        assert s.value("stalled", reason="slow_down") is None
        told = [record.getMessage() for record in caplog.records if record.name == "services.uploader.watch"]
        assert told == [
            "a partition stands still",
            "a partition gets on again",
        ]


@pytest.mark.parametrize("what", ["no records", "no start", "no commit"])
async def test_a_client_that_does_not_get_on_is_replaced(what: str) -> None:
    """The broker has records and the client brings none; or its start is never found; or commits never pass."""
    async with stand() as s:
        if what == "no commit":
            s.admit(1)
            await until(lambda: s.partition.window.committable == 1)
        else:
            s.bench.broker.logs[TP].append(5)
        s.partition.positioned = what != "no start"
        await s.look(0)
        with pytest.raises(WedgedClientError, match="stands still for 60 s"):
            await s.look(STALLED_AFTER_S)


async def test_what_a_new_client_would_not_cure_ends_no_session() -> None:
    """Puts that hang for an hour are the store's business: the session goes on, and says so."""
    async with stand() as s:
        s.bench.store.script.inject(Cut.HANG)
        s.admit(1)
        for now_s in range(0, 3600, 60):
            await s.look(now_s)
        assert "its puts are under way" in s.bench.readiness.reasons["progress"]


async def test_a_remade_topic_ends_the_session_and_forbids_its_commits() -> None:
    """Same name, another id: no offset of this session may be committed for it, also none that is under way."""
    async with stand() as s:
        s.admit(1)
        await until(lambda: s.partition.window.committable == 1)
        s.bench.broker.topic_id = "id-2"
        with pytest.raises(TopicRemadeError, match="deleted and made anew"):
            await s.look(0)
        await s.committer.commit([s.partition], s.table)
        assert s.bench.broker.commits == []


async def test_a_topic_that_is_gone_for_now_is_not_another_one() -> None:
    """Deleted and not made anew yet: the session waits, and does not blame the brokers."""
    async with stand() as s:
        s.bench.broker.topic_id = None
        for now_s in (0, 60, 600):
            await s.look(now_s)
            assert "kafka" not in s.bench.readiness.reasons


async def test_a_silent_broker_is_named_and_is_no_standstill() -> None:
    """Readiness says for how long; what stood still meanwhile lacked a broker, and no client is replaced for that."""
    async with stand() as s:
        s.bench.broker.logs[TP].append(5)
        await s.look(0)
        assert "kafka" not in s.bench.readiness.reasons
        for now_s in (2, SILENT_AFTER_S, 600):
            s.bench.broker.next("end_offsets", KafkaConnectionError("away"))
            await s.look(now_s)
            told = s.bench.readiness.reasons.get("kafka", "")
            assert (f"no answer for {now_s:.0f} s" in told) == (now_s >= SILENT_AFTER_S)
        await s.look(602)
        assert "kafka" not in s.bench.readiness.reasons
        assert s.value("idle_seconds") == 0  # its clock starts anew


async def test_a_retention_that_cannot_be_read_is_asked_for_again() -> None:
    """No answer, no clock; a minute later there is one."""

    class Forgetful(KeepingView):
        asked = 0

        async def retention(self) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise KafkaConnectionError("not now")
            return await super().retention()

    async with stand() as s:
        s.watch._view = cast("Any", Forgetful(s.bench.broker))
        await s.look(0)
        assert s.value("retention_left_seconds") is None
        await s.look(RETENTION_INTERVAL_S - 1)
        assert s.value("retention_left_seconds") is None
        await s.look(RETENTION_INTERVAL_S)
        assert s.value("retention_left_seconds") == 3600
