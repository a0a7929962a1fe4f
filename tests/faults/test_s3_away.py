"""S3 sheds, fails and comes back: the uploader waits, loses nothing, and commits no further than it has stored."""

from collections.abc import Callable

from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN, Cut
from tests.harness.broker import Topic
from tests.harness.load import Load, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import never, until

OUTAGE_S = 20


def test_503_for_20_s_under_load(pipeline: Pipeline) -> None:
    """While S3 sheds everything, ingest goes on answering 200; when it ends, all of it is stored within 30 s."""
    ingest, uploader = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        storm = pipeline.s3.script.inject(SLOW_DOWN, for_s=OUTAGE_S)
        before = load.accepted
        until(lambda: storm.over, "the end of the storm", deadline_s=OUTAGE_S + 5)
        during = load.accepted - before
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
    assert during > 0, "nothing was accepted during the storm"
    assert storm.hits > 0
    assert uploader.process.returncode is None


def test_answers_lost_after_storing(pipeline: Pipeline) -> None:
    """An object whose answer is lost is put again: the same body under the same key, and never a second key."""
    ingest, _ = pipeline.ready()
    lost = [pipeline.s3.script.inject(cut, times=40) for cut in (Cut.STORE_THEN_DROP, Cut.RESET, Cut.TRUNCATE)]
    with Load(ingest.collections_url) as load:
        until(lambda: all(injection.left == 0 for injection in lost), "120 lost answers", deadline_s=20)
        answers = load.stop()
    verdict = pipeline.settle(answers)
    assert verdict.duplicates > 0, str(verdict)


def test_commits_are_a_contiguous_prefix(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3
) -> None:
    """One payload that S3 refuses holds the commit at its offset, however many behind it are stored.

    Whoever commits the highest completed offset loses that payload at the next crash.
    """
    pipeline = Pipeline(processes, make_topic(partitions=1), fake_s3)
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
