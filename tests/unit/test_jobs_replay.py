"""A run on a scripted broker, store and view: it is complete only if the topic was the same one to the end."""

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from services.uploader.health import StoreHealth
from services.uploader.jobs.display import View
from services.uploader.jobs.span import Span
from services.uploader.jobs.storing.replay import Outcome, Replay, Work
from services.uploader.jobs.storing.state import PartitionState, Purpose
from services.uploader.jobs.storing.tally import CountingStore, PoisonList, Tally
from services.uploader.keys import KeyTemplate
from services.uploader.limiter import Limiter
from services.uploader.partition import Sink
from services.uploader.settings import UploaderSettings
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics
from tests.fakes.kafka_broker import Broker
from tests.fakes.kafka_consumer import ScriptedConsumer
from tests.fakes.scripted_store import ScriptedStore

RECORDS = 10


class Ids:
    """A view of the topic that tells these ids, one a question, and then the last of them."""

    def __init__(self, *ids: str) -> None:
        self._ids = list(ids)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nor to leave."""

    async def topic_id(self) -> str:
        return self._ids.pop(0) if len(self._ids) > 1 else self._ids[0]


class Nobody:
    """A display that nobody looks at."""

    def show(self, view: View) -> None:
        """Not shown."""

    def close(self) -> None:
        """Nor closed."""


async def run(ids: Ids, *, stopped: bool = False) -> tuple[Outcome, int]:
    """A run over one partition that was closed on topic `a`; what it says, and how many objects there are."""
    broker, tally, readiness, metrics = Broker(), Tally(), Readiness(), UploaderMetrics(CollectorRegistry())
    broker.append(RECORDS)
    store = ScriptedStore()
    sink = Sink(
        CountingStore(store, tally),
        KeyTemplate("{id}", "f"),
        StoreHealth(readiness, metrics),
        UploadLimit(Limiter(16), metrics),
        PoisonList(tally),
        metrics,
        4,
    )
    states = {0: PartitionState("a", 0, RECORDS, 0, Purpose("bucket", "{id}"))}
    replay = Replay(
        UploaderSettings(s3_bucket="bucket"),
        Work("t", {0: [Span(0, 0, RECORDS)]}, states, lambda _: True),
        sink,
        tally,
        readiness,
        Nobody(),
        lambda: ScriptedConsumer(broker),  # type: ignore[arg-type, return-value]
        lambda: ids,  # type: ignore[arg-type, return-value]
        give_up_after_s=30,
        keeps_state=False,
    )
    if stopped:
        replay.stop()
    outcome = await replay.run()
    assert all(log.tp == TopicPartition("t", 0) for log in broker.logs.values())
    return outcome, len(store.shelf)


async def test_the_same_topic_to_the_end() -> None:
    """Everything is stored, and nothing failed."""
    outcome, objects = await run(Ids("a"))
    assert (outcome.complete, outcome.failed, outcome.stopped, objects) == (True, "", False, RECORDS)


@pytest.mark.parametrize("known", [0, 1])
async def test_another_topic_at_any_look_is_a_failure(known: int) -> None:
    """At the first look nothing is stored; at the last one, once all is, it has failed all the same: who can say of
    which topic the records were?
    """
    outcome, objects = await run(Ids(*["a"] * known, "b"))
    assert "made anew" in outcome.failed
    assert objects == RECORDS * known


async def test_a_stop_before_anything() -> None:
    """Is a stop, and no failure; everything is left."""
    outcome, objects = await run(Ids("a"), stopped=True)
    assert (outcome.complete, outcome.failed, outcome.stopped, objects) == (False, "", True, 0)
