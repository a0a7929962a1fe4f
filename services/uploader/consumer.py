"""The group consumer: one session after another, each the life of one Kafka client, from the committed offsets on.

Owns the client's start, polling and end. What it polls goes to the session's `Assignment`; what is stored is committed
by its `Committer`. After an unexpected error the client is closed and a new session begins: after any exception from
`getmany`, aiokafka's own idle clock reads 0 for ever, and a stuck consumer would never be evicted.

Invariants, each of which has lost data in other sinks (DESIGN §7):
- No await between `getmany` returning and admission.
- The poll task only polls, and a poll is cancelled only together with its client.
- A position is trusted as committable only while no poll failed: a failing one may have moved it past records that it
  did not return. A position out of range is no such failure: aiokafka raises it instead of an answer, and the partition
  goes on, with what is in memory, where the log begins now.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError

from services.uploader.assignment import Assignment
from services.uploader.cancellation import cancelled_from_outside, first_cause
from services.uploader.committer import Committer
from services.uploader.partition import Sink
from services.uploader.settings import UploaderSettings
from services.uploader.topic_view import TopicView, commit_note
from services.uploader.watch import TopicRemadeError, Watch, WedgedClientError
from shared.kafka import connection_options
from shared.kafka_trouble import explain, in_words
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
HEARTBEAT_S = 1.0
"""A member learns of a rebalance from the answer to a heartbeat: this is how long the others wait for it at most."""

END_MARGIN_S = 35.0
"""How much longer than the drain a session's end may take, in seconds: more than two commits and the closing of both
clients. What still hangs then cannot be ended from inside the process."""


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
        heartbeat_interval_ms=round(HEARTBEAT_S * 1000),
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
        new_view: Callable[[], TopicView],
        give_up: Callable[[str], None],
    ) -> None:
        """Wire the consumer.

        Args:
            settings: of the uploader.
            sink: what every partition puts its records with.
            readiness: gets `kafka`, `topic`, `assignment`, `progress`.
            metrics: of the uploader.
            new_client: makes the client of a session.
            new_view: makes its view of the topic.
            give_up: ends the process, with this message, where a session cannot be ended.

        """
        self._settings = settings
        self._sink = sink
        self._readiness = readiness
        self._metrics = metrics
        self._new_client = new_client
        self._new_view = new_view
        self._give_up = give_up
        self._topic_id: str | None = None  # of the last session that could tell
        self._stopping = asyncio.Event()

    @property
    def end_timeout_s(self) -> float:
        """How long a session's end may take, in seconds."""
        return self._settings.drain_timeout_s + END_MARGIN_S

    def stop(self) -> None:
        """Ask `run()` to drain, commit, leave the group and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop()`. Whatever fails meanwhile, a new session begins after a pause."""
        self._metrics.kafka_answered.set(time.time())  # asked from now on: a silence from the start is one, too
        while not self._stopping.is_set():
            try:
                await self._session()
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise
                # aiokafka cancels tasks of its own and awaits them: that is its end, and not ours.
                self._failed(ConsumerStoppedError("the client cancelled itself"))
                await self._pause(SESSION_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - every error ends in a new session; none ends the process
                self._failed(first_cause(error))
                await self._pause(SESSION_PAUSE_S)

    def _failed(self, cause: BaseException) -> None:
        brokers = self._settings.kafka_bootstrap_servers
        self._metrics.consumer_restarts.inc()
        if isinstance(cause, TopicRemadeError):
            log.warning("the session ends", extra={"cause": str(cause)})  # the next one counts it
            return
        words = f"{type(cause).__name__}: {explain(cause)}"
        self._readiness.fail("kafka", f"KAFKA_BOOTSTRAP_SERVERS={brokers}: {words}")
        expected = isinstance(cause, KafkaError | TimeoutError | WedgedClientError)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "the Kafka consumer failed; making a new one",
            extra={"cause": words, "brokers": brokers},
            exc_info=None if expected else cause,
        )

    async def _session(self) -> None:
        client, view = self._new_client(), self._new_view()
        try:
            options = connection_options(self._settings)
            async with in_words(options), asyncio.timeout(START_TIMEOUT_S):
                await client.start()
            async with in_words(options), asyncio.timeout(START_TIMEOUT_S):
                await view.start()
            self._metrics.kafka_answered.set(time.time())
            self._readiness.hold("kafka")
            if await self._topic_exists(client):
                # Before the group is joined: a commit of this session is never for a younger topic than its note says.
                async with asyncio.timeout(START_TIMEOUT_S):
                    topic_id = await view.topic_id()
                self._recognise(topic_id)
                await self._consume(client, view, topic_id)
        finally:
            with self._bounded_end("closing the Kafka client"):
                await self._close(client, view)

    def _recognise(self, topic_id: str | None) -> None:
        """Tell of a topic that was made anew since the last session, whatever has ended that one: the lookout need not
        have been the first to meet it.
        """
        if topic_id is None:  # gone for now, or the broker is too old to tell
            return
        if self._topic_id is not None and topic_id != self._topic_id:
            self._metrics.topic_remade.inc()
            log.error(
                "the topic was made anew",
                extra={"topic": self._settings.kafka_topic, "topic_id": topic_id, "before": self._topic_id},
            )
        self._topic_id = topic_id

    @contextlib.contextmanager
    def _bounded_end(self, what: str) -> Iterator[None]:
        """End the process where the body hangs: a task inside the client that ignores its cancellation, say."""
        loop = asyncio.get_running_loop()
        bound_s = self.end_timeout_s
        timer = loop.call_later(bound_s, self._give_up, f"{what} took longer than {bound_s:g} s")
        try:
            yield
        finally:
            timer.cancel()

    async def _consume(self, client: AIOKafkaConsumer, view: TopicView, topic_id: str | None) -> None:
        committer = Committer(client, self._settings, self._metrics, commit_note(topic_id))
        watch = Watch(client, view, topic_id, committer, self._settings, self._readiness, self._metrics)
        with contextlib.ExitStack() as ending:
            async with asyncio.TaskGroup() as group:
                assignment = Assignment(
                    client, view, topic_id, group, self._sink, committer, self._settings, self._readiness, self._metrics
                )
                client.subscribe([self._settings.kafka_topic], listener=assignment)
                clock = group.create_task(committer.run(assignment.table))
                poll = group.create_task(self._poll(client, assignment, committer))
                lookout = group.create_task(watch.run(assignment))
                stop = group.create_task(self._stopping.wait())
                try:
                    # All of them, not only `stop`: a task group says nothing of a task that was cancelled from inside
                    # the client, and a session without its poll or its clock would stand still in silence.
                    await asyncio.wait({stop, poll, clock, lookout}, return_when=asyncio.FIRST_COMPLETED)
                    if not self._stopping.is_set():  # and not `stop.done()`: the poll may see the event and end first
                        raise ConsumerStoppedError("a task of the session ended by itself")
                    # A poll in the middle of a rebalance, or without a broker, may not return for long.
                    await asyncio.wait({poll}, timeout=POLL_STOP_TIMEOUT_S)
                finally:
                    ending.enter_context(self._bounded_end("ending the session"))
                    stop.cancel()
                    lookout.cancel()
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
                assignment.admit(polled)
            except OffsetOutOfRangeError as error:
                assignment.out_of_range(error.args[0])
            except BaseException:
                committer.distrust_positions()
                raise
            self._sink.health.settle(time.time())
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
            topics = await client.topics()
            self._metrics.kafka_answered.set(time.time())
            if topic in topics:
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
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _close(self, client: AIOKafkaConsumer, view: TopicView) -> None:
        """Close both clients; `stop()` can hang when the broker is frozen, so each is bounded."""
        for close in (client.stop, view.close):
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await close()
            except asyncio.CancelledError as error:
                if cancelled_from_outside():
                    raise
                log.warning("the Kafka client did not close cleanly", extra={"cause": repr(error)})
            except Exception as error:  # noqa: BLE001 - it is thrown away in any case, and the other one must be closed
                log.warning("the Kafka client did not close cleanly", extra={"cause": repr(error)})
