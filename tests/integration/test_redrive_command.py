"""`spillway-uploader redrive` against a real broker and an S3 of the test's own: what it puts, where, and how often."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ENTITY_TOO_LARGE, Answer
from tests.harness.broker import Topic, admin, producer
from tests.harness.dead_letters import Buried, bury
from tests.harness.letter_stand import Capture, Stand, bodies, key_of, letters, stored
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

KEY_TOO_LONG = Answer(400, "KeyTooLongError")


@pytest.fixture
def stand(make_topic: Callable[..., Topic], fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Stand:
    """A stand with an empty dead-letter topic."""
    for name, value in fake_s3.environment().items():
        monkeypatch.setenv(name, value)
    return Stand(make_topic(partitions=2), fake_s3, capsys)


# -- with a real uploader


def test_what_s3_refused_is_stored_under_the_keys_it_refused(stand: Stand, processes: Processes) -> None:
    """The uploader fills the dead letters, foreign records among them; S3 is mended; a redrive puts exactly those, each
    under the key that the uploader tried and with the same metadata; a second one writes nothing; the live group
    stands where it stood, and nobody else ever had a group.
    """
    pipeline = Pipeline(processes, stand.topic, stand.s3)
    refused: set[str] = set()

    def poison(*endings: str) -> Callable[[str], bool]:
        def matches(key: str) -> bool:
            found = key.endswith(endings) or (stand.topic.name in key and ".spillway" not in key)
            refused.update([key] if found else [])
            return found

        return matches

    ingest, uploader = pipeline.ready({"DEAD_LETTER_SHARE_MAX": "1"})
    too_long = stand.s3.script.inject(KEY_TOO_LONG, key=poison("-7"))
    too_large = stand.s3.script.inject(ENTITY_TOO_LARGE, key=poison("-3"))
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(10) for _ in range(6)], answers)
    asyncio.run(write_foreign(stand.topic, 3))
    until(lambda: stand.topic.lag() == 0, "all settled", deadline_s=40)
    dead = replace(stand.topic, name=stand.topic.dead, partitions=1).records()
    assert len(dead) == len(refused) == 15  # two of each of 6 collections, and 3 foreign ones
    live = {key: found for key, found in stand.shelf.versions().items() if not key.startswith(".spillway/")}
    assert len(live) == 48
    committed, writes = stand.topic.committed(), stand.shelf.writes
    too_long.heal()
    too_large.heal()

    assert stand.checked() == {"missing": 15}
    code, document = stand.run("--dry-run")
    assert (code, document["puts"], stand.shelf.writes) == (0, 15, writes)
    assert document["by_reason"] == {"entity_too_large": 6, "key_too_long_error": 9}
    code, document = stand.run()
    assert (code, document["complete"], document["letters"], document["stored"]) == (0, True, 15, 15)
    written = {key: found for key, found in stand.shelf.versions().items() if key in refused}
    assert stand.shelf.versions().keys() == live.keys() | refused | {".spillway/probe"}
    assert {len(found) for found in written.values()} == {1}
    values = {record.headers: record.value for record in dead}
    assert sorted(found[0].body for found in written.values()) == sorted(values.values())
    for found in written.values():
        headers = next(dict(record.headers) for record in dead if record.value == found[0].body)
        assert found[0].metadata["spillway-topic"] == stand.topic.name
        assert found[0].metadata["spillway-offset"].encode() == headers["dead.offset"]
        assert found[0].metadata["spillway-partition"].encode() == headers["dead.partition"]
    for payload, body in answers.accepted.items():
        assert next(found for key, found in {**live, **written}.items() if key.endswith(payload))[0].body == body

    assert stand.run()[1]["stored"] == 0
    assert stand.shelf.writes == writes + 15
    assert stand.checked() == {"same": 15}
    assert (uploader.process.returncode, stand.topic.committed()) == (None, committed)
    assert asyncio.run(groups(stand.topic)) == {stand.topic.group}


async def write_foreign(topic: Topic, count: int) -> None:
    async with producer(topic.bootstrap_servers) as client:
        for number in range(count):
            await client.send_and_wait(
                topic.name,
                b"foreign %d" % number,
                partition=number % topic.partitions,
                headers=[("null", None), ("dead.offset", b"99")],  # a letter must not be read by names alone
            )


async def groups(topic: Topic) -> set[str]:
    async with admin(topic.bootstrap_servers) as client:
        return {name for name, *_ in await client.list_consumer_groups() if name.startswith(topic.name)}


# -- what is put


def test_running_it_twice_writes_nothing_twice(stand: Stand) -> None:
    """The second run asks S3, and puts nothing."""
    buried = letters(30)
    bury(stand.topic, buried)
    code, first = stand.run()
    assert (code, first["stored"], first["already_there"]) == (0, 30, 0)
    assert stored(stand.shelf) == bodies(buried)
    code, second = stand.run()
    assert (code, second["stored"], second["already_there"]) == (0, 0, 30)
    assert stand.shelf.writes == 30


def test_two_letters_of_one_record_write_once(stand: Stand) -> None:
    """An ack that was lost made two of it. Both count as done."""
    buried = letters(5)
    bury(stand.topic, [*buried, *buried])
    code, document = stand.run()
    assert (code, document["letters"], document["stored"], document["repeated"]) == (0, 10, 5, 5)
    assert stored(stand.shelf) == bodies(buried)


def test_another_object_at_the_key_is_not_written_over(stand: Stand) -> None:
    """It was acknowledged to somebody, and the letter's record never was an object: a conflict, exit code 1."""
    buried = letters(3)
    bury(stand.topic, buried)
    stand.run()
    stand.shelf.store(key_of(stand.shelf, "r-0"), b'{"n": 9}', {"spillway-id": "r-0"}, "x")
    stand.shelf.store(key_of(stand.shelf, "r-1"), b'{"n": 1}', {"spillway-id": "another"}, "x")
    code, document = stand.run("--dry-run")
    assert (document["in_s3"], document["absent_bytes"]) == ({"different": 2, "same": 1}, 0)
    code, document = stand.run()
    assert (code, document["stored"], document["already_there"]) == (1, 0, 1)
    assert [(one["letter"], one["reason"]) for one in document["refused"]] == [
        ("p0:0", "conflict"),
        ("p0:1", "conflict"),
    ]
    assert stand.checked() == {"same": 1, "different": 2}


