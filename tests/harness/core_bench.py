"""The uploader's core (session, assignment, commits, partitions) on a scripted broker and a scripted store.

The one place that knows how these objects are wired. Judges from outside: what is stored, and whether a commit ever
passed a record that was not.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from services.uploader import assignment as assignment_module
from services.uploader import consumer as consumer_module
from services.uploader import retry
from services.uploader.assignment import Assignment
from services.uploader.committer import Committer
from services.uploader.consumer import GroupConsumer
from services.uploader.health import StoreHealth
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Partition, Sink
from services.uploader.retry import Backoff
from services.uploader.settings import UploaderSettings
from services.uploader.topic_view import commit_note
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics
from tests.fakes.dead_letters import ScriptedDeadLetters
from tests.fakes.kafka_broker import Broker
from tests.fakes.kafka_consumer import ScriptedConsumer, ScriptedView
from tests.fakes.scripted_store import ScriptedStore

DEADLINE_S = 20


def settings(**given: Any) -> UploaderSettings:
    """Settings under which a test does not wait: commits every 10 ms, drains of half a second."""
    quick: dict[str, Any] = {
        "s3_bucket": "bucket",
        "kafka_topic": "t",
        "commit_interval_s": 0.01,
        "drain_timeout_s": 0.5,
    }
    return UploaderSettings(**{**quick, **given})


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    """Let the loop turn: everything that is ready runs."""
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass
class Bench:
    """A broker, a store, and what is built on them."""

    broker: Broker
    settings: UploaderSettings
    store: ScriptedStore = field(default_factory=lambda: ScriptedStore(timeout_s=60))
    clients: list[ScriptedConsumer] = field(default_factory=list)
    views: list[ScriptedView] = field(default_factory=list)
    wrong_commits: list[str] = field(default_factory=list)  # commits that passed a record which is not stored
    gave_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = UploaderMetrics(self.registry)
        self.readiness = Readiness("kafka", "topic", "assignment", "s3")
        self.dead_letters = ScriptedDeadLetters()
        self.sink = Sink(
            self.store,
            KeyTemplate(DEFAULT_TEMPLATE, "payloads"),
            StoreHealth(self.readiness, self.metrics),
            UploadLimit(Limiter(1000), self.metrics),
            cast("Any", self.dead_letters),
            self.metrics,
            self.settings.max_workers,
        )
        self.broker.on_commit = self._judge

    @property
    def client(self) -> ScriptedConsumer:
        """The newest session's."""
        return self.clients[-1]

    def new_client(self) -> Any:
        self.clients.append(ScriptedConsumer(self.broker))
        return self.clients[-1]

    def new_view(self) -> Any:
        self.views.append(ScriptedView(self.broker))
        return self.views[-1]

    @property
    def table(self) -> dict[TopicPartition, Partition]:
        """The partitions that the newest session holds."""
        assert isinstance(self.client.listener, Assignment)
        return self.client.listener.table

    async def joined(self) -> None:
        """Wait until the newest session holds partitions and knows where each starts."""
        await until(lambda: self.clients and self.client.listener is not None)
        await until(lambda: self.table and all(partition.positioned for partition in self.table.values()))

    def consumer(self) -> GroupConsumer:
        """A group consumer; every session gets a client of `clients`."""
        return GroupConsumer(
            self.settings, self.sink, self.readiness, self.metrics, self.new_client, self.new_view, self.gave_up.append
        )

    def committer(self, client: ScriptedConsumer) -> Committer:
        return Committer(cast("Any", client), self.settings, self.metrics, commit_note(self.broker.topic_id))

    def assignment(self, client: ScriptedConsumer, group: asyncio.TaskGroup, committer: Committer) -> Assignment:
        return Assignment(
            cast("Any", client),
            self.new_view(),
            self.broker.topic_id,
            group,
            self.sink,
            committer,
            self.settings,
            self.readiness,
            self.metrics,
        )

    def partition(self, tp: TopicPartition, group: asyncio.TaskGroup) -> Partition:
        return Partition(tp, self.sink, group)

    @property
    def stored(self) -> set[tuple[int, int]]:
        """Partition and offset of every record that is an object with exactly its value."""
        found = set()
        for version in (version for versions in self.store.shelf.versions().values() for version in versions):
            place = int(version.metadata["spillway-partition"]), int(version.metadata["spillway-offset"])
            assert version.body.rstrip(b".") == f"{place[0]}/{place[1]}".encode()
            found.add(place)
        return found

    def missing(self) -> set[tuple[int, int]]:
        """Records of the logs that are not stored."""
        return {(tp.partition, at) for tp, log in self.broker.logs.items() for at in log.records} - self.stored

    def committed(self, partition: int = 0) -> int | None:
        """The group's commit."""
        at = self.broker.committed.get(TopicPartition(self.broker.topic, partition))
        return None if at is None else at[0]

    def done(self) -> bool:
        """Everything is stored, and the commits say so."""
        return not self.missing() and all(
            self.committed(tp.partition) == log.end for tp, log in self.broker.logs.items()
        )

    def value(self, name: str, **labels: str) -> float:
        """A metric's value; 0 while it has none."""
        return self.registry.get_sample_value(f"spillway_uploader_{name}", labels) or 0.0

    def _judge(self, tp: TopicPartition, offset: int) -> None:
        unstored = {(tp.partition, at) for at in self.broker.logs[tp].records if at < offset} - self.stored
        if unstored:
            self.wrong_commits.append(f"{tp} committed {offset} before {sorted(unstored)} were stored")


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses after a failure so short that a test does not wait for them."""
    monkeypatch.setattr(consumer_module, "SESSION_PAUSE_S", 0.001)
    monkeypatch.setattr(consumer_module, "TOPIC_CHECK_S", 0.001)
    monkeypatch.setattr(consumer_module, "POLL_STOP_TIMEOUT_S", 0.02)
    monkeypatch.setattr(assignment_module, "POSITION_RETRY_S", 0.001)
    for name in ("ENVIRONMENT", "TRANSIENT"):
        monkeypatch.setattr(retry, name, Backoff(base_s=0.001, cap_s=0.001))


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[GroupConsumer]:
    """A group consumer that runs; at the end it is told to stop, has to return, and no commit may have been wrong."""
    consumer = bench.consumer()
    run = asyncio.create_task(consumer.run())
    try:
        yield consumer
        consumer.stop()
        async with asyncio.timeout(DEADLINE_S):
            await run
    finally:
        run.cancel()
        await asyncio.wait({run})
    assert bench.wrong_commits == []
    assert bench.gave_up == []
