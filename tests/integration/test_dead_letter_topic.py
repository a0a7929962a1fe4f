"""Dead letters on a real broker: byte for byte, acknowledged, and held with a reason whenever that cannot be."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
)
from prometheus_client import CollectorRegistry

from services.uploader import dead_letter_topic
from services.uploader.dead_letter import EXTRA_BYTES, DeadShare
from services.uploader.dead_letter_topic import CONDITION, DeadLetters
from services.uploader.errors import PoisonRecord
from services.uploader.settings import UploaderSettings
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics
from tests.harness.broker import Topic

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka

MakeTopic = Callable[..., Topic]

DEADLINE_S = 40
LIVE_BYTES_MAX = 1_048_588
TOO_LARGE = PoisonRecord("entity_too_large", "S3 answered 400 EntityTooLarge: Ünïcödé")
Header = tuple[str, bytes | None]


def _led(topic: Topic) -> Topic:
    """Once its dead-letter topic has a leader that answers: a topic that was just made may have none yet."""
    assert Topic(topic.bootstrap_servers, topic.dead, 1).ends() == {0: 0}
    return topic


@pytest.fixture
def topic(make_topic: MakeTopic) -> Topic:
    """A topic and its dead-letter topic on the shared broker."""
    return _led(make_topic(1))


@pytest.fixture
def own_topic(own_kafka: "EmbeddedKafka", make_topic: MakeTopic) -> Topic:
    """The same on a broker that the test may stop and freeze."""
    return _led(make_topic(1, bootstrap_servers=own_kafka.bootstrap_servers))


@dataclass
class Bench:
    """The letters under test and what they say."""

    letters: DeadLetters
    topic: Topic
    readiness: Readiness
    registry: CollectorRegistry

    @property
    def reason(self) -> str:
        return self.readiness.reasons.get(CONDITION, "")

    @property
    def held(self) -> float | None:
        return self.registry.get_sample_value("spillway_uploader_dead_letters_held")

    @property
    def counted(self) -> float | None:
        return self.registry.get_sample_value("spillway_uploader_dead_letters_total", {"reason": "entity_too_large"})

    async def bury(self, raw: ConsumerRecord) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self.letters.bury(raw, TOO_LARGE, 1)

    async def written(self) -> list[ConsumerRecord]:
        """What the dead-letter topic holds."""
        dead = Topic(self.topic.bootstrap_servers, self.topic.dead, 1)
        return await asyncio.to_thread(dead.records)


@asynccontextmanager
async def bench(topic: Topic, *, share: DeadShare | None = None, min_insync: int = 1) -> AsyncIterator[Bench]:
    settings = UploaderSettings(
        s3_bucket="bucket",
        kafka_bootstrap_servers=topic.bootstrap_servers,
        kafka_topic=topic.name,
        kafka_dead_topic=topic.dead,
        kafka_min_insync=min_insync,
    )
    readiness, registry = Readiness(CONDITION), CollectorRegistry()
    letters = DeadLetters(settings, readiness, UploaderMetrics(registry), share or DeadShare(1.0))
    async with letters:
        yield Bench(letters, topic, readiness, registry)


async def until(condition: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0.05)


async def true_in_the_end(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask as a partition's worker would, until it is told True."""
    async with asyncio.timeout(DEADLINE_S):
        while not await question():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


def poison(
    topic: Topic,
    offset: int = 0,
    *,
    key: bytes | None = b"key",
    value: bytes = b"value",
    headers: Sequence[Header] = (),
) -> ConsumerRecord:
    return ConsumerRecord(
        topic=topic.name,
        partition=2,
        offset=offset,
        timestamp=1_795_521_600_123,
        timestamp_type=1,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=len(value),
        headers=tuple(headers),
    )


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


