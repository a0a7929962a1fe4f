"""An uploader without file descriptors; a group that dies while S3 is away: both come back without loss."""

import resource

from tests.fakes.script import SLOW_DOWN
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.waiting import until

FAILED = 'spillway_uploader_uploads_total{outcome="failed"}'


def test_file_descriptors_exhausted(pipeline: Pipeline) -> None:
    """No socket can be opened to S3: the puts wait like in any outage, and go on when there are descriptors again."""
    ingest, uploader = pipeline.ready()
    pid = uploader.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        failed = uploader.metric(FAILED)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
        # The connections that it has are dropped; and again, for one that was being accepted the first time. It can
        # open no other.
        for _ in range(2):
            pipeline.s3.refuse()
            pipeline.s3.listen()
        writes = pipeline.shelf.writes
        accepted = load.accepted
        until(lambda: load.accepted > accepted + 400, "load without descriptors", deadline_s=20)
        assert pipeline.shelf.writes <= writes + 5, "it had descriptors left"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: pipeline.shelf.writes > writes + 100, "objects again", deadline_s=20)
        assert uploader.metric(FAILED) > failed
        answers = load.stop()
    pipeline.settle(answers)
    assert uploader.process.returncode is None


def test_the_only_uploader_is_killed_while_s3_is_away(pipeline: Pipeline) -> None:
    """The next one starts into the outage, waits outside the group and says why; healed, it stores everything."""
    ingest, first = pipeline.ready()
    with Load(ingest.collections_url) as load:
        until(lambda: pipeline.shelf.writes > 50, "the first objects", deadline_s=20)
        storm = pipeline.s3.script.inject(SLOW_DOWN)
        assert storm.hit.wait(20)
        first.process.kill()
        second = pipeline.uploader()
        until(lambda: "slow_down" in second.reasons().get("s3", ""), "the reason at the start", deadline_s=30)
        accepted = load.accepted
        until(lambda: load.accepted > accepted + 200, "load in the outage", deadline_s=20)
        storm.heal()
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
