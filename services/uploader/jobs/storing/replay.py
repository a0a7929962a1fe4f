"""A job that stores a range of a topic again: its sessions, its commits, its end.

Outside the live group, with the same window, store and keys as `run` (DESIGN §8). What is committed under the job's own
group is a contiguous prefix, as everywhere, so a killed job goes on where it was. After any error of the Kafka client
the session ends and a new one starts from what is settled: the client may have passed over records.

Does not decide what is read (`spans`), what becomes of a record (`sink`), or what a job is called.
"""

import asyncio
import contextlib
import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, UnknownTopicOrPartitionError

from services.uploader.appetite import appetite
from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs.display import Display
from services.uploader.jobs.span import Span
from services.uploader.jobs.span_reader import SpanReader
from services.uploader.jobs.storing.ledger import Ledger
from services.uploader.jobs.storing.lookout import Lookout
from services.uploader.jobs.storing.state import PartitionState
from services.uploader.jobs.storing.tally import NotStored, Tally
from services.uploader.jobs.topic_log import START_TIMEOUT_S, RangeError, close_client
from services.uploader.partition import Partition, Sink
from services.uploader.settings import UploaderSettings
from services.uploader.topic_view import TopicView
from shared.ops import Readiness

log = logging.getLogger(__name__)

SESSION_PAUSE_S = 1.0
FULL_POLL_TIMEOUT_MS = 20
TOPIC_CHECK_S = 2.0
REFRESH_S = 3600.0
"""How often everything is committed again, moved or not."""