class _Refusing:
    """A producer of whose letters the broker says no, in ways that a broker of one node never does."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send_and_wait(self, *_: object, **__: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NotEnoughReplicasError(), "has fewer replicas in sync than its min.insync.replicas"),
        (NotEnoughReplicasAfterAppendError(), "has fewer replicas in sync than its min.insync.replicas"),
        (TopicAuthorizationFailedError("t"), "this client may not write to dead-letter topic"),
    ],
)
async def test_a_refusal_by_the_broker_holds_the_letter(topic: Topic, error: Exception, says: str) -> None:
    """Whatever is not an ack of all in-sync replicas is none; those that waited behind it share the reason."""
    async with bench(topic) as b:
        b.letters._producer = _Refusing(error)
        assert not any(await asyncio.gather(*(b.bury(poison(topic, offset)) for offset in range(3))))
        assert says in b.reason
        b.letters._producer = None
        await true_in_the_end(lambda: b.bury(poison(topic)))


async def test_over_the_share_poison_is_held_and_nothing_is_written(topic: Topic) -> None:
    """2 of the last 10: the third letter waits; the reason says what the operator can do; stored records make room."""
    async with bench(topic, share=DeadShare(0.2, 10)) as b:
        assert [await b.bury(poison(b.topic, offset)) for offset in range(4)] == [True, True, False, False]
        assert "2 poison records wait: 2 of the last 2 settled records were poison" in b.reason
        assert "DEAD_LETTER_SHARE_MAX" in b.reason
        assert "entity_too_large" in b.reason
        for _ in range(8):
            b.letters.settled()
        assert len(await b.written()) == 2
        assert [await b.bury(poison(b.topic, offset)) for offset in range(2, 5)] == [True, True, False]  # two have left
        b.letters.release(poison(b.topic, 4))
        await until(lambda: (b.held, b.reason) == (0, ""))
        assert len(await b.written()) == 4


async def test_what_is_stored_or_revoked_waits_no_more(topic: Topic) -> None:
    """Readiness holds again when the last held record is let go; and no sooner."""
    async with bench(topic, share=DeadShare(0.0)) as b:
        for offset in (1, 2):
            assert not await b.bury(poison(b.topic, offset))
        b.letters.release(poison(b.topic, 1))
        assert (b.held, CONDITION in b.readiness.reasons) == (1, True)
        b.letters.release(poison(b.topic, 7))  # never held: nothing changes
        b.letters.release(poison(b.topic, 2))
        await until(lambda: (b.held, b.reason) == (0, ""))


async def test_stopped_and_started_broker(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """While Kafka is away every letter is held, all waiters are told within one time-out, and afterwards they go."""
    async with bench(own_topic) as b:
        assert await b.bury(poison(own_topic, 0))
        await asyncio.to_thread(own_kafka.stop)
        async with asyncio.timeout(DEADLINE_S):
            assert not any(await asyncio.gather(*(b.bury(poison(own_topic, offset)) for offset in range(1, 30))))
        assert b.held == 29
        assert f"KAFKA_BOOTSTRAP_SERVERS={own_topic.bootstrap_servers}" in b.reason
        await asyncio.to_thread(own_kafka.start)
        for offset in range(1, 30):
            await true_in_the_end(lambda offset=offset: b.bury(poison(own_topic, offset)))  # type: ignore[misc]
        assert (b.held, b.reason) == (0, "")
        offsets = {dict(letter.headers)["dead.offset"] for letter in await b.written()}
        assert offsets == {b"%d" % offset for offset in range(30)}


async def test_frozen_broker(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """A broker that hangs holds a letter within a bound; a bury that is cancelled meanwhile ends at once and leaves no
    task; thawed, the same letter goes.
    """
    async with bench(own_topic) as b:
        assert await b.bury(poison(own_topic, 0))
        own_kafka.freeze()
        try:
            tasks = asyncio.all_tasks()
            cancelled = [asyncio.create_task(b.bury(poison(own_topic, offset))) for offset in (1, 2)]
            await until(b.letters._writing.locked)
            for task in cancelled:
                task.cancel()
            done, _ = await asyncio.wait(cancelled, timeout=1)
            assert len(done) == 2
            assert not b.letters._writing.locked()
            assert not await b.bury(poison(own_topic, 3))
            assert b.held == 1
        finally:
            own_kafka.thaw()
        await true_in_the_end(lambda: b.bury(poison(own_topic, 3)))
        await until(lambda: not b.reason)
        await until(lambda: not b.letters._closing)
        ours = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - tasks}  # type: ignore[union-attr]
        assert not {name for name in ours if "bury" in name or "stop_producer" in name}
        assert b"3" in {dict(letter.headers)["dead.offset"] for letter in await b.written()}


async def test_closing_is_bounded_while_the_broker_is_frozen(own_kafka: "EmbeddedKafka", own_topic: Topic) -> None:
    """A letter on its way to a frozen broker does not keep the process from leaving."""
    try:
        async with asyncio.timeout(DEADLINE_S), bench(own_topic) as b:
            assert await b.bury(poison(own_topic, 0))
            own_kafka.freeze()
            stuck = asyncio.create_task(b.bury(poison(own_topic, 1)))
            await until(b.letters._writing.locked)
            stuck.cancel()
    finally:
        own_kafka.thaw()
