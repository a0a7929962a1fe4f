"""The one Kafka producer of the process, and what is known of the topic behind it.

Owns the producer's life: it is built, watched, and replaced when no broker has answered for a bound of time, because an
aiokafka client that has lost all the brokers it knew never returns to its bootstrap list. Decides whether collections
can be taken at all (`refusal`), and tells readiness why not. What is written to which partition is `writer`'s.

The producer is not idempotent (DESIGN §6): ids make a duplicate harmless, and an idempotent aiokafka producer is wedged
by one refused batch.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from services.ingest.problems import Code, Problem
from services.ingest.settings import IngestSettings
from shared.kafka import TopicFacts, once_only, stop_producer, topic_facts
from shared.ops import Readiness
from shared.telemetry import IngestMetrics

logger = logging.getLogger("spillway.ingest.producer")

KAFKA, TOPIC = "kafka", "topic"  # this module's readiness conditions
_TICK_S = 1.0
_IDLE_PING_S = 5.0  # between two questions to the brokers while nothing is written
_PING_BOUND_S = 2.0
_STOP_BOUND_S = 3.0
_BACKOFF_S = (0.5, 1.0, 2.0, 3.0)  # between attempts to reach Kafka; the last repeats

_FAILURES = (KafkaError, OSError, TimeoutError)


class KafkaLink:
    """The producer in use, or the reason why there is none."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        make_producer: Callable[[], AIOKafkaProducer],
        make_admin: Callable[[], AIOKafkaAdminClient],
        readiness: Readiness,
        metrics: IngestMetrics,
    ) -> None:
        self._settings = settings
        self._make_producer = make_producer
        self._make_admin = make_admin
        self._readiness = readiness
        self._metrics = metrics
        self._address = settings.kafka_bootstrap_servers
        self.producer: AIOKafkaProducer | None = None  # None while Kafka was never reached, or between two producers
        self.partitions = 0  # of the topic, as the broker last told
        self.message_bytes_max = 0  # its `max.message.bytes`, likewise
        self._facts_at: float | None = None  # when; None asks for a new look
        self._kafka_refusal: Problem | None = _starting(self._address)
        self._topic_refusal: Problem | None = None
        self._answered_at = 0.0  # when a broker last answered anything
        self._broken = False  # the producer itself has failed and must go

    @property
    def refusal(self) -> Problem | None:
        """Why no collection can be taken now; None when one can."""
        return self._kafka_refusal or self._topic_refusal

    def answered(self) -> None:
        """A broker has answered a produce."""
        self._answered_at = time.monotonic()

    def recheck_topic(self) -> None:
        """Something hints that the topic's configuration has changed: look again soon."""
        self._facts_at = None

    def replace(self) -> None:
        """The producer has failed beyond repair."""
        self._broken = True

    async def run(self, pending: Callable[[], bool]) -> None:
        """Keep a producer; ends only by cancellation, and leaves none behind.

        Args:
            pending: whether anything waits for an ack: then the brokers are asked more often.

        """
        failures = 0
        try:
            while True:
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may succeed
                    self._unreachable(error)
                    await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                    failures += 1
                    continue
                failures = 0
                await self._watch(pending)
                self._metrics.producer_restarts.inc()
                logger.warning("replacing the producer: no broker answered", extra={"brokers": self._address})
                await self._close()
        finally:
            await self._close()

    async def _open(self) -> None:
        producer = once_only(self._make_producer())
        try:
            async with asyncio.timeout(self._settings.kafka_produce_timeout_s):
                await producer.start()
                await self._look_at_topic()
        except BaseException:
            await stop_producer(producer, _STOP_BOUND_S)
            raise
        self.producer, self._broken = producer, False
        self._reached()

    async def _watch(self, pending: Callable[[], bool]) -> None:
        """Return when the producer must be replaced."""
        while not self._broken:
            await asyncio.sleep(_TICK_S)
            silent_s = time.monotonic() - self._answered_at
            urgent = self._kafka_refusal is not None or pending()
            if silent_s >= (_TICK_S if urgent else _IDLE_PING_S):
                await self._ping(urgent=urgent)
                silent_s = time.monotonic() - self._answered_at
            if silent_s >= self._settings.kafka_replace_after_s:
                return
            if silent_s < _IDLE_PING_S and self._facts_due():
                try:
                    async with asyncio.timeout(self._settings.kafka_produce_timeout_s):
                        await self._look_at_topic()
                except _FAILURES as error:  # the last facts stand until a broker tells others
                    logger.warning("the topic's configuration could not be read", extra={"reason": repr(error)})

    async def _ping(self, *, urgent: bool) -> None:
        """Ask for metadata. Silence within the bound says little: the client asks one broker after the other, and the
        first may be the only frozen one. So it counts only while collections wait in vain too; a plain no always does.
        """
        if self.producer is None:
            return
        refreshed = self.producer.client.force_metadata_update()
        done, _ = await asyncio.wait({refreshed}, timeout=_PING_BOUND_S)
        if done and refreshed.result():
            self.answered()
            if self._kafka_refusal is not None:
                self._reached()
            return
        refreshed.cancel()
        if not done and not urgent:
            return
        if time.monotonic() - self._answered_at >= self._settings.kafka_away_after_s:
            self._unreachable(TimeoutError("no answer"))

    def _facts_due(self) -> bool:
        if self._facts_at is None or self._topic_refusal is not None:
            return True
        return time.monotonic() - self._facts_at >= self._settings.kafka_topic_check_s

    async def _look_at_topic(self) -> None:
        admin = self._make_admin()
        name = self._settings.kafka_topic
        try:
            await admin.start()
            facts = (await topic_facts(admin, [name]))[name]
        finally:
            await admin.close()
        self._facts_at = time.monotonic()
        if facts.exists:
            self.partitions, self.message_bytes_max = facts.partitions, facts.message_bytes_max
        self._topic_refusal = _topic_refusal(facts, self._settings.kafka_min_insync)
        if self._topic_refusal is None:
            self._readiness.hold(TOPIC)
        else:
            self._readiness.fail(TOPIC, self._topic_refusal.detail)

    def _reached(self) -> None:
        self.answered()
        self._kafka_refusal = None
        self._readiness.hold(KAFKA)
        logger.info("Kafka answers", extra={"brokers": self._address, "topic": self._settings.kafka_topic})

    def _unreachable(self, error: BaseException) -> None:
        reason = f"no broker answers at {self._address} ({str(error) or type(error).__name__})"
        if self._kafka_refusal is None or self._kafka_refusal.detail != reason:
            logger.warning(reason, extra={"brokers": self._address})
        self._kafka_refusal = Problem(Code.KAFKA_UNAVAILABLE, reason)
        self._readiness.fail(KAFKA, reason)

    async def _close(self) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            await stop_producer(producer, _STOP_BOUND_S)


def _starting(address: str) -> Problem:
    return Problem(Code.KAFKA_UNAVAILABLE, f"no broker has answered yet at {address}")


def _topic_refusal(facts: TopicFacts, min_insync: int) -> Problem | None:
    if not facts.exists:
        return Problem(
            Code.TOPIC_UNAVAILABLE,
            f"topic {facts.name!r} does not exist (KAFKA_TOPIC); `spillway-uploader topics` makes it",
        )
    if min(facts.min_insync, facts.replicas) < min_insync:
        return Problem(
            Code.TOPIC_UNAVAILABLE,
            f"topic {facts.name!r} has min.insync.replicas={facts.min_insync} and {facts.replicas} replicas, "
            f"below KAFKA_MIN_INSYNC={min_insync}: an acknowledged payload could be lost with one broker",
        )
    return None
