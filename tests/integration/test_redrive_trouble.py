"""`spillway-uploader redrive` when something goes wrong: S3, the range, its options, a kill in its middle."""

import json
import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, SLOW_DOWN, Cut, Delay, Shelf
from tests.harness.broker import Topic
from tests.harness.dead_letters import bury, delete_before
from tests.harness.letter_stand import Capture, Stand, bodies, key_of, letters, stored
from tests.harness.processes import Process, Processes
from tests.harness.waiting import until


@pytest.fixture
def stand(make_topic: Callable[..., Topic], fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Stand:
    """A stand with an empty dead-letter topic."""
    for name, value in fake_s3.environment().items():
        monkeypatch.setenv(name, value)
    return Stand(make_topic(partitions=2), fake_s3, capsys)


def test_an_object_that_may_not_be_written_over_is_a_conflict(stand: Stand) -> None:
    """With S3_CREATE_ONLY it stays as it is, and the letter is named; what is the same is no conflict."""
    bury(stand.topic, letters(2))
    stand.run()
    stand.shelf.store(key_of(stand.shelf, "r-0"), b"mine", {"spillway-id": "r-0"}, "x")
    code, document = stand.run(s3_create_only=True)
    assert (code, document["stored"], document["already_there"]) == (1, 0, 1)
    assert [one["reason"] for one in document["refused"]] == ["conflict"]
    assert stored(stand.shelf)["r-0"][-1] == b"mine"


def test_what_retention_took_of_the_range_is_said(stand: Stand) -> None:
    """Where offsets were asked for by name that are gone, it is not done; without a range nothing is missed."""
    bury(stand.topic, letters(6))
    delete_before(stand.topic, 4)
    assert stand.run("--from", "p0:1-5", "--dry-run")[0] == 1
    code, document = stand.run("--from", "p0:1-5")
    assert (code, document["complete"], document["stored"]) == (1, False, 2)
    assert document["gone"] == ["partition 0: offsets 1 to 3 are gone from Kafka"]
    code, document = stand.run()
    assert (code, document["complete"], document["already_there"]) == (0, True, 2)


def test_what_passes_by_itself_is_tried_again(stand: Stand) -> None:
    """Puts and questions alike, with a limit or without."""
    buried = letters(8)
    bury(stand.topic, buried)
    stand.s3.script.inject(SLOW_DOWN, times=3)
    stand.s3.script.inject(SLOW_DOWN, times=3, method="HEAD")
    stand.s3.script.inject(Cut.RESET, times=1)
    code, document = stand.run("--limit", "6")
    assert (code, document["stored"]) == (0, 6)
    stand.s3.script.inject(SLOW_DOWN, times=3, method="HEAD")
    code, document = stand.run()
    assert (code, document["stored"]) == (0, 2)
    assert document["errors_retried"] >= 3
    assert stored(stand.shelf) == bodies(buried)


def test_a_bucket_that_nobody_may_write_to_ends_it(stand: Stand) -> None:
    """After --give-up-after seconds, with S3's reason; nothing counts as done."""
    bury(stand.topic, letters(3))
    stand.s3.script.inject(ACCESS_DENIED)
    code, document = stand.run("--give-up-after", "2")
    assert (code, document["complete"], document["stored"]) == (1, False, 0)
    assert document["left_offsets"] == 3
    assert "access_denied" in document["failed"]


def test_bad_options(stand: Stand, capsys: Capture) -> None:
    """Are refused in one line, with 2, before anything is asked."""
    for options, message in {
        ("--limit", "0"): "0 is not a positive number",
        ("--rate", "-1"): "-1 is not a positive number",
        ("--from", "someday"): "is no time and no offsets",
        ("--folder", "a//b"): "is no folder",
    }.items():
        with pytest.raises(SystemExit) as ended:
            stand.code(*options)
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert message in said.err
        assert said.out == ""


def slow(stand: Stand) -> dict[str, str]:
    """Two puts at once, each of which takes its time: there is a middle to be hit."""
    stand.s3.script.inject(Delay(0.05))
    return {"MAX_WORKERS": "2"}


@pytest.mark.parametrize("options", [(), ("--limit", "50")])
def test_killed_in_its_middle_and_run_again(stand: Stand, processes: Processes, options: tuple[str, ...]) -> None:
    """By SIGKILL: the second run puts what is not there, and only that, but for the few that were on the wire."""
    buried = letters(60)
    bury(stand.topic, buried)
    first: list[Process] = []
    stand.s3.on_stored = lambda _key, writes: first[0].kill() if writes == 20 else None
    first.append(stand.process(processes, *options, **slow(stand)))
    assert first[0].wait(deadline_s=60) == -signal.SIGKILL
    until(lambda: settled(stand.shelf), "what the kill left on the wire", deadline_s=5)
    before = stand.shelf.writes
    assert 20 <= before <= 22
    stand.s3.on_stored = None
    stand.s3.script.heal()
    code, document = stand.run()
    assert (code, document["already_there"], document["stored"]) == (0, before, 60 - before)
    assert stored(stand.shelf) == bodies(buried)


def settled(shelf: Shelf) -> bool:
    """Whether nothing was written between two looks that are far enough apart for one delayed answer."""
    seen: list[int] = [shelf.writes]
    try:
        until(lambda: shelf.writes != seen[0], "a write", deadline_s=0.3)
    except AssertionError:
        return True
    return False


def test_interrupted(stand: Stand, processes: Processes) -> None:
    """Ctrl-C ends it cleanly with 130: what is on the wire is finished, and it says what is left."""
    bury(stand.topic, letters(60))
    redrive = stand.process(processes, "--output", "json", **slow(stand))
    until(lambda: stand.shelf.writes >= 10, "its middle", deadline_s=60)
    redrive.send(signal.SIGINT)
    assert redrive.wait(deadline_s=20) == 130, redrive.tail()
    document = document_of(redrive)
    assert document["stopped"]
    assert document["stored"] == stand.shelf.writes < 60
    assert document["left_offsets"] == 60 - document["stored"]
    assert stand.run()[1]["stored"] == 60 - document["stored"]


@pytest.mark.parametrize("options", [("--dry-run",), ("--limit", "3")])
def test_interrupted_while_it_only_looks(stand: Stand, processes: Processes, options: tuple[str, ...]) -> None:
    """Ctrl-C while S3 does not answer its questions ends it at once, and nothing was written."""
    bury(stand.topic, letters(3))
    hanging = stand.s3.script.inject(Cut.HANG, method="HEAD")
    redrive = stand.process(processes, *options)
    assert hanging.hit.wait(60)
    redrive.send(signal.SIGINT)
    assert redrive.wait(deadline_s=10) == 130, redrive.tail()
    assert "Traceback" not in redrive.output()
    assert stand.shelf.writes == 0


def document_of(process: Process) -> Mapping[str, Any]:
    """The one JSON document among the lines of its log."""
    (found,) = [json.loads(line) for line in process.output().splitlines() if line.startswith('{"topic"')]
    return found


def test_the_help(processes: Processes) -> None:
    """Has an example, says that no state is kept, and names the variables."""
    usage = processes.python("help", "services.uploader", "redrive", "--help", environment={})
    assert usage.wait(deadline_s=60) == 0
    for words in ("spillway-uploader redrive --dry-run", "keeps no state", "KAFKA_DEAD_TOPIC", "exit code: 0"):
        assert words in usage.output()
