"""The broker is away, at the start or under load, and comes: no 200 without its object, no restart by hand."""

import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.s3 import FakeS3
from tests.harness.durations import Durations
from tests.harness.load import Load, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kafka import EmbeddedKafka
    from tests.harness.broker import Topic

AWAY: "dict[str, tuple[Callable[[EmbeddedKafka], None], Callable[[EmbeddedKafka], None]]]" = {
    "stopped": (lambda kafka: kafka.stop(), lambda kafka: kafka.start()),
    "frozen": (lambda kafka: kafka.freeze(), lambda kafka: kafka.thaw()),
    "killed": (lambda kafka: kafka.kill(), lambda kafka: kafka.start()),
}
"""How it goes, and how it comes back."""


@pytest.mark.parametrize("how", AWAY)
def test_broker_away_and_back_under_load(
    how: str,
    own_kafka: "EmbeddedKafka",
    make_topic: "Callable[..., Topic]",
    processes: Processes,
    fake_s3: FakeS3,
    durations: Durations,
) -> None:
    """Clients are told while it is away, what was answered 200 is stored, and both tiers come back by themselves."""
    go, come = AWAY[how]
    topic = make_topic(bootstrap_servers=own_kafka.bootstrap_servers)
    pipeline = Pipeline(processes, topic, fake_s3)
    ingest, uploader = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        statuses = load.answers.statuses
        end_s = time.monotonic() + durations.away_s
        go(own_kafka)
        until(
            lambda: time.monotonic() >= end_s and statuses.get(503, 0) + statuses.get(504, 0) >= 5,
            "the end of its absence, and answers that tell of it",
            deadline_s=durations.away_s + 30,
        )
        assert "no answer" in uploader.reasons().get("kafka", "") or "Error" in uploader.reasons().get("kafka", "")
        before = load.accepted
        come(own_kafka)
        until(lambda: load.accepted > before + 200, "payloads accepted again", deadline_s=30)
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) <= {200, 503, 504}, dict(answers.statuses)
    assert (ingest.process.returncode, uploader.process.returncode) == (None, None)


def test_kafka_comes_after_the_uploader(
    own_kafka: "EmbeddedKafka", make_topic: "Callable[..., Topic]", processes: Processes, fake_s3: FakeS3
) -> None:
    """Started into nothing it names the broker; when the broker comes it stores what is posted, without a restart."""
    topic = make_topic(bootstrap_servers=own_kafka.bootstrap_servers)
    pipeline = Pipeline(processes, topic, fake_s3)
    own_kafka.stop()
    uploader = pipeline.uploader()
    until(
        lambda: topic.bootstrap_servers in uploader.reasons().get("kafka", ""),
        "readyz to name the broker",
        deadline_s=30,
    )
    own_kafka.start()
    ingest = pipeline.ingest()
    ingest.wait_ready()
    uploader.wait_ready()
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(50) for _ in range(4)], answers)
    assert dict(answers.statuses) == {200: 4}
    verdict = pipeline.settle(answers)
    assert verdict.stored == 200, str(verdict)
    assert uploader.process.returncode is None