def test_what_s3_refuses_again_stays_a_letter(stand: Stand) -> None:
    """It is named with its reason, the others are stored, and the exit code says that not all are there; the letter is
    there for the next time.
    """
    buried = letters(6)
    bury(stand.topic, buried)
    refusing = stand.s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: key.endswith(("r-2", "r-4")))
    code, document = stand.run()
    assert (code, document["complete"], document["stored"], document["letters"]) == (1, False, 4, 6)
    assert document["errors_retried"] == 0, "a refusal is final"
    assert [(one["letter"], one["reason"]) for one in document["refused"]] == [
        ("p0:2", "entity_too_large"),
        ("p0:4", "entity_too_large"),
    ]
    code, out = stand.text()
    assert code == 1
    assert "refused again, they stay dead letters: 2\n  p0:2: entity_too_large: " in out
    assert "complete" not in out
    refusing.heal()
    code, document = stand.run()
    assert (code, document["stored"], document["already_there"]) == (0, 2, 4)
    assert stored(stand.shelf) == bodies(buried)


def test_the_dry_run_writes_nothing(stand: Stand) -> None:
    """It counts by reason, message and hour, and says what is there already and what would be put."""
    buried = [
        *letters(3),
        *letters(3),
        Buried("x", reason="key_too_long_error", message="S3 answered 400 KeyTooLongError"),
    ]
    bury(stand.topic, [*buried, b"no letter"])
    stand.run("--id", "r-1")
    code, out = stand.text("--dry-run")
    assert code == 0
    for line in (
        "7 dead letters",
        "      6  entity_too_large: S3 answered 400 EntityTooLarge",
        "      1  key_too_long_error: S3 answered 400 KeyTooLongError",
        "in S3 by now: missing 3, same 1",  # r-0, r-2 and x; r-1 once: its second letter is not asked for
        "broken, no original record can be told from them: 1",
        "a redrive would put 3 objects; nothing was written",
    ):
        assert line in out.splitlines()
    assert stand.run("--dry-run")[1]["absent_bytes"] == 24  # three of 8 bytes
    assert "would put 2 objects (--limit), of 3 that are not there" in stand.text("--dry-run", "--limit", "2")[1]
    assert stand.shelf.writes == 1


