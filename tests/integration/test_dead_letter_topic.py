"""Dead letters on a real broker: byte for byte, acknowledged, and held with a reason whenever that cannot be."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)

from services.uploader import dead_letter_topic
from services.uploader.dead_letter import EXTRA_BYTES
from tests.harness.broker import Topic
from tests.harness.dead_letter_stand import (
    LIVE_BYTES_MAX,
    TOO_LARGE,
    Header,
    bench,
    led,
    poison,
    true_in_the_end,
    until,
)

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka

MakeTopic = Callable[..., Topic]


@pytest.fixture
def topic(make_topic: MakeTopic) -> Topic:
    """A topic and its dead-letter topic on the shared broker."""
    return led(make_topic(1))


@pytest.fixture
def own_topic(own_kafka: "EmbeddedKafka", make_topic: MakeTopic) -> Topic:
    """The same on a broker that the test may stop and freeze."""
    return led(make_topic(1, bootstrap_servers=own_kafka.bootstrap_servers))


async def delete_topic(bootstrap_servers: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        await admin.delete_topics([name])
    finally:
        await admin.close()


async def make_topic_of(bootstrap_servers: str, name: str, **configs: str) -> None:
    """Make a topic of one partition as soon as the broker lets us: a deletion takes a moment."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)

    async def make() -> bool:
        answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])
        return bool(answer.topic_errors[0][1] == 0)

    try:
        await admin.start()
        await true_in_the_end(make)
    finally:
        await admin.close()


async def configure(bootstrap_servers: str, name: str, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"key", b"value", ()),
        (None, b"", (("spillway-id", b"a-1"),)),
        (b"", b"\x00\xff" * 9, (("x", b"1"), ("y", b""), ("x", b"2"), ("x", b"1"))),
        (
            "schlüssel".encode(),
            "wert ✓".encode(),
            (("größe", "✓ \ud83d".encode(errors="surrogatepass")), ("nul", None)),
        ),
        (None, b"again", (("dead.topic", b"first"), ("dead.offset", b"1"))),
    ],
)
async def test_a_letter_is_its_record_byte_for_byte(
    topic: Topic, key: bytes | None, value: bytes, headers: tuple[Header, ...]
) -> None:
    """Key, value and headers come back as they were, whatever they hold: nulls, duplicates, bytes that are no text; and
    behind them stands where the record was and why it failed.
    """
    async with bench(topic) as b:
        assert await b.bury(poison(b.topic, 41, key=key, value=value, headers=headers))
        (letter,) = await b.written()
        assert (letter.key, letter.value) == (key, value)
        assert letter.headers == (
            *headers,
            ("dead.topic", b.topic.name.encode()),
            ("dead.partition", b"2"),
            ("dead.offset", b"41"),
            ("dead.timestamp", b"1795521600123"),
            ("dead.error", b"entity_too_large"),
            ("dead.message", str(TOO_LARGE).encode()),
            ("dead.attempts", b"1"),
        )
        assert (b.counted, b.held) == (1, 0)


async def test_the_largest_record_that_the_topic_takes_becomes_a_letter(topic: Topic) -> None:
    """A record that just fits into the topic's max.message.bytes still fits into the dead letters', headers and all."""
    producer = AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers, max_request_size=2 * LIVE_BYTES_MAX)
    await producer.start()
    try:
        overhead = 61 + 3 + 3 + 1 + 1 + 1 + 1 + 1  # batch header; record: length, value length, five single bytes
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic.name, b"x" * (LIVE_BYTES_MAX - overhead + 1), partition=0)
        await producer.send_and_wait(topic.name, b"x" * (LIVE_BYTES_MAX - overhead), partition=0)
    finally:
        await producer.stop()
    (record,) = await asyncio.to_thread(topic.records)
    async with bench(topic) as b:
        await until(lambda: not b.reason)
        assert await b.bury(record)
        (letter,) = await b.written()
        assert letter.value == record.value


