"""`spillway-uploader dead-letters list|show` against a real broker and an S3 of the test's own."""

import argparse
import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from services.uploader.jobs.letters import command as letters_command
from services.uploader.jobs.settings import JobSettings
from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, INTERNAL_ERROR
from tests.harness.broker import Topic
from tests.harness.dead_letters import Buried, bury, delete_before
from tests.harness.processes import Processes, free_port

FIVE = (
    Buried("a-0", reason="entity_too_large", offset=4),
    Buried("a-1", reason="key_too_long_error", message="too\nlong\x1b[2J", offset=5),
    b"nobody's letter",
    Buried(None, b"\xff\x00", offset=6),
    Buried("b-0", folder="other", offset=7),
)


@pytest.fixture
def settings(
    make_topic: Callable[..., Topic], fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Topic, JobSettings]]:
    """Makes a topic and the settings that point a job to it and to `fake_s3`."""
    for name, value in fake_s3.environment().items():
        monkeypatch.setenv(name, value)

    def make(**more: Any) -> tuple[Topic, JobSettings]:
        topic = make_topic(partitions=1)
        fake_s3.create_bucket("bucket")
        return topic, JobSettings(
            **{
                "kafka_bootstrap_servers": topic.bootstrap_servers,
                "kafka_topic": topic.name,
                "kafka_dead_topic": topic.dead,
                "kafka_group_id": topic.group,
                "s3_bucket": "bucket",
                "s3_key_template": "{folder}/{id}",
                **more,
            }
        )

    return make


def ran(settings: JobSettings, *options: str) -> int:
    parser = argparse.ArgumentParser()
    letters_command.add_parser(parser.add_subparsers(dest="command"))
    return asyncio.run(letters_command.run(settings, parser.parse_args(["dead-letters", *options])))


Settings = Callable[..., tuple[Topic, JobSettings]]
Capture = pytest.CaptureFixture[str]


def test_an_empty_topic(settings: Settings, capsys: Capture) -> None:
    """Has no letters, and that is an answer."""
    topic, job = settings()
    assert ran(job, "list") == 0
    assert capsys.readouterr().out == f"{topic.dead}: 0 dead letters, 0 bytes\n"


def test_the_list(settings: Settings, capsys: Capture) -> None:
    """Counts by reason and by hour; each letter with its place, the original's place, its id and what S3 said; and what
    is no letter is named.
    """
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "list") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == f"{topic.dead}: 4 dead letters, 26 bytes"  # three of 8 and one of 2
    assert lines[1:4] == ["letters  reason", "      3  entity_too_large", "      1  key_too_long_error"]
    assert lines[4] == "letters  hour (UTC)"
    assert lines[5].startswith("      4  20")
    listed = [line.split() for line in lines if line.startswith("p0:")]
    assert [(line[0], line[2], line[3], line[4], line[5]) for line in listed] == [
        ("p0:0", topic.name, "p0:4", "a-0", "entity_too_large"),
        ("p0:1", topic.name, "p0:5", "a-1", "key_too_long_error"),
        ("p0:3", topic.name, "p0:6", f"{topic.name}-0-6-1795521600000", "entity_too_large"),
        ("p0:4", topic.name, "p0:7", "b-0", "entity_too_large"),
    ]
    assert lines[-2:] == [
        "broken, no original record can be told from them: 1",
        "  p0:2: it is no dead letter of an uploader: it has no dead.* headers",
    ]
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ((), ["p0:0", "p0:1", "p0:3", "p0:4"]),
        (("--limit", "2"), ["p0:0", "p0:1"]),
        (("--limit", "0"), ["p0:0", "p0:1", "p0:3", "p0:4"]),
        (("--reason", "key_too_long_error"), ["p0:1"]),
        (("--reason", "key_too_long_error", "--reason", "conflict"), ["p0:1"]),
        (("--folder", "other"), ["p0:4"]),
        (("--id", "a"), ["p0:0", "p0:1"]),
        (("--from", "p0:1-3"), ["p0:1", "p0:3"]),
        (("--from", "2h"), ["p0:0", "p0:1", "p0:3", "p0:4"]),
        (("--to", "1795521600"), []),  # they were buried long after that
        (("--partitions", "0"), ["p0:0", "p0:1", "p0:3", "p0:4"]),
    ],
)
def test_which_are_listed(settings: Settings, capsys: Capture, options: tuple[str, ...], listed: list[str]) -> None:
    """The oldest of those that the range and all filters leave."""
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "list", "--output", "json", *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["letter"] for one in document["listed"]] == listed
    if "--limit" not in options:
        assert document["letters"] == len(listed)
        assert sum(document["by_reason"].values()) == sum(document["by_hour"].values()) == len(listed)


