"""The group consumer: one session after another, each the life of one Kafka client, from the committed offsets on.

Owns the client's start, polling and end. What it polls goes to the session's `Assignment`; what is stored is committed
by its `Committer`. After an unexpected error the client is closed and a new session begins: after any exception from
`getmany`, aiokafka's own idle clock reads 0 for ever, and a stuck consumer would never be evicted.

Invariants, each of which has lost data in other sinks (DESIGN §7):
- No await between `getmany` returning and admission.
- The poll task only polls, and a poll is cancelled only together with its client.
- A position is trusted as committable only while no poll failed: a failing one may have moved it past records that it
  did not return.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from services.uploader.assignment import Assignment
from services.uploader.committer import Committer
from services.uploader.partition import Sink
from services.uploader.settings import UploaderSettings
from shared.kafka import connection_options
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 200
FULL_POLL_TIMEOUT_MS = 20
"""How long a poll waits when no partition has room: short, since room comes from workers, not from Kafka."""

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POLL_STOP_TIMEOUT_S = 1.0
SESSION_PAUSE_S = 1.0
TOPIC_CHECK_S = 1.0


def consumer_client(settings: UploaderSettings) -> AIOKafkaConsumer:
    """A consumer with the options that the invariants of this module rely on; not yet started.

    Raises:
        ValueError: a certificate file cannot be read.

    """
    return AIOKafkaConsumer(
        **connection_options(settings),
        client_id="spillway-uploader",
        client_rack=settings.kafka_client_rack,
        group_id=settings.kafka_group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",  # "earliest" would skip what retention took without a word
        isolation_level="read_committed",
        session_timeout_ms=round(settings.kafka_session_timeout_s * 1000),
        heartbeat_interval_ms=round(settings.kafka_session_timeout_s * 1000 / 4),
        rebalance_timeout_ms=round(settings.kafka_rebalance_timeout_s * 1000),
        request_timeout_ms=round(settings.kafka_request_timeout_s * 1000),
        max_partition_fetch_bytes=1024 * 1024,
        fetch_max_bytes=16 * 1024 * 1024,
        metadata_max_age_ms=30_000,
    )


class GroupConsumer:
    """One member of the uploaders' group. `run()` returns only when it is told to stop."""

    def __init__(
        self,
        settings: UploaderSettings,
        sink: Sink,
        readiness: Readiness,
        metrics: UploaderMetrics,
        new_client: Callable[[], AIOKafkaConsumer],
    ) -> None:
        self._settings = settings
        self._sink = sink
        self._readiness = readiness
        self._metrics = metrics
        self._new_client = new_client
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask `run()` to drain, commit, leave the group and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop()`. Whatever fails meanwhile, a new session begins after a pause."""
        while not self._stopping.is_set():
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - every error ends in a new session; none ends the process
                self._failed(_first(error))
                await self._pause(SESSION_PAUSE_S)

    def _failed(self, cause: BaseException) -> None:
        brokers = self._settings.kafka_bootstrap_servers
        self._metrics.consumer_restarts.inc()
        self._readiness.fail("kafka", f"KAFKA_BOOTSTRAP_SERVERS={brokers}: {type(cause).__name__}: {cause}")
        expected = isinstance(cause, KafkaError | TimeoutError)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "the Kafka consumer failed; making a new one",
            extra={"cause": f"{type(cause).__name__}: {cause}", "brokers": brokers},
            exc_info=None if expected else cause,
        )

    async def _session(self) -> None:
        client = self._new_client()
        try:
            await asyncio.wait_for(client.start(), START_TIMEOUT_S)
            self._readiness.hold("kafka")
            if await self._topic_exists(client):
                await self._consume(client)
        finally:
            await self._close(client)

    async def _consume(self, client: AIOKafkaConsumer) -> None:
        committer = Committer(client, self._settings, self._metrics)
        async with asyncio.TaskGroup() as group:
            assignment = Assignment(
                client, group, self._sink, committer, self._settings, self._readiness, self._metrics
            )
            client.subscribe([self._settings.kafka_topic], listener=assignment)
            clock = group.create_task(committer.run(assignment.table))
            poll = group.create_task(self._poll(client, assignment, committer))
            lag = group.create_task(committer.watch_lag(assignment.table))
            stop = group.create_task(self._stopping.wait())
            try:
                # All of them, not only `stop`: a task group says nothing of a task that was cancelled from inside the
                # client, and a session without its poll or its clock would stand still in silence.
                await asyncio.wait({stop, poll, clock, lag}, return_when=asyncio.FIRST_COMPLETED)
                if not self._stopping.is_set():  # and not `stop.done()`: the poll may see the event first and end first
                    raise ConsumerStoppedError("a task of the session ended by itself")
                # A poll in the middle of a rebalance, or without a broker, may not return for long.
                await asyncio.wait({poll}, timeout=POLL_STOP_TIMEOUT_S)
            finally:
                stop.cancel()
                lag.cancel()
                if not poll.done():
                    committer.distrust_positions()
                    poll.cancel()
                clock.cancel()
                await assignment.leave()

    async def _poll(self, client: AIOKafkaConsumer, assignment: Assignment, committer: Committer) -> None:
        nobody = TopicPartition(self._settings.kafka_topic, -1)  # asked for when none has room: an empty list means all
        while not self._stopping.is_set():
            hungry, records_max = assignment.hungry()
            try:
                polled = await client.getmany(
                    *(hungry or [nobody]),
                    timeout_ms=POLL_TIMEOUT_MS if hungry else FULL_POLL_TIMEOUT_MS,
                    max_records=records_max,
                )
            except BaseException:
                committer.distrust_positions()
                raise
            assignment.admit(polled)
            self._sink.health.settle(time.monotonic())
            self._say_whether_topic_is_there(client)

    def _topic_missing(self) -> str:
        return f"KAFKA_TOPIC={self._settings.kafka_topic} does not exist; make it with `spillway-uploader topics`"

    def _say_whether_topic_is_there(self, client: AIOKafkaConsumer) -> None:
        """As the client's metadata has it, which is at most half a minute old: a topic may be deleted under us."""
        if client.partitions_for_topic(self._settings.kafka_topic):
            self._readiness.hold("topic")
        else:
            self._readiness.fail("topic", self._topic_missing())

    async def _topic_exists(self, client: AIOKafkaConsumer) -> bool:
        """Wait for the topic; False when told to stop meanwhile."""
        topic = self._settings.kafka_topic
        reason = self._topic_missing()
        said = False
        while not self._stopping.is_set():
            if topic in await client.topics():
                self._readiness.hold("topic")
                return True
            self._readiness.fail("topic", reason)
            if not said:
                log.warning("waiting for the topic", extra={"cause": reason})
                said = True
            await self._pause(TOPIC_CHECK_S)
        return False

    async def _pause(self, seconds: float) -> None:
        """Wait, or return at once when told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _close(self, client: AIOKafkaConsumer) -> None:
        """Close the client; `stop()` can hang when the broker is frozen, so it is bounded."""
        try:
            await asyncio.wait_for(client.stop(), STOP_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            log.warning("the Kafka client did not close cleanly", extra={"cause": repr(error)})


def _first(error: BaseException) -> BaseException:
    """The first cause inside an exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
