"""Members come and go under load: partitions change hands, payloads do not get lost between the hands."""

from collections.abc import Callable

from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN, Delay
from tests.harness.broker import Topic
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

STORED = 'spillway_uploader_upload_bytes_total{outcome="stored"}'


def test_a_second_uploader_joins_and_leaves_under_load(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3
) -> None:
    """It takes its share, drains on SIGTERM, exits with 0, and its partitions go on without a gap.

    S3 is slow and sheds a fifth of the keys meanwhile, so that at each change of hands puts are on the wire and others
    wait in backoff: whoever commits what was only polled loses those.
    """
    pipeline = Pipeline(processes, make_topic(partitions=12), fake_s3)
    ingest, first = pipeline.ready()
    with Load(ingest.collections_url, clients=8, per_s=60) as load:
        until(lambda: first.metric(STORED) > 0, "the first member's objects", deadline_s=20)
        slow = pipeline.s3.script.inject(Delay(0.1), key=lambda key: not key.endswith("-3"))
        shed = pipeline.s3.script.inject(SLOW_DOWN, key=lambda key: key.endswith("-3"))
        second = pipeline.uploader()
        until(lambda: second.metric(STORED) > 0, "the second member's objects", deadline_s=40)
        assert second.process.terminate(deadline_s=20) == 0
        slow.heal()
        shed.heal()
        before = load.accepted
        until(lambda: load.accepted > before + 300, "load after it has left", deadline_s=20)
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
    assert first.process.returncode is None
    assert shed.hits > 0
