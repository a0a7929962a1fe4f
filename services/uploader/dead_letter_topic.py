"""The dead-letter topic: writes poison records to it, or holds them and says why.

Owns a producer (made at the first letter, made anew after a doubt), the readiness condition `dead_letters`, and the
check of the topic's own configuration. Does not decide what is poison, and completes no offset: `bury` answers True
only once all in-sync replicas have the letter, and the caller completes then.

- The producer is not idempotent (DESIGN §6): an aiokafka producer that is would be wedged by one refused letter. A
  letter whose ack is lost is written twice, which harms nobody: both lead to the same object.
- One letter at a time. Those who waited behind a failed write share its outcome: each with a time-out of its own, a
  thousand of them would take hours to be told that Kafka is away.
- Closing a producer may take seconds while a broker is frozen. That is a task of its own, so that `bury` can be
  cancelled at once: a rebalance waits for nobody.
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from services.uploader.dead_letter import EXTRA_BYTES, DeadShare, dead_headers
from services.uploader.errors import PoisonRecord
from services.uploader.settings import UploaderSettings
from shared.kafka import (
    REQUEST_TIMEOUT_S,
    AdminClient,
    TopicFacts,
    connection_options,
    once_only,
    stop_producer,
    topic_facts,
)
from shared.ops import Readiness
from shared.record import ID
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

CONDITION = "dead_letters"

START_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 8.0
"""One letter, tried once. With the slowest backoff still below the 30 s in which everything drains (DESIGN §9)."""

PRODUCE_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 3.0
CHECK_PAUSE_S = 5.0
CHECK_TIMEOUT_S = 10.0

REQUEST_BYTES_MAX = 100 * 1024 * 1024
"""Kafka's own default bound of a request: the topic's max.message.bytes decides what is too large, not this client."""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_TOO_FEW = (NotEnoughReplicasError, NotEnoughReplicasAfterAppendError)
_FORBIDDEN = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)

Place = tuple[str, int, int]  # topic, partition, offset of a record


class DeadLetters:
    """The way out for poison. An async context manager; `bury` may run many times at once inside it."""

    def __init__(
        self, settings: UploaderSettings, readiness: Readiness, metrics: UploaderMetrics, share: DeadShare
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._share = share
        self._name = settings.kafka_dead_topic
        self._producer: AIOKafkaProducer | None = None  # None before the first letter, and after a doubt
        self._closing: set[asyncio.Task[None]] = set()  # each closes one producer, within a bound
        self._writing = asyncio.Lock()  # who holds it may make, use and retire the producer
        self._failures = 0  # failed writes that say something about the next one too
        self._held: set[Place] = set()  # poison that waits
        self._why: tuple[str, str] | None = None  # stable word and words for a person; None while nothing is held
        self._fault: str | None = None  # what is wrong with the topic's configuration, as last checked
        self._doubt = asyncio.Event()  # set while the topic has to be looked at
        self._doubt.set()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watch_topic())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch}, timeout=STOP_TIMEOUT_S)
        if self._producer is not None:
            self._retire(self._producer)
        if self._closing:
            await asyncio.wait(self._closing)

    # -- what the partitions tell and ask

    def settled(self) -> None:
        """A record was stored: the share of dead letters has fallen."""
        self._share.settled()

    def release(self, raw: ConsumerRecord) -> None:
        """The record waits no more: stored, or another owner's. Called for every record that `bury` has refused."""
        if not self._held:  # so that it may be called for every record there is
            return
        self._held.discard((raw.topic, raw.partition, raw.offset))
        if not self._held:
            log.info("no poison record waits any more", extra={"dead_topic": self._name})
            self._why = None
        self._say()

    async def bury(self, raw: ConsumerRecord, error: PoisonRecord, attempts: int) -> bool:
        """Write the record to the dead-letter topic.

        Returns:
            True once it is acknowledged with acks=all. False when it is held: the caller backs off and tries the put
            again, for a person may mend what made it poison; it tells `release` when it gives up.

        """
        failures = self._failures
        if not self._share.may_bury():
            return self._hold(raw, *self._over_share(error))
        async with self._writing:
            if self._failures != failures and self._why is not None:
                return self._hold(raw, *self._why)
            if not self._share.may_bury():
                return self._hold(raw, *self._over_share(error))
            try:
                await self._write(raw, error, attempts)
            except Exception as failure:  # noqa: BLE001 - whatever it is, the record is not a dead letter and must be held
                return self._hold(raw, *self._judge(failure))
            self._share.buried()
        self._metrics.dead_letters.labels(reason=error.reason).inc()
        log.warning(
            "a record that S3 can never take is a dead letter now",
            extra={
                "tp": f"{raw.topic}-{raw.partition}",
                "offset": raw.offset,
                "id": _id(raw),
                "reason": error.reason,
                "attempts": attempts,
                "dead_topic": self._name,
            },
        )
        self.release(raw)
        return True

    def _hold(self, raw: ConsumerRecord, word: str, words: str) -> bool:
        if self._why is None or self._why[0] != word:
            log.warning("poison records wait; nothing is committed past them", extra={"reason": word, "cause": words})
        self._why = word, words
        self._held.add((raw.topic, raw.partition, raw.offset))
        self._say()
        return False

    def _say(self) -> None:
        self._metrics.dead_letters_held.set(len(self._held))
        if self._why is not None:
            self._readiness.fail(CONDITION, f"{len(self._held)} poison records wait: {self._why[1]}")
        elif self._fault is not None:
            self._readiness.fail(CONDITION, self._fault)
        else:
            self._readiness.hold(CONDITION)

    def _over_share(self, error: PoisonRecord) -> tuple[str, str]:
        share = self._share
        return "over_share", (
            f"{share.letters} of the last {share.seen} settled records were poison, and "
            f"DEAD_LETTER_SHARE_MAX={self._settings.dead_letter_share_max:g} allows {share.allowed} in "
            f"{share.window}. Mend what makes S3 refuse them (last: {error.reason}: {error}), and they are stored; "
            f"or raise DEAD_LETTER_SHARE_MAX and restart, and they go to {self._name}"
        )

    # -- the producer

    async def _write(self, raw: ConsumerRecord, error: PoisonRecord, attempts: int) -> None:
        headers = dead_headers(
            raw.headers,
            topic=raw.topic,
            partition=raw.partition,
            offset=raw.offset,
            timestamp_ms=raw.timestamp,
            reason=error.reason,
            message=str(error),
            attempts=attempts,
        )
        producer = await self._open()
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await producer.send_and_wait(self._name, raw.value, key=raw.key, headers=headers)

    async def _open(self) -> AIOKafkaProducer:
        if self._producer is None:
            if self._closing:
                await asyncio.wait(self._closing)
            producer = once_only(
                AIOKafkaProducer(
                    **connection_options(self._settings),
                    client_id="spillway-uploader-dead",
                    acks="all",
                    request_timeout_ms=round(PRODUCE_TIMEOUT_S * 1000),
                    retry_backoff_ms=1000,  # a missing topic is asked for, and logged by the client, as often
                    max_request_size=REQUEST_BYTES_MAX,
                )
            )
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await producer.start()
            except BaseException:
                self._retire(producer)
                raise
            self._producer = producer
        return self._producer

    def _retire(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        task = asyncio.create_task(stop_producer(producer, STOP_TIMEOUT_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _judge(self, failure: Exception) -> tuple[str, str]:
        """Word and words for a failed write; retires the producer unless a broker has plainly said no with it."""
        topic = f"dead-letter topic {self._name}"
        if isinstance(failure, _TOO_LARGE):
            self._doubt.set()
            return "too_large", (
                f"{topic} refuses a letter as too large; raise its max.message.bytes to that of "
                f"{self._settings.kafka_topic} + {EXTRA_BYTES}"
            )
        self._failures += 1
        if isinstance(failure, _TOO_FEW):
            return "too_few_replicas", f"{topic} has fewer replicas in sync than its min.insync.replicas"
        if isinstance(failure, _FORBIDDEN):
            return "forbidden", f"this client may not write to {topic}; allow it Write and Describe"
        if self._producer is not None:
            self._retire(self._producer)
        self._doubt.set()
        if isinstance(failure, UnknownTopicOrPartitionError):
            return "topic_missing", missing(self._name)
        brokers, cause = (
            self._settings.kafka_bootstrap_servers,
            str(failure) or f"{type(failure).__name__}, no answer in time",
        )
        return "kafka_away", f"{topic} cannot be written: KAFKA_BOOTSTRAP_SERVERS={brokers}: {cause}"

    # -- the topic's configuration

    async def _watch_topic(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            if not await self.check():
                self._doubt.set()
            await asyncio.sleep(CHECK_PAUSE_S)

    async def check(self) -> bool:
        """Look whether the topic can take every letter, and tell readiness and log if not. Consumption goes on anyhow.

        Returns:
            Whether nothing is left to look for; False asks for another look.

        """
        admin = AdminClient(**connection_options(self._settings), request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000))
        live, dead = self._settings.kafka_topic, self._name
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                try:
                    await admin.start()
                    facts = await topic_facts(admin, [live, dead])
                finally:
                    await admin.close()
        except _FORBIDDEN as error:
            log.info(
                "the dead-letter topic cannot be checked; DescribeConfigs on it and on the payloads' topic would do",
                extra={"dead_topic": dead, "cause": repr(error)},
            )
            self._say()
            return True
        except Exception as error:  # noqa: BLE001 - Kafka is away: others say so
            log.debug("the dead-letter topic cannot be checked yet", extra={"dead_topic": dead, "cause": repr(error)})
            return False
        fault = fault_of(facts[live], facts[dead], self._settings.kafka_min_insync)
        if fault is not None and fault != self._fault:
            log.warning("a record that S3 can never take would have to wait", extra={"cause": fault})
        self._fault = fault
        self._say()
        return fault is None and facts[live].exists


def missing(name: str) -> str:
    """What to say of a dead-letter topic that is not there."""
    return f"dead-letter topic {name} does not exist; make it with `spillway-uploader topics`"


def too_small(live: TopicFacts, dead: TopicFacts) -> str | None:
    """Why a dead letter of a record of `live` may not fit into `dead`; None when each does. Both exist. Pure."""
    needed = live.message_bytes_max + EXTRA_BYTES
    if dead.message_bytes_max >= needed:
        return None
    return f"topic {dead.name}: max.message.bytes is {dead.message_bytes_max}, less than {needed}"


def fault_of(live: TopicFacts, dead: TopicFacts, min_insync: int) -> str | None:
    """What of the dead-letter topic would lose a letter or refuse one; None when nothing does. Pure."""
    if not dead.exists:
        return missing(dead.name)
    if min(dead.min_insync, dead.replicas) < min_insync:
        return (
            f"dead-letter topic {dead.name} has min.insync.replicas={dead.min_insync} and {dead.replicas} replicas, "
            f"below KAFKA_MIN_INSYNC={min_insync}: a letter could be lost with one broker"
        )
    return too_small(live, dead) if live.exists else None


def _id(raw: ConsumerRecord) -> str:
    found: bytes = dict(raw.headers).get(ID) or b""
    return found.decode("ascii", "replace")