Matches = Callable[[ConsumerRecord], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a job is to do.

    Attributes:
        topic: that is read.
        spans: by partition, as far as they are not settled yet.
        states: by partition: what the job's commits said when this run began.
        matches: whether a record is meant; the others are passed over.
        named: offsets of which each must be a record that is met, by partition, in order; None: none is named.

    """

    topic: str
    spans: Mapping[int, Sequence[Span]]
    states: Mapping[int, PartitionState]
    matches: Matches
    named: Mapping[int, Sequence[int]] | None = None


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        states: how far everything is settled, as this process knows.
        stopped: by a signal.
        failed: why it gave up; empty if it did not.
        uncommitted: whether Kafka has not been told all of it: a resume would do some of it again.

    """

    states: dict[int, PartitionState]
    stopped: bool = False
    failed: str = ""
    uncommitted: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything in range that Kafka still has was settled."""
        return all(state.left == 0 for state in self.states.values())


class Replay:
    """One run of a job."""

    def __init__(
        self,
        settings: UploaderSettings,
        work: Work,
        sink: Sink,
        tally: Tally,
        readiness: Readiness,
        display: Display,
        new_client: Callable[[], AIOKafkaConsumer],
        new_view: Callable[[], TopicView],
        *,
        give_up_after_s: float,
        keeps_state: bool = True,
    ) -> None:
        """Wire the run.

        Args:
            settings: of the uploader.
            work: what is to be done.
            sink: what the records are put with.
            tally: which the sink's parts count in.
            readiness: in which `s3` tells why puts fail.
            display: where it shows.
            new_client: makes a consumer with the job's group, not started.
            new_view: makes a view of the topic that is read, not started.
            give_up_after_s: without a record settled for so long, it ends.
            keeps_state: whether what is settled is committed; else a killed run begins anew, and needs no group.

        """
        self._settings = settings
        self._work = work
        self._sink = sink
        self._tally = tally
        self._lookout = Lookout(work.states, tally, sink.health, readiness, display, give_up_after_s=give_up_after_s)
        self._new_client = new_client
        self._new_view = new_view
        self._ledger = Ledger(work.topic, work.states, tally, keeps_state=keeps_state)
        self._recognised = False  # whether the topic was still the same one once all was settled
        self._stopping = asyncio.Event()
        self._failed = ""  # why it ends before its end

    def stop(self) -> None:
        """Ask `run()` to finish what is on the wire, commit, and return."""
        self._stopping.set()

    async def run(self) -> Outcome:
        """Work until everything is settled, until `stop()`, or until nothing moves any more."""
        lookout = asyncio.create_task(self._lookout.run(self._give_up))
        try:
            while not self._stopping.is_set() and (self._ledger.left or not self._recognised):
                await self._try_session()
            await self._ledger.commit_last(self._new_client)
        finally:
            lookout.cancel()
            await asyncio.wait({lookout})
            self._lookout.close()
        if not self._failed and not self._ledger.left and not self._recognised:
            self._failed = "it ended before it could be told whether the topic is still the same one"
        stopped = self._stopping.is_set() and not self._failed
        return Outcome(self._ledger.states, stopped=stopped, failed=self._failed, uncommitted=bool(self._ledger.untold))

    async def _try_session(self) -> None:
        """One session; what fails in it is told, and the next one begins after a pause."""
        try:
            try:
                await self._session()
            except asyncio.CancelledError:
                if cancelled_from_outside():
                    raise
                raise ConsumerStoppedError("the client cancelled itself") from None
        except* (KafkaError, TimeoutError, OSError) as errors:
            self._lookout.trouble = f"Kafka: {errors.exceptions[0]!r}"
            log.warning("the session ended; a new one begins", extra={"cause": self._lookout.trouble})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SESSION_PAUSE_S):
                    await self._stopping.wait()
        except* RangeError as errors:
            self._give_up(str(errors.exceptions[0]))

    def _give_up(self, why: str) -> None:
        if not self._stopping.is_set():
            self._failed = why
            self._stopping.set()

    def _remaining(self, partition: int) -> list[Span]:
        """The spans from what is settled on."""
        settled = self._ledger.settled[partition]
        return [
            Span(partition, max(span.begin, settled), span.end)
            for span in self._work.spans[partition]
            if span.end > settled
        ]

    async def _session(self) -> None:
        client, view = self._new_client(), self._new_view()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await client.start()
                await view.start()
            await self._recognise(view)
            ends = {number: state.end for number, state in self._work.states.items()}
            reader = SpanReader(client, self._work.topic, {p: self._remaining(p) for p in self._work.spans}, ends)
            reader.start()
            self._ledger.tell_anew()
            await self._store_all(client, reader, view)
            await self._recognise(view)
            self._recognised = not self._ledger.left
        finally:
            await close_client(client.stop)
            await close_client(view.close)

    async def _recognise(self, view: TopicView) -> None:
        """That the topic is the one that the range was closed on.

        Raises:
            RangeError: it was deleted and made anew: its offsets are other records.
            KafkaError: it could not be asked, or is gone for now.

        """
        expected = next((state.topic_id for state in self._work.states.values()), None)
        if expected is None:
            return
        async with asyncio.timeout(START_TIMEOUT_S):
            found = await view.topic_id()
        if found is None:
            raise UnknownTopicOrPartitionError(self._work.topic)
        if found != expected:
            raise RangeError(
                f"topic {self._work.topic} was deleted and made anew meanwhile: its offsets are other records"
            )

    async def _watch_topic(self, view: TopicView) -> None:
        while True:
            await asyncio.sleep(TOPIC_CHECK_S)
            with contextlib.suppress(KafkaError, TimeoutError, OSError):  # asked again soon, and at the end in any case
                await self._recognise(view)

    async def _store_all(self, client: AIOKafkaConsumer, reader: SpanReader, view: TopicView) -> None:
        async with asyncio.TaskGroup() as group:
            table = {
                number: Partition(TopicPartition(self._work.topic, number), self._sink, group)
                for number in self._work.spans
            }
            for number, partition in table.items():
                partition.start_at(reader.position(number), self._ledger.settled[number])
            clocks = [
                group.create_task(self._commit_often(client, table)),
                group.create_task(self._watch_topic(view)),
            ]
            try:
                await self._poll(reader, table)
            finally:
                for clock in clocks:
                    clock.cancel()
                await asyncio.gather(*(each.close(self._settings.drain_timeout_s) for each in table.values()))
                self._ledger.take_stock(table)
                await self._ledger.commit(client)

    async def _poll(self, reader: SpanReader, table: Mapping[int, Partition]) -> None:
        """Read as there is room; return once everything read is settled, or when told to stop."""
        while not self._stopping.is_set():
            unfinished = set(reader.unfinished())
            if not unfinished and not any(len(partition.window) for partition in table.values()):
                self._follow(reader, table)
                return
            for number in table.keys() - unfinished:
                table[number].positioned = False  # what it holds in memory counts on; more it does not want
            hungry, records_max = appetite(table.values(), self._settings)
            before = {partition.tp.partition: reader.position(partition.tp.partition) for partition in hungry}
            polled = await reader.poll(
                before,
                records_max=max(1, records_max),
                timeout_ms=200 if hungry else FULL_POLL_TIMEOUT_MS,
            )
            for one in reader.take_gone():  # before anything is settled past it
                self._ledger.gone(one)
                log.error("retention was faster", extra={"gone": str(one)})
            self._lookout.trouble = ""
            for number, records in polled.items():
                meant = [record for record in records if self._work.matches(record)]
                self._tally.skipped += len(records) - len(meant)
                self._miss(number, range(before[number], reader.position(number)), records)
                table[number].admit(meant)
            self._follow(reader, table)

    def _miss(self, number: int, passed: range, records: Sequence[ConsumerRecord]) -> None:
        """Tell of the offsets that were named, and of which Kafka has no record: aborted, compacted, or gone."""
        if self._work.named is None:
            return
        met = {record.offset for record in records}
        named = self._work.named[number]
        for offset in named[bisect_left(named, passed.start) : bisect_left(named, passed.stop)]:
            if offset not in met:
                self._tally.not_stored.append(NotStored(number, offset, "no_record", "Kafka has no record there"))

    def _follow(self, reader: SpanReader, table: Mapping[int, Partition]) -> None:
        """With nothing in memory, what was read is settled: holes, and what was not meant."""
        for number, partition in table.items():
            partition.window.follow(reader.position(number))
            if partition.window.committable is not None:
                self._lookout.stored_to(number, partition.window.committable)

    async def _commit_often(self, client: AIOKafkaConsumer, table: Mapping[int, Partition]) -> None:
        loop = asyncio.get_running_loop()
        refreshed_s = loop.time()
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            if loop.time() - refreshed_s > REFRESH_S:
                refreshed_s = loop.time()
                self._ledger.tell_anew()
            self._ledger.take_stock(table)
            await self._ledger.commit(client)
