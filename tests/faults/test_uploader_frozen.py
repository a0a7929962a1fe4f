"""A member is frozen longer than its session and thaws as a zombie: it harms nobody, and comes back to work."""

import signal
from collections.abc import Sequence

from tests.fakes.script import Delay, Version
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.waiting import until

STORED = 'spillway_uploader_upload_bytes_total{outcome="stored"}'


def written_late(versions: Sequence[Version]) -> bool:
    """Whether the first member wrote the object after the second had: `Version` keeps the headers of its PUT."""
    by_second = ["Credential=second/" in version.headers["authorization"] for version in versions]
    return True in by_second and not by_second[-1]


def test_a_member_frozen_past_its_session(pipeline: Pipeline) -> None:
    """Another takes over. Thawed, its late puts are the same bytes at the same keys, none of its commits goes over the
    new owner's (the oracle looks for offsets that go back), and it gets a share again.
    """
    ingest, first = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 100, "the first objects", deadline_s=20)
        slow = pipeline.s3.script.inject(Delay(1))
        until(lambda: slow.hits >= 16, "puts on the wire, and others queued behind them", deadline_s=20)
        first.process.send(signal.SIGSTOP)
        slow.heal()
        second = pipeline.uploader({"AWS_ACCESS_KEY_ID": "second"})  # objects tell who wrote them
        until(lambda: second.metric(STORED) > 0, "the other member to take over", deadline_s=40)
        taken = load.accepted
        until(lambda: load.accepted > taken + 100, "load on the other alone", deadline_s=20)
        first.process.send(signal.SIGCONT)
        until(lambda: first.metric("spillway_uploader_assignment_epoch") >= 2, "the zombie to rejoin", deadline_s=30)
        first.wait_ready()
        before = first.metric(STORED)
        until(lambda: first.metric(STORED) > before, "the zombie to store again", deadline_s=30)
        answers = load.stop()
    verdict = pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
    assert verdict.duplicates > 0, "nothing was stored twice: the zombie had nothing on the wire"
    assert any(written_late(versions) for versions in pipeline.objects().values()), "no late put of the zombie's"
    assert (first.process.returncode, second.process.returncode) == (None, None)
