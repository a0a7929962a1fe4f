"""The broker goes away under load and comes back: no 200 without its object, no restart by hand."""

from typing import TYPE_CHECKING

from tests.fakes.s3 import FakeS3
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kafka import EmbeddedKafka
    from tests.harness.broker import Topic


def test_broker_stopped_and_started_under_load(
    own_kafka: "EmbeddedKafka", make_topic: "Callable[..., Topic]", processes: Processes, fake_s3: FakeS3
) -> None:
    """Clients are told while it is away, what was answered 200 is stored, and both tiers come back by themselves."""
    topic = make_topic(bootstrap_servers=own_kafka.bootstrap_servers)
    pipeline = Pipeline(processes, topic, fake_s3)
    ingest, uploader = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        own_kafka.stop()
        statuses = load.answers.statuses
        until(
            lambda: statuses.get(503, 0) + statuses.get(504, 0) >= 5, "answers that tell of the outage", deadline_s=30
        )
        before = load.accepted
        own_kafka.start()
        until(lambda: load.accepted > before + 200, "payloads accepted again", deadline_s=30)
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) <= {200, 503, 504}, dict(answers.statuses)
    assert (ingest.process.returncode, uploader.process.returncode) == (None, None)
