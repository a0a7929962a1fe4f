"""An uploader is told to stop, once, twice, or is killed while it does: what it had finished is committed, no more."""

import signal

from tests.fakes.script import Cut
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.waiting import until

GRACE_S = 12
"""The drain (5 s), two commits (3 s each) and a second; the pod's own grace period has to be longer."""

PATIENT = {"DRAIN_TIMEOUT_S": "50", "KAFKA_REBALANCE_TIMEOUT_S": "60", "KAFKA_REQUEST_TIMEOUT_S": "70"}
"""A drain far longer than the test waits: who leaves earlier has not waited for it."""


def test_sigterm_under_load(pipeline: Pipeline) -> None:
    """It leaves with 0 in its grace period although a put hangs; its commits cover what it stored but for that put."""
    ingest, first = pipeline.ready({"COMMIT_INTERVAL_S": "40"})  # what is committed at the end, the stop committed
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 100, "the first objects", deadline_s=20)
        hung = pipeline.s3.script.inject(Cut.HANG, times=1)
        assert hung.hit.wait(20)
        writes = pipeline.shelf.writes
        until(lambda: pipeline.shelf.writes > writes + 100, "objects behind the one that hangs", deadline_s=20)
        assert first.process.terminate(deadline_s=GRACE_S) == 0
        stored = {
            (int(version.metadata["spillway-partition"]), int(version.metadata["spillway-offset"]))
            for versions in pipeline.objects().values()
            for version in versions
        }
        committed = pipeline.topic.committed()
        # Three of four partitions have no put that hung: there the commit is exactly the stored prefix.
        prefix = {partition: _prefix(partition, stored) for partition in range(pipeline.topic.partitions)}
        same = [partition for partition in prefix if committed.get(partition, 0) == prefix[partition]]
        assert len(same) >= 3, f"committed {committed}, stored {prefix}"
        assert all(committed.get(partition, 0) <= prefix[partition] for partition in prefix)
        second = pipeline.uploader()
        answers = load.stop()
    second.wait_ready()
    pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)


def test_a_second_sigterm_leaves_at_once(pipeline: Pipeline) -> None:
    """Whoever says it twice does not want to wait for a put that hangs; nothing is lost by it."""
    ingest, first = pipeline.ready(PATIENT)
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 20, "the first objects", deadline_s=20)
        hung = pipeline.s3.script.inject(Cut.HANG)
        assert hung.hit.wait(20)
        first.process.send(signal.SIGTERM)
        until(lambda: '"draining"' in first.process.output(), "the drain to begin", deadline_s=5)
        first.process.send(signal.SIGTERM)
        assert first.process.wait(deadline_s=20) == 128 + signal.SIGTERM, "it waited for the put"
        hung.heal()
        answers = load.stop()
    pipeline.uploader()
    pipeline.settle(answers)


def test_sigkill_during_a_drain(pipeline: Pipeline) -> None:
    """Killed with puts on the wire that will be stored after its death: the next one writes the same bytes again."""
    ingest, first = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        hung = pipeline.s3.script.inject(Cut.STORE_THEN_HANG)
        assert hung.hit.wait(20)
        first.process.send(signal.SIGTERM)
        until(lambda: '"draining"' in first.process.output(), "the drain to begin", deadline_s=5)
        first.process.kill()
        hung.heal()
        answers = load.stop()
    pipeline.uploader()
    verdict = pipeline.settle(answers)
    assert verdict.duplicates > 0, str(verdict)


def _prefix(partition: int, stored: set[tuple[int, int]]) -> int:
    offset = 0
    while (partition, offset) in stored:
        offset += 1
    return offset
