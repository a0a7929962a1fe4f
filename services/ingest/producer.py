"""The one Kafka producer of the process, and what is known of the topic behind it.

Owns the producer's life: it is built, watched, and replaced when no broker has answered for a bound of time, because an
aiokafka client that has lost all the brokers it knew never returns to its bootstrap list; when that list names brokers
that it does not know; and when it gets nowhere although the brokers answer. Decides whether collections can be taken at
all (`refusal`), and tells readiness why not. What is written to which partition is `writer`'s.

The producer is not idempotent (decision 14): ids make a duplicate harmless, and an idempotent aiokafka producer is
wedged by one refused batch.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError

from services.ingest.brokers import Address, Answer, Brokers, Connect
from services.ingest.problems import Code, Problem, retry_after
from services.ingest.settings import IngestSettings
from shared.kafka import TopicFacts, once_only, stop_producer, topic_facts
from shared.kafka_trouble import explain, known
from shared.ops import Readiness
from shared.telemetry import IngestMetrics

logger = logging.getLogger("spillway.ingest.producer")

KAFKA, TOPIC = "kafka", "topic"  # this module's readiness conditions
_IDLE_ASK_S = 5.0  # between two questions to the brokers while nothing is amiss
_ASK_BOUND_S = 2.0
_RETRY_AFTER_MAX_S = 10
_STOP_BOUND_S = 3.0
_BACKOFF_S = (0.5, 1.0)  # between attempts to reach Kafka; the last repeats

_FAILURES = (KafkaError, OSError, TimeoutError)


class KafkaLink:
    """The producer in use, or the reason why there is none.

    Args:
        settings: of this tier.
        make_producer: builds one, to be started from the broker at the given `host:port`.
        connect: opens a connection for questions.
        readiness: gets the conditions KAFKA and TOPIC.
        metrics: gets the replacements.
        tick_s: between two looks at how things are.

    """

    def __init__(
        self,
        settings: IngestSettings,
        *,
        make_producer: Callable[[str], AIOKafkaProducer],
        connect: Connect,
        readiness: Readiness,
        metrics: IngestMetrics,
        tick_s: float = 1.0,
    ) -> None:
        self._settings = settings
        self._tick_s = tick_s
        self._make_producer = make_producer
        self._readiness = readiness
        self._metrics = metrics
        self._address = settings.kafka_bootstrap_servers
        self._known = Brokers(connect, settings.kafka_topic)  # those that the producer knows
        self._listed = Brokers(connect, settings.kafka_topic)  # those of the bootstrap list
        self.producer: AIOKafkaProducer | None = None  # None while Kafka was never reached, or between two producers
        self.partitions = 0  # of the topic, as the broker last told
        self.message_bytes_max = 0  # its `max.message.bytes`, likewise
        self.acks = 0  # batches acked so far
        self._answered_at = 0.0  # when a broker last answered anything, on the monotonic clock, as the next
        self._moved_at = 0.0  # when a produce last ended in any way, or nothing waited for one
        self._facts_at: float | None = None  # when the topic was looked at; None asks for a new look
        self._looked = asyncio.Event()  # set by a look, cleared by what asks for one
        self._wanted = asyncio.Event()  # set by what cannot wait for the next tick
        self._well_at = time.monotonic()  # when there was last nothing to refuse for
        self._kafka_refusal: Problem | None = _starting(self._address)
        self._said: str | None = None  # why Kafka cannot be reached, as the log has it
        self._topic_refusal: Problem | None = None
        self._broken: str | None = None  # why the producer must go

    @property
    def refusal(self) -> Problem | None:
        """Why no collection can be taken now; None when one can.

        Who is refused comes back the later, the longer this has gone on: after a quarter of that time, at most after
        _RETRY_AFTER_MAX_S, so that its return is noticed soon, and not by everybody every second meanwhile.
        """
        problem = self._kafka_refusal or self._topic_refusal
        if problem is None:
            return None
        wait_s = min(_RETRY_AFTER_MAX_S, max(1, math.ceil((time.monotonic() - self._well_at) / 4)))
        return Problem(problem.code, problem.detail, (retry_after(wait_s),))

    def can_send(self, place: TopicPartition) -> bool:
        """Whether the partition has a leader, as the producer knows, and that broker is not silent: the client would
        try to connect to a frozen one for a whole request's time-out, and the partition's next leader wait for that.
        """
        if self.producer is None:
            return False
        cluster = self.producer.client.cluster
        broker = cluster.broker_metadata(cluster.leader_for_partition(place))
        return broker is not None and not self._known.silent((broker.host, broker.port))

    def refresh(self) -> None:
        """Something hints that the leaders have changed: ask the brokers now."""
        self._wanted.set()

    def acked(self) -> None:
        """A broker has acknowledged a batch."""
        self.acks += 1
        self._answered_at = time.monotonic()

    def moved(self) -> None:
        """The producer has told how a produce ended, well or not: it is not wedged."""
        self._moved_at = time.monotonic()

    def recheck_topic(self) -> None:
        """Something hints that the topic has changed: look again soon."""
        self._facts_at = None
        self._looked.clear()

    async def rechecked(self, bound_s: float) -> None:
        """Look at the topic again, and wait for it, `bound_s` seconds at most."""
        self.recheck_topic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._looked.wait()

    def replace(self, reason: str) -> None:
        """The producer has failed beyond repair."""
        self._broken = reason

    async def run(self, *, pending: Callable[[], bool], troubled: Callable[[], bool]) -> None:
        """Keep a producer; ends only by cancellation, and leaves none behind.

        Args:
            pending: whether anything waits for an ack.
            troubled: whether a partition has waited long for one, or has no leader: then the brokers are asked at
                every tick, and the producer gets what they say of the partitions' leaders.

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
                reason = await self._watch(pending, troubled)
                self._metrics.producer_restarts.inc()
                logger.warning("replacing the producer", extra={"brokers": self._address, "reason": reason})
                await self._close()
        finally:
            await self._close()
            await self._known.close()
            await self._listed.close()

    async def _open(self) -> None:
        bound_s = self._settings.kafka_produce_timeout_s
        # From a broker that answers: the client itself would spend a request's time-out on each frozen one before it.
        listed = await self._listed.ask(_addresses(self._address), bound_s)
        await self._listed.close()
        producer = once_only(self._make_producer(_address(listed.address)))
        try:
            async with asyncio.timeout(bound_s):
                await producer.start()
                await self._look_at_topic(await self._ask(producer, bound_s))
        except BaseException:
            await stop_producer(producer, _STOP_BOUND_S)
            raise
        self.producer, self._broken = producer, None
        self._reached()

    async def _watch(self, pending: Callable[[], bool], troubled: Callable[[], bool]) -> str:
        """Return when the producer must be replaced, and why."""
        self.moved()
        while self._broken is None:
            await asyncio.sleep(self._tick_s / 10)  # at most so often
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s):
                    await self._wanted.wait()
            if self._kafka_refusal is None and self._topic_refusal is None:
                self._well_at = time.monotonic()
            urgent = self._kafka_refusal is not None or self._wanted.is_set() or troubled()
            self._wanted.clear()
            if urgent or self._facts_due() or time.monotonic() - self._answered_at >= _IDLE_ASK_S:
                await self._ask_round(urgent=urgent)
            now_s = time.monotonic()
            if now_s - self._answered_at >= self._settings.kafka_replace_after_s:
                return "no broker answered"
            if not pending():
                self._moved_at = now_s
            elif now_s - self._moved_at >= self._wedged_after_s:
                return "the brokers answer, but no produce has ended"
        return self._broken

    @property
    def _wedged_after_s(self) -> float:
        """One produce behind another to the same broker is no wedge; each has its own time-out."""
        return max(self._settings.kafka_replace_after_s, 2 * self._settings.kafka_produce_timeout_s + self._tick_s)

    async def _ask_round(self, *, urgent: bool) -> None:
        """Ask all known brokers. Silence counts only while collections wait in vain too: a broker may be slow; a plain
        no always counts.
        """
        producer = self.producer
        if producer is None:
            return
        try:
            answer = await self._ask(producer, _ASK_BOUND_S, learn=urgent)
        except _FAILURES as error:
            silent_s = time.monotonic() - self._answered_at
            if silent_s >= self._settings.kafka_away_after_s and (urgent or not isinstance(error, TimeoutError)):
                self._unreachable(error)
                await self._look_elsewhere(producer)
            return
        if self._kafka_refusal is not None:
            self._reached()
        if self._facts_due():
            try:
                async with asyncio.timeout(self._settings.kafka_produce_timeout_s):
                    await self._look_at_topic(answer)
            except _FAILURES as error:  # the last facts stand until a broker tells others
                logger.warning("the topic's configuration could not be read", extra={"reason": repr(error)})

    async def _ask(self, producer: AIOKafkaProducer, bound_s: float, *, learn: bool = True) -> Answer:
        """An answer of the brokers that the producer knows; it learns from it who leads what, if it shall."""
        cluster = producer.client.cluster
        answer = await self._known.ask({(broker.host, broker.port) for broker in cluster.brokers()}, bound_s)
        if learn:
            cluster.update_metadata(answer.response)
        self._answered_at = time.monotonic()
        return answer

    async def _look_elsewhere(self, producer: AIOKafkaProducer) -> None:
        """All known brokers are away: has the cluster moved to other addresses? A client never finds that out."""
        known = {(broker.host, broker.port) for broker in producer.client.cluster.brokers()}
        try:
            answer = await self._listed.ask(_addresses(self._address), _ASK_BOUND_S)
        except _FAILURES:
            return
        if not answer.brokers <= known:
            self.replace("the brokers have other addresses now")

    def _facts_due(self) -> bool:
        if self._facts_at is None or self._topic_refusal is not None:
            return True
        return time.monotonic() - self._facts_at >= self._settings.kafka_topic_check_s

    async def _look_at_topic(self, answer: Answer) -> None:
        name = self._settings.kafka_topic
        facts = (await topic_facts(answer, [name]))[name]
        self._facts_at = time.monotonic()
        self._looked.set()
        if facts.exists:
            self.partitions, self.message_bytes_max = facts.partitions, facts.message_bytes_max
        refusal = _topic_refusal(facts, self._settings.kafka_min_insync)
        if refusal != self._topic_refusal:
            logger.info("the topic was looked at", extra={"refusal": refusal and refusal.detail})
        self._topic_refusal = refusal
        if refusal is None:
            self._readiness.hold(TOPIC)
        else:
            self._readiness.fail(TOPIC, refusal.detail)

    def _reached(self) -> None:
        self._kafka_refusal = self._said = None
        self._readiness.hold(KAFKA)
        logger.info("Kafka answers", extra={"brokers": self._address, "topic": self._settings.kafka_topic})

    def _unreachable(self, error: BaseException) -> None:
        protocol = self._settings.kafka_security_protocol
        told = reason = f"no broker answers at {self._address} ({explain(error, protocol)})"
        words = known(error)
        if words is not None:  # certificates, credentials, grants: the operator's business alone
            told = f"Kafka at {self._address} does not serve this ingest; its /readyz says why"
            reason = f"Kafka at {self._address} does not serve us: {words}"
        if self._said != reason:
            logger.warning(reason, extra={"brokers": self._address})
        self._said = reason
        self._kafka_refusal = Problem(Code.KAFKA_UNAVAILABLE, told)
        self._readiness.fail(KAFKA, reason)

    async def _close(self) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            await stop_producer(producer, _STOP_BOUND_S)


def _addresses(bootstrap_servers: str) -> set[Address]:
    return {(host, port) for host, port, _ in collect_hosts(bootstrap_servers)}


def _address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