def test_the_list_as_json(settings: Settings, capsys: Capture) -> None:
    """Has all fields of a letter."""
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "list", "--output", "json") == 0
    document = json.loads(capsys.readouterr().out)
    (first, second, *_) = document["listed"]
    assert first.pop("written_ms") > 1_700_000_000_000
    assert first == {
        "letter": "p0:0",
        "partition": 0,
        "offset": 0,
        "original": {"topic": topic.name, "partition": 0, "offset": 4, "timestamp_ms": 1_795_521_600_000},
        "id": "a-0",
        "folder": None,
        "foreign": False,
        "key": "payloads/a-0",
        "bytes": 8,
        "reason": "entity_too_large",
        "message": "S3 answered 400 EntityTooLarge",
        "attempts": 1,
        "failures": 1,
        "object": None,
    }
    assert second["message"] == "too\nlong\x1b[2J"
    assert (document["topic"], document["broken"], document["in_s3"]) == (topic.dead, 1, None)
    assert [one["letter"] for one in document["broken_letters"]] == ["p0:2"]


def test_what_is_in_s3_by_now(settings: Settings, fake_s3: FakeS3, capsys: Capture) -> None:
    """Asked for each letter, also those that are not listed, and for one that a transient error hides at first."""
    topic, job = settings()
    bury(topic, FIVE)
    shelf = fake_s3.create_bucket("bucket")
    shelf.store("payloads/a-0", b'{"a": 1}', {"spillway-id": "a-0"}, "x")
    shelf.store("payloads/a-1", b'{"a": 2}', {"spillway-id": "a-1"}, "x")  # as many bytes, and others
    fake_s3.script.inject(INTERNAL_ERROR, method="HEAD", times=2)
    assert ran(job, "list", "--check", "--limit", "3", "--output", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["in_s3"] == {"same": 1, "different": 1, "missing": 2}
    assert [one["object"] for one in document["listed"]] == ["same", "different", "missing"]
    assert ran(job, "list", "--check") == 0
    assert "in S3 by now: different 1, missing 2, same 1" in capsys.readouterr().out
    assert shelf.writes == 2, "a look writes nothing"


def test_s3_that_cannot_be_asked(settings: Settings, fake_s3: FakeS3, capsys: Capture) -> None:
    """Ends the look with S3's own words, asked once a letter and not again and again; without --check nobody asks."""
    topic, job = settings()
    bury(topic, FIVE)
    denied = fake_s3.script.inject(ACCESS_DENIED, method="HEAD")
    assert ran(job, "list") == 0
    assert denied.hits == 0
    with pytest.raises(SystemExit) as ended:
        ran(job, "list", "--check")
    assert ended.value.code == 1
    assert "403" in capsys.readouterr().err
    assert 1 <= denied.hits <= 4


def test_one_letter_whole(settings: Settings, capsys: Capture) -> None:
    """Why it is one, the key that it would get, its own headers without those of a letter, its value as text."""
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "show", "p0:4") == 0
    out = capsys.readouterr().out
    assert f"original  {topic.name} p0:7, written 2026-11-24T12:00:00Z" in out
    assert "key       other/b-0" in out
    assert "reason    entity_too_large (attempts: 1, times that it became a dead letter: 1)" in out
    assert "headers   2\n  spillway-id: b-0\n  spillway-folder: other\n" in out
    assert out.endswith('value     8 bytes\n{"a": 1}\n')
    assert ran(job, "show", "p0:4", "--bytes", "3") == 0
    assert capsys.readouterr().out.endswith('{"a\n')