async def test_the_log_names_the_record_and_never_its_payload(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    """One warning a letter, with topic, partition, offset, id and reason."""
    caplog.set_level(logging.DEBUG)
    async with bench(topic) as b:
        raw = poison(b.topic, 5, value=b"SECRET", headers=[("spillway-id", b"abc-1")])
        assert await b.bury(raw)
    (line,) = [vars(r) for r in caplog.records if "dead letter now" in r.getMessage()]
    assert line["levelname"] == "WARNING"
    assert (line["tp"], line["offset"], line["id"]) == (f"{b.topic.name}-2", 5, "abc-1")
    assert line["reason"] == "entity_too_large"
    assert all("SECRET" not in str(vars(r)) for r in caplog.records if r.name.startswith("services"))


async def test_a_missing_topic_is_named_before_any_poison_and_found_when_made(topic: Topic) -> None:
    """Readiness says so at start; poison is held for the same reason; once the topic is made, it goes on by itself."""
    await delete_topic(topic.bootstrap_servers, topic.dead)
    says = f"dead-letter topic {topic.dead} does not exist; make it with `spillway-uploader topics`"
    async with bench(topic) as b:
        await until(lambda: b.reason == says)
        assert not await b.bury(poison(topic))
        assert (b.reason, b.held) == (f"1 poison records wait: {says}", 1)
        await make_topic_of(topic.bootstrap_servers, topic.dead, **{"max.message.bytes": str(2 * LIVE_BYTES_MAX)})
        await true_in_the_end(lambda: b.bury(poison(topic)))
        await until(lambda: not b.reason)
        assert (b.held, len(await b.written())) == (0, 1)


async def test_a_topic_deleted_between_two_letters_holds_the_second(topic: Topic) -> None:
    """A producer that knows the topic learns that it is gone, and does not take a letter for written."""
    async with bench(topic) as b:
        assert await b.bury(poison(b.topic, 0))
        await delete_topic(b.topic.bootstrap_servers, b.topic.dead)
        assert not await b.bury(poison(topic, 1))

        async def named() -> bool:
            return not await b.bury(poison(topic, 1)) and "does not exist" in b.reason

        await true_in_the_end(named)


async def test_a_topic_for_smaller_letters_is_named_and_holds_what_does_not_fit(topic: Topic) -> None:
    """Both sizes stand in readiness at start; a letter that is too large is held, and a small one written, meanwhile;
    once the limit is raised, the held one is written.
    """
    await configure(topic.bootstrap_servers, topic.dead, **{"max.message.bytes": "20000"})
    async with bench(topic) as b:
        needed = LIVE_BYTES_MAX + EXTRA_BYTES
        await until(lambda: f"max.message.bytes is 20000, less than {needed}" in b.reason)
        assert not await b.bury(poison(topic, 0, value=b"x" * 30_000))
        assert f"refuses a letter as too large; raise its max.message.bytes to that of {topic.name}" in b.reason
        assert await b.bury(poison(topic, 1))
        assert b.held == 1
        await configure(topic.bootstrap_servers, topic.dead, **{"max.message.bytes": str(needed)})
        await true_in_the_end(lambda: b.bury(poison(topic, 0, value=b"x" * 30_000)))
        await until(lambda: not b.reason)


async def test_a_topic_below_min_insync_is_named_at_start(topic: Topic) -> None:
    """Its acks=all would promise what one broker's disk keeps."""
    async with bench(topic, min_insync=2) as b:
        await until(lambda: "below KAFKA_MIN_INSYNC=2: a letter could be lost" in b.reason)


async def test_who_may_not_read_configurations_may_still_bury(
    topic: Topic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Least rights are no fault: the check says once that it cannot look, readiness holds, letters are written."""

    async def forbidden(*_: object) -> NoReturn:
        raise TopicAuthorizationFailedError("t")

    monkeypatch.setattr(dead_letter_topic, "topic_facts", forbidden)
    caplog.set_level(logging.INFO)
    async with bench(topic) as b:
        await until(lambda: not b.reason)
        assert await b.bury(poison(topic))
    assert [r.levelname for r in caplog.records if "cannot be checked" in r.getMessage()] == ["INFO"]
