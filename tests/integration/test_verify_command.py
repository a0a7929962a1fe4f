"""`spillway-uploader verify` against a real broker and bucket: what it calls there, missing, different or unknown."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ENTITY_TOO_LARGE, Altered
from tests.harness.broker import Topic, producer
from tests.harness.commands import Commands
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import until

RECORDS = 400
ALL = ("verify", "--from", "beginning", "--output", "json")


@pytest.fixture
def pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Two partitions with 200 records each, all of them stored by a replay."""
    pipeline = Pipeline(processes, make_topic(2), fake_s3)

    async def write() -> None:
        async with producer(pipeline.topic.bootstrap_servers) as client:
            for number in range(RECORDS):
                await client.send(pipeline.topic.name, b"body %03d" % number, partition=number % 2)
            await client.flush()

    asyncio.run(write())
    ran = pipeline.commands().run("replay", "--from", "beginning")
    assert ran.code == 0, str(ran)
    return pipeline


@pytest.fixture
def commands(pipeline: Pipeline) -> Commands:
    """Pointed at it."""
    return pipeline.commands()


def test_listings_tell_of_what_is_there(pipeline: Pipeline, commands: Commands) -> None:
    """Nothing wrong: a listing a prefix, no question an object; with --heads one an object, and the same answer."""
    ran = commands.run(*ALL)
    assert (ran.code, ran.document["same"], ran.document["result"]) == (0, RECORDS, "all there"), str(ran)
    assert ran.document["requests"] == {"list": 16, "head": 0, "get": 0}  # one hour, 16 shards
    ran = commands.run(*ALL, "--heads")
    assert (ran.code, ran.document["same"]) == (0, RECORDS), str(ran)
    assert ran.document["requests"] == {"list": 0, "head": RECORDS, "get": 0}
    assert pipeline.shelf.writes == RECORDS  # it has written nothing


def test_each_kind_of_damage_has_its_word(pipeline: Pipeline, commands: Commands, tmp_path: Path) -> None:
    """Gone, shorter, other bytes of the same size, another record's object: exactly these, in the file as well; and a
    replay of the file puts back exactly these.
    """
    keys = sorted(pipeline.objects())
    gone, shorter, altered, swapped = keys[10], keys[20], keys[30], keys[40]
    bodies = {key: pipeline.objects()[key][-1] for key in keys}
    pipeline.shelf.remove(gone)
    pipeline.shelf.store(shorter, b"body", {}, "")
    pipeline.shelf.store(altered, b"BODY 000", {}, "")
    pipeline.shelf.store(swapped, bodies[swapped].body, bodies[keys[41]].metadata, "")
    file = tmp_path / "missing.jsonl"
    found = commands.run(*ALL, "--heads", "--missing-to", str(file))
    assert found.code == 1, str(found)
    told = {fault["key"]: (fault["finding"], fault["why"]) for fault in found.document["faults"]}
    assert {key: finding for key, (finding, _) in told.items()} == {
        gone: "missing",
        shorter: "different",
        altered: "different",
        swapped: "different",
    }
    assert "its metadata says that it is" in told[swapped][1]
    assert {json.loads(line)["key"] for line in file.read_text().splitlines()} == set(told)
    by_listing = commands.run(*ALL)  # a listing tells no metadata
    assert {fault["key"] for fault in by_listing.document["faults"]} == {gone, shorter, altered}
    writes = pipeline.shelf.writes
    assert commands.run("replay", "--from-file", str(file)).code == 0
    assert pipeline.shelf.writes == writes + 4
    assert commands.run(*ALL, "--heads").code == 0


def test_what_is_right_leaves_no_file_behind(commands: Commands, tmp_path: Path) -> None:
    """An empty file for nothing missing, and no old one: `replay --from-file` says that there is nothing to do."""
    file = tmp_path / "missing.jsonl"
    file.write_text("an old one")
    assert commands.run(*ALL, "--missing-to", str(file)).code == 0
    assert file.read_text() == ""
    ran = commands.run("replay", "--from-file", str(file))
    assert (ran.code, "nothing to do" in ran.err) == (2, True), str(ran)


@pytest.mark.parametrize("kms", [True, False], ids=["KMS", "a server whose ETags are no MD5s"])
def test_etags_that_are_no_md5s_prove_nothing(pipeline: Pipeline, commands: Commands, *, kms: bool) -> None:
    """Under KMS an ETag looks like an MD5 and is none; and other servers have their own. Then the objects are read,
    nothing is called different that is not, and what is, is; from listings, too, which do not tell of encryption.
    """
    settings = {"S3_SSE": "aws:kms"} if kms else {"S3_CHECKSUM": "none"}
    if kms:
        assert commands.run("replay", "--from", "beginning", environment=settings).code == 0
    else:
        pipeline.s3.script.inject(Altered("ETag", f'"{"a" * 32}"'), method="HEAD")
    altered = min(pipeline.objects())
    pipeline.shelf.store(altered, b"BODY 000", {}, "", pipeline.objects()[altered][-1].headers)
    for options in ((), ("--heads",)) if kms else (("--heads",),):
        ran = commands.run(*ALL, *options, environment=settings)
        assert ran.code == 1, str(ran)
        assert [fault["key"] for fault in ran.document["faults"]] == [altered]
        assert ran.document["requests"]["get"] == RECORDS


def test_what_the_live_group_has_not_stored_is_told(pipeline: Pipeline, commands: Commands) -> None:
    """Missing above the group's commit is no loss: the report says how many of the missing are only late."""
    uploader = pipeline.uploader()
    until(lambda: pipeline.topic.lag() == 0, "the group to have read everything", deadline_s=40)
    assert uploader.process.terminate() == 0

    async def write() -> None:
        async with producer(pipeline.topic.bootstrap_servers) as client:
            for number in range(7):
                await client.send_and_wait(pipeline.topic.name, b"late %d" % number, partition=0)

    asyncio.run(write())
    pipeline.shelf.remove(min(pipeline.objects()))
    ran = commands.run(*ALL)
    assert (ran.code, ran.document["missing"], ran.document["not_committed_by_the_group"]) == (1, 8, 7), str(ran)


def test_a_dead_letter_is_told_from_a_loss(pipeline: Pipeline, commands: Commands) -> None:
    """A record that went to the dead letters is missing, and the report says that it lies there, and why."""
    poison = min(pipeline.objects())
    pipeline.shelf.remove(poison)
    pipeline.s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: key == poison)
    pipeline.uploader()
    until(lambda: pipeline.topic.lag() == 0, "the group to have read everything", deadline_s=40)
    ran = commands.run(*ALL)
    (fault,) = ran.document["faults"]
    assert (fault["finding"], fault["dead_letter"]) == ("missing", "entity_too_large"), str(ran)
    assert "[a dead letter: entity_too_large]" in commands.run("verify", "--from", "beginning").out


@pytest.mark.parametrize("command", ["replay", "verify"])
def test_offsets_that_are_not_there_yet(commands: Commands, command: str) -> None:
    """Who names offsets that the log has not given out has mixed something up: it is said."""
    ran = commands.run(command, "--from", "p0:100-200")
    assert (ran.code, ran.out) == (1 if command == "replay" else 2, ""), str(ran)
    assert "partition 0 has no offset 200 yet: its log ends at 199" in ran.err
