"""Five members join within two seconds, and leave within two seconds: no loss, no partition without an owner."""

import itertools
import signal
import time
from collections.abc import Callable

from tests.fakes.s3 import FakeS3
from tests.fakes.script import Cut
from tests.harness.broker import Topic
from tests.harness.load import Load
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

DEFAULTS = {"KAFKA_SESSION_TIMEOUT_S": "10"}
"""What an operator has who sets nothing; the pipeline's own is shorter."""

PROBES = ".spillway/"

PAUSE_MAX_S = 5.0
"""The promise: how long the group stores nothing at all, at most, while members come or go."""


def test_one_to_six_and_back_under_load(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3
) -> None:
    """Every partition is stored from throughout, and everything that left did so with 0."""
    pipeline = Pipeline(processes, make_topic(partitions=12), fake_s3)
    ingest, first = pipeline.ready(DEFAULTS)
    stored_s: list[float] = []

    def note(key: str, _writes: int) -> None:
        if not key.startswith(PROBES):  # the probes of those that join are no payloads
            stored_s.append(time.monotonic())

    with Load(ingest.collections_url, clients=8, per_s=40) as load:
        until(lambda: pipeline.shelf.writes > 100, "the first objects", deadline_s=20)
        fake_s3.on_stored = note
        # Their probes are held until all five have started, so that they join at the same time.
        held = fake_s3.script.inject(Cut.HANG, key=lambda key: key.startswith(PROBES))
        others = [pipeline.uploader(DEFAULTS) for _ in range(5)]
        until(lambda: held.hits >= 5, "five members about to join", deadline_s=60)
        held.heal()
        for other in others:
            until(
                lambda other=other: other.metric("spillway_uploader_assignment_epoch") >= 1,  # type: ignore[misc]
                "every member to have joined",
                deadline_s=60,
            )
        everyone = [first, *others]
        until(
            lambda: sum(len(m.series("spillway_uploader_lag_records")) for m in everyone) == 12,
            "12 owned",
            deadline_s=30,
        )
        for other in others:
            other.process.send(signal.SIGTERM)
        assert [other.process.wait(deadline_s=30) for other in others] == [0] * 5
        until(lambda: len(first.series("spillway_uploader_lag_records")) == 12, "all 12 with the last", deadline_s=30)
        accepted = load.accepted
        until(lambda: load.accepted > accepted + 200, "load after the storm", deadline_s=20)
        answers = load.stop()
    pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
    pause_s = max(after - before for before, after in itertools.pairwise(stored_s))
    assert pause_s < PAUSE_MAX_S, f"nothing was stored for {pause_s:.1f} s"
