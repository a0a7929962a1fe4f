"""One record that S3 refuses among others that it takes: the commit stays at it, however many behind it are stored."""

from collections.abc import Callable

from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN
from tests.harness.broker import Topic
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import never, until


def test_commits_are_a_contiguous_prefix(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3, s3_client: str
) -> None:
    """One payload that S3 refuses holds the commit at its offset, however many behind it are stored.

    Whoever commits the highest completed offset loses that payload at the next crash.
    """
    pipeline = Pipeline(processes, make_topic(partitions=1), fake_s3, s3_client)
    ingest, _ = pipeline.ready()
    refused = pipeline.s3.script.inject(SLOW_DOWN, key=lambda key: key.endswith("-7"))
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(200)], answers)
    until(lambda: len(pipeline.objects()) == 199, "all but the refused one", deadline_s=30)
    held = next(r for r in pipeline.topic.records() if dict(r.headers)["spillway-id"].endswith(b"-7"))
    until(lambda: pipeline.topic.committed().get(0) == held.offset, f"a commit at {held.offset}", deadline_s=10)
    post_at_once(ingest.collections_url, [payloads(5), payloads(6)], answers)
    until(lambda: len(pipeline.objects()) == 210, "objects behind the refused one", deadline_s=30)
    never(lambda: pipeline.topic.committed()[0] > held.offset, "a commit past a payload not stored", for_s=3)
    refused.heal()
    verdict = pipeline.settle(answers)
    assert verdict.stored == 211, str(verdict)
