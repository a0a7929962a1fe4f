"""Somebody deletes and alters objects behind our back: `verify` names exactly these, `replay` puts exactly these back,
also when it is killed on the way, and the live group goes on as if nothing had happened.

PUTs are counted at the store, and the group's commits at the broker.
"""

import json
import signal

import pytest

from tests.fakes.script import Version
from tests.harness.commands import Commands
from tests.harness.load import Load, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.waiting import until

PAYLOADS = 20_000
DELETED, ALTERED = 300, 7
PUTS_MAX = 4 * 16  # on the wire at the kill, and between the last commit and it: of 4 partitions, MAX_WORKERS each


@pytest.fixture
def stored(pipeline: Pipeline) -> None:
    """20,000 payloads are in the bucket, an ingest and an uploader run on."""
    ingest, _ = pipeline.ready()
    answers = Answers()
    for _ in range(10):
        post_at_once(ingest.collections_url, [payloads(500) for _ in range(PAYLOADS // 5000)], answers)
    until(lambda: len(pipeline.objects()) == PAYLOADS, "20,000 objects", deadline_s=240)
    until(lambda: pipeline.topic.lag() == 0, "the group's lag to be 0", deadline_s=20)


@pytest.mark.timeout(400, method="signal")  # 20,000 puts and as many questions
@pytest.mark.usefixtures("stored")
def test_what_was_lost_is_named_and_put_back(pipeline: Pipeline) -> None:
    """Of 20,000 payloads 300 objects vanish and 7 change, some keeping their size: `verify` names exactly those 307
    and exits 1; `replay --only-missing`, killed in its middle and resumed, puts back those and at most the few in
    flight twice; then `verify` exits 0, and the live group's commits have not moved.
    """
    before = pipeline.objects()
    committed = pipeline.topic.committed()
    keys = sorted(before)
    lost, changed = keys[:: PAYLOADS // DELETED][:DELETED], keys[3 :: PAYLOADS // ALTERED][:ALTERED]
    assert len({*lost, *changed}) == DELETED + ALTERED
    _damage(pipeline, before, lost, changed)
    commands = pipeline.commands()

    verified = commands.run("verify", "--from", "beginning", "--output", "json")
    assert verified.code == 1, str(verified)
    found = {(fault["key"], fault["finding"]) for fault in verified.document["faults"]}
    assert found == {(key, "missing") for key in lost} | {(key, "different") for key in changed}

    began = pipeline.shelf.writes
    _kill_in_the_middle(pipeline, commands, began)
    resumed = commands.run("replay", "--resume", "after-loss", "--output", "json", deadline_s=120)
    assert resumed.code == 0, str(resumed)
    assert resumed.document["complete"]
    assert resumed.document["already_there"] > 0  # it went on where it was; it did not begin again
    assert resumed.document["already_there"] + resumed.document["stored"] < PAYLOADS
    puts = pipeline.shelf.writes - began
    assert DELETED + ALTERED <= puts <= DELETED + ALTERED + PUTS_MAX

    verified = commands.run("verify", "--from", "beginning", "--output", "json")
    assert (verified.code, verified.document["same"]) == (0, PAYLOADS), str(verified)
    assert {key: written[-1].body for key, written in pipeline.objects().items()} == {
        key: written[-1].body for key, written in before.items()
    }
    assert pipeline.topic.committed() == committed


def _damage(pipeline: Pipeline, before: dict[str, tuple[Version, ...]], lost: list[str], changed: list[str]) -> None:
    for key in lost:
        pipeline.shelf.remove(key)
    for number, key in enumerate(changed):
        body = before[key][-1].body
        worse = body[:-1] if number % 2 else body[:-1] + b"!"  # another size, or other bytes of the same size
        pipeline.shelf.store(key, worse, {}, "application/octet-stream")


def _kill_in_the_middle(pipeline: Pipeline, commands: Commands, began: int) -> None:
    job = commands.start("replay", "--from", "beginning", "--only-missing", "--job", "after-loss")
    until(lambda: pipeline.shelf.writes - began >= DELETED // 3, "a third of it to be put back", deadline_s=60)
    job.send(signal.SIGKILL)
    job.wait(deadline_s=10)
    assert pipeline.shelf.writes - began < DELETED, "it was killed too late to prove anything"


def test_a_replay_beside_live_traffic(pipeline: Pipeline) -> None:
    """A replay of all that is there ends at the bound that it closed when it began, while the live group stores what
    comes meanwhile: no commit goes back or ahead of the store, and the same bytes lie under the same keys.
    """
    ingest, _ = pipeline.ready()
    commands = pipeline.commands()
    with Load(ingest.collections_url, per_s=20) as load:
        until(lambda: len(pipeline.objects()) >= 500, "500 objects", deadline_s=30)
        replayed = commands.run("replay", "--from", "beginning", "--rate", "200", "--output", "json")
        answers = load.stop()
    assert replayed.code == 0, str(replayed)
    in_range = sum(each["end"] - each["begin"] for each in replayed.document["partitions"].values())
    assert replayed.document["stored"] == in_range
    assert 500 <= in_range < len(answers.accepted)
    verdict = pipeline.settle(answers)
    assert verdict.duplicates >= in_range  # each was written twice, the same bytes at the same key


def test_ctrl_c_says_how_to_go_on(pipeline: Pipeline) -> None:
    """The first Ctrl-C ends a replay cleanly, with exit code 130 and the command that goes on; that one does. Until
    then it has put no more than its rate allows.
    """
    ingest, _ = pipeline.ready()
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(400) for _ in range(2)], answers)
    until(lambda: len(pipeline.objects()) == 800, "800 objects", deadline_s=30)
    began, commands = pipeline.shelf.writes, pipeline.commands()
    job = commands.start("replay", "--from", "beginning", "--rate", "100", "--job", "slow", "--output", "json")
    until(lambda: pipeline.shelf.writes - began >= 100, "100 objects again", deadline_s=30)
    job.send(signal.SIGINT)
    assert job.wait(deadline_s=15) == 130
    report = json.loads(job.output().splitlines()[-1])
    assert (report["stopped"], report["resume"]) == (True, "spillway-uploader replay --resume slow")
    at_stop = pipeline.shelf.writes - began
    assert report["stored"] == at_stop < 800
    assert report["stored"] <= 100 * (report["seconds"] + 0.1) + 1  # --rate: never more, however fast the machine
    resumed = commands.run(*report["resume"].split()[1:], "--output", "json")
    assert resumed.code == 0, str(resumed)
    assert resumed.document["stored"] == 800 - at_stop  # a clean stop commits all that is stored
