"""Records that S3 can never take: out of the way as dead letters, byte for byte, and never more than that.

The headers' names stand here as DESIGN §7 gives them, and not as the code has them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, Answer
from tests.harness.broker import Topic, admin
from tests.harness.durations import Durations
from tests.harness.load import Load, payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import never, until

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    Raw = ConsumerRecord[bytes | None, bytes | None]

ENTITY_TOO_LARGE = Answer(400, "EntityTooLarge")
ALLOWED = 50  # 5 % of 1,000, the defaults


def test_poison_among_good_ones(pipeline: Pipeline) -> None:
    """Every good payload is stored, every poison one is exactly one dead letter that is its record byte for byte and
    tells where it was, and the group commits past both.
    """
    ingest, uploader = pipeline.ready({"DEAD_LETTER_SHARE_MAX": "0.5"})
    poison = pipeline.s3.script.inject(ENTITY_TOO_LARGE, key=_is_poison)
    with Load(ingest.collections_url) as load:
        until(lambda: poison.hits >= 30, "30 poison payloads", deadline_s=40)
        answers = load.stop()
    dead = {payload for payload in answers.accepted if _is_poison(payload)}
    pipeline.settle(answers, dead=dead)
    letters = _letters(pipeline.topic)
    assert sorted(map(_id, letters)) == sorted(dead)
    records = {_id(record): record for record in pipeline.topic.records()}
    for letter in letters:
        record = records[_id(letter)]
        added = letter.headers[len(record.headers) :]
        assert (letter.key, letter.value) == (record.key, record.value)
        assert letter.headers[: len(record.headers)] == record.headers
        assert dict(added)["dead.topic"] == pipeline.topic.name.encode()
        assert dict(added)["dead.partition"] == b"%d" % record.partition
        assert dict(added)["dead.offset"] == b"%d" % record.offset
        assert dict(added)["dead.timestamp"] == b"%d" % record.timestamp
        assert dict(added)["dead.error"] == b"entity_too_large"
        assert b"EntityTooLarge" in dict(added)["dead.message"]
        assert dict(added)["dead.attempts"] == b"1"
    counted = uploader.metric('spillway_uploader_dead_letters_total{reason="entity_too_large"}')
    assert (counted, uploader.metric("spillway_uploader_dead_letters_held")) == (len(dead), 0)
    until(lambda: not uploader.reasons(), "readiness after poison", deadline_s=20)


def test_without_its_topic_poison_is_held(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3
) -> None:
    """No commit passes a poison payload that is nowhere yet, readiness names the missing topic and the command that
    makes it, good payloads behind it are stored; the command is all that it takes.
    """
    pipeline = Pipeline(processes, make_topic(partitions=1), fake_s3)
    ingest, uploader = pipeline.ready()
    asyncio.run(_delete(pipeline.topic))
    pipeline.s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: key.endswith("-7"))
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(20)], answers)
    until(lambda: "does not exist" in uploader.reasons().get("dead_letters", ""), "the reason", deadline_s=30)
    assert "make it with `spillway-uploader topics`" in uploader.reasons()["dead_letters"]
    (held,) = [record.offset for record in pipeline.topic.records() if _id(record).endswith("-7")]
    until(lambda: pipeline.topic.committed().get(0) == held, f"a commit at {held}", deadline_s=10)
    post_at_once(ingest.collections_url, [payloads(5), payloads(5)], answers)
    until(lambda: len(pipeline.objects()) == 29, "objects behind the held one", deadline_s=20)
    never(lambda: pipeline.topic.committed()[0] > held, "a commit past a payload that is nowhere", for_s=2)
    command = processes.python(
        "topics", "services.uploader", "topics", "--partitions", "1", environment=pipeline.topic.environment()
    )
    assert command.wait(deadline_s=30) == 0, command.tail()
    dead = {payload for payload in answers.accepted if payload.endswith("-7")}
    pipeline.settle(answers, dead=dead)
    assert {_id(letter) for letter in _letters(pipeline.topic)} == dead
    until(lambda: not uploader.reasons(), "readiness with the topic made", deadline_s=20)


def test_a_bad_deploy_cannot_drain_the_topic(pipeline: Pipeline) -> None:
    """When every payload is poison, 50 go to the dead letters and then all stands still and says so; when S3 takes them
    again, all that waited is stored by itself.
    """
    ingest, uploader = pipeline.ready()
    every = pipeline.s3.script.inject(ENTITY_TOO_LARGE)
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(20) for _ in range(20)], answers)
    until(lambda: "DEAD_LETTER_SHARE_MAX=0.05" in uploader.reasons().get("dead_letters", ""), "it", deadline_s=30)
    never(lambda: len(_letters(pipeline.topic)) > ALLOWED, "a 51st dead letter", for_s=4)
    reason = uploader.reasons()["dead_letters"]
    assert "50 of the last 50 settled records were poison" in reason
    assert "entity_too_large" in reason
    assert uploader.metric("spillway_uploader_dead_letters_held") > 0
    assert pipeline.topic.lag() >= 400 - ALLOWED
    assert pipeline.objects() == {}
    every.heal()
    dead = {_id(letter) for letter in _letters(pipeline.topic)}
    assert len(dead) == ALLOWED
    pipeline.settle(answers, dead=dead)
    assert uploader.process.returncode is None
    until(lambda: not uploader.reasons(), "readiness when nothing waits", deadline_s=20)
    assert len(_letters(pipeline.topic)) == ALLOWED


def test_an_environment_error_is_never_a_dead_letter(pipeline: Pipeline, durations: Durations) -> None:
    """However long S3 denies access, not one payload leaves for the dead letters; granted, all are stored."""
    ingest, uploader = pipeline.ready({"DEAD_LETTER_SHARE_MAX": "1"})
    with Load(ingest.collections_url) as load:
        denied = pipeline.s3.script.inject(ACCESS_DENIED, for_s=durations.fault_s)
        until(lambda: denied.over and denied.hits > 20, "the end of the denial", deadline_s=durations.fault_s + 20)
        answers = load.stop()
    pipeline.settle(answers)
    assert _letters(pipeline.topic) == []
    assert uploader.metric("spillway_uploader_dead_letters_total") == 0


def _is_poison(key: str) -> bool:
    """A fifth of the load: the fourth payload of each collection. A payload's id ends its key."""
    return key.endswith("-3")


def _id(record: "Raw") -> str:
    return dict(record.headers)["spillway-id"].decode()


def _letters(topic: Topic) -> "list[Raw]":
    return replace(topic, name=topic.dead, partitions=1).records()


async def _delete(topic: Topic) -> None:
    async with admin(topic.bootstrap_servers) as client:
        await client.delete_topics([topic.dead])