# -- which are put


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (("--reason", "key_too_long_error"), ["b-0"]),
        (("--reason", "key_too_long_error", "--reason", "conflict"), ["b-0", "c-0"]),
        (("--folder", "other"), ["c-0"]),
        (("--id", "a"), ["a-0", "a-1"]),
        (("--id", "a-1"), ["a-1"]),
        (("--from", "p0:1-2"), ["a-1", "b-0"]),
        (("--from", "1h", "--reason", "conflict"), ["c-0"]),
        (("--to", "1795521600"), []),
    ],
)
def test_filters(stand: Stand, options: tuple[str, ...], meant: list[str]) -> None:
    """Only what is meant is put, and a broken letter is no reason to fail where a filter leaves it out."""
    buried = [
        Buried("a-0"),
        Buried("a-1"),
        Buried("b-0", reason="key_too_long_error"),
        Buried("c-0", reason="conflict", folder="other"),
        b"no letter",
    ]
    bury(stand.topic, buried)
    code, document = stand.run(*options)
    assert (code, document["letters"], document["stored"]) == (0, len(meant), len(meant))
    assert sorted(stored(stand.shelf)) == meant


def test_limit(stand: Stand) -> None:
    """The oldest that are not there, so many and no more; what is left is said; until nothing is."""
    buried = letters(10)
    bury(stand.topic, buried)
    stand.run("--id", "r-1")
    code, document = stand.run("--limit", "4")
    assert (code, document["complete"]) == (0, False)
    assert (document["letters"], document["stored"]) == (10, 4)
    assert (document["already_there"], document["left_letters"]) == (1, 5)
    assert sorted(stored(stand.shelf)) == ["r-0", "r-1", "r-2", "r-3", "r-4"]
    code, out = stand.text("--limit", "4")
    assert code == 0
    assert "1 letters are left (--limit); their objects are not in S3 yet" in out
    code, document = stand.run("--limit", "4")
    assert (code, document["complete"], document["stored"], document["left_letters"]) == (0, True, 1, 0)
    code, document = stand.run("--limit", "4")
    assert (code, document["complete"], document["stored"], document["already_there"]) == (0, True, 0, 10)
    assert stored(stand.shelf) == bodies(buried)


def test_a_limit_of_which_one_is_refused(stand: Stand) -> None:
    """Is not done: the exit code says so."""
    bury(stand.topic, letters(4))
    stand.s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: key.endswith("r-0"))
    code, document = stand.run("--limit", "2")
    assert (code, document["stored"], document["left_letters"]) == (1, 1, 2)
    assert [one["letter"] for one in document["refused"]] == ["p0:0"]


def test_a_broken_letter_is_named_and_the_others_are_stored(stand: Stand) -> None:
    """Whatever somebody has written to the topic; without a filter it is one that could not be stored."""
    buried = letters(2)
    bury(stand.topic, [buried[0], b"no letter", Buried("x", message="", reason="two words"), buried[1]])
    code, document = stand.run()
    assert (code, document["complete"], document["stored"], document["broken"]) == (1, False, 2, 2)
    assert [(one["letter"], one["why"]) for one in document["broken_letters"]] == [
        ("p0:1", "it is no dead letter of an uploader: it has no dead.* headers"),
        ("p0:2", "its header dead.error is b'two words'"),
    ]
    assert stored(stand.shelf) == bodies(buried)


def test_an_empty_topic_is_done(stand: Stand) -> None:
    """Nothing to do is no failure, with a limit or without."""
    for options in ((), ("--limit", "3"), ("--dry-run",)):
        assert stand.run(*options)[0] == 0


def test_to_another_bucket(stand: Stand) -> None:
    """Asked and written there, under the same keys; nothing in the first."""
    buried = letters(3)
    other = stand.s3.create_bucket("other")
    bury(stand.topic, buried)
    code, document = stand.run("--to-bucket", "other")
    assert (code, document["bucket"], stored(other), len(stand.shelf)) == (0, "other", bodies(buried), 0)


def test_rate(stand: Stand) -> None:
    """So many puts a second and no more: ten at 5/s take nine fifths of a second."""
    bury(stand.topic, letters(10))
    times_s: list[float] = []
    stand.s3.on_stored = lambda _key, _writes: times_s.append(time.monotonic())
    assert stand.run("--rate", "5")[1]["stored"] == 10
    assert times_s[-1] - times_s[0] > 1.2  # 9/5 s, less what the first one needed for its connection
