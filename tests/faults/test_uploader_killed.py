"""An uploader that dies takes nothing with it: what it had not committed is stored again, under the same keys."""

import os
import signal

from tests.fakes.script import Cut
from tests.harness.load import Load, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.waiting import until


def test_sigkill_between_put_and_commit(pipeline: Pipeline) -> None:
    """What is stored and not committed is written again, same bytes, same key; what still waits for S3 is not lost.

    One put hangs for longer than a commit interval while hundreds behind it are stored; then the uploader is killed
    between another object and its answer.
    """
    ingest, first = pipeline.ready()
    killed_at: list[str] = []

    def kill(key: str, _: int) -> None:
        # In the server's thread, the object stored and its answer not sent: no commit can cover it.
        if not killed_at:
            os.kill(first.process.pid, signal.SIGKILL)
            killed_at.append(key)

    hung = pipeline.s3.script.inject(Cut.HANG, times=1, key=lambda _: pipeline.shelf.writes >= 50)
    with Load(ingest.collections_url) as load:
        assert hung.hit.wait(20)
        until(lambda: pipeline.shelf.writes >= 450, "400 objects, two commit intervals of load", deadline_s=9)
        pipeline.s3.on_stored = kill
        first.process.wait(deadline_s=30)
        second = pipeline.uploader()
        accepted = load.accepted
        until(lambda: load.accepted > accepted + 200, "load after the kill", deadline_s=20)
        answers = load.stop()
    second.wait_ready()
    verdict = pipeline.settle(answers)
    assert set(answers.statuses) == {200}, dict(answers.statuses)
    assert verdict.duplicates >= 1, str(verdict)
    assert len(pipeline.objects()[killed_at[0]]) >= 2


def test_ten_thousand_at_once_and_a_sigkill_half_way(pipeline: Pipeline) -> None:
    """10,000 payloads, an uploader killed half way, another started: 10,000 objects, none under a second key."""
    ingest, first = pipeline.ready()
    answers = Answers()
    collections = [payloads(5_000), *(payloads(100) for _ in range(50))]
    post_at_once(ingest.collections_url, collections, answers)
    assert dict(answers.statuses) == {200: 51}
    until(lambda: pipeline.shelf.writes >= 5_000, "half of the objects", deadline_s=60)
    first.process.kill()
    assert len(pipeline.objects()) < 10_000, "all was stored before the kill: this run shows nothing"
    pipeline.uploader()
    verdict = pipeline.settle(answers, deadline_s=60)
    assert (verdict.accepted, verdict.stored) == (10_000, 10_000), str(verdict)