def test_a_binary_letter_whole(settings: Settings, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Shown as hex, in JSON as base64, and byte for byte with --raw."""
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "show", "0:3") == 0
    assert b"value     2 bytes, not UTF-8 (`--raw` writes them): ff 00\n" in capsysbinary.readouterr().out
    assert ran(job, "show", "p0:3", "--output", "json") == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert (document["value_base64"], document["foreign"]) == ("/wA=", True)
    assert document["key"] == f"payloads/{topic.name}-0-6-1795521600000"
    assert ran(job, "show", "p0:3", "--raw") == 0
    assert capsysbinary.readouterr().out == b"\xff\x00"


def test_a_broken_letter_whole(settings: Settings, capsys: Capture) -> None:
    """Shown as far as it goes, with why no more can be told."""
    topic, job = settings()
    bury(topic, FIVE)
    assert ran(job, "show", "p0:2") == 0
    out = capsys.readouterr().out
    assert "broken    it is no dead letter of an uploader: it has no dead.* headers" in out
    assert out.endswith("nobody's letter\n")
    assert ran(job, "show", "p0:2", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["headers"] == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("show", "p0:99"), 1, "has no offset 99 yet"),
        (("show", "p7:0"), 1, "there is no 7"),
        (("show", "17"), 2, "not of the form p0:17"),
        (("show", "p0:0", "--raw", "--output", "json"), 2, "--raw writes the whole value"),
        (("show", "p0:0", "--bytes", "-1"), 2, "-1 is not a whole number"),
        (("list", "--limit", "many"), 2, "many is not a whole number"),
        (("list", "--from", "p0:0-1", "--to", "1h"), 2, "leave --to out"),
        (("list", "--folder", "../x"), 2, "is no folder"),
    ],
)
def test_what_cannot_be(settings: Settings, capsys: Capture, options: tuple[str, ...], code: int, message: str) -> None:
    """Is said in one line; nothing comes on standard output."""
    topic, job = settings()
    bury(topic, FIVE)
    with pytest.raises(SystemExit) as ended:
        ran(job, *options)
    said = capsys.readouterr()
    assert ended.value.code == code
    assert message in said.err
    assert said.out == ""


def test_a_letter_that_retention_took(settings: Settings, capsys: Capture) -> None:
    """Is said to be there no more."""
    topic, job = settings()
    bury(topic, FIVE)
    delete_before(topic, 2)
    with pytest.raises(SystemExit) as ended:
        ran(job, "show", "p0:0")
    assert ended.value.code == 1
    assert "has no record at p0:0 (any more)" in capsys.readouterr().err


def test_a_topic_that_is_not_there(settings: Settings, capsys: Capture) -> None:
    """Is named."""
    _, job = settings()
    with pytest.raises(SystemExit) as ended:
        ran(job.model_copy(update={"kafka_dead_topic": "nowhere"}), "list")
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: topic nowhere does not exist\n")


def test_kafka_that_is_away(settings: Settings, capsys: Capture) -> None:
    """Names the variable."""
    _, job = settings()
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit) as ended:
        ran(job.model_copy(update={"kafka_bootstrap_servers": nobody}), "list")
    assert ended.value.code == 1
    assert f"KAFKA_BOOTSTRAP_SERVERS={nobody}" in capsys.readouterr().err


def test_the_command(settings: Settings, processes: Processes, fake_s3: FakeS3) -> None:
    """As a process of its own; its help has an example of each look."""
    topic, _ = settings()
    bury(topic, FIVE)
    environment = {**topic.environment(), **fake_s3.environment(), "S3_BUCKET": "bucket"}
    look = processes.python("list", "services.uploader", "dead-letters", "list", environment=environment)
    assert look.wait(deadline_s=60) == 0, look.tail()
    assert f"{topic.dead}: 4 dead letters, 26 bytes" in look.output()
    for name, example in (("list", "dead-letters list --from 2h"), ("show", "dead-letters show p0:17 --raw")):
        usage = processes.python("help", "services.uploader", "dead-letters", name, "--help", environment={})
        assert usage.wait(deadline_s=60) == 0
        assert f"spillway-uploader {example}" in usage.output()
        assert "KAFKA_DEAD_TOPIC" in usage.output()
