"""A job that stores a range of a topic again: its sessions, its commits, its end.

Outside the live group, with the same window, store and keys as `run` (DESIGN §8). What is committed under the job's own
group is a contiguous prefix, as everywhere, so a killed job goes on where it was. After any error of the Kafka client
the session ends and a new one starts from the last commit: the client may have passed over records.

Does not decide what is read (`spans`), what becomes of a record (`sink`), or what a job is called.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from services.uploader.appetite import appetite
from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs import connections
from services.uploader.jobs.display import Display
from services.uploader.jobs.span import Span
from services.uploader.jobs.storing.lookout import Lookout
from services.uploader.jobs.storing.state import PartitionState, Progress
from services.uploader.jobs.storing.tally import Tally
from services.uploader.jobs.topic_log import RangeError, SpanReader
from services.uploader.partition import Partition, Sink
from services.uploader.settings import COMMIT_TIMEOUT_S, UploaderSettings
from shared.ops import Readiness

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0
SESSION_PAUSE_S = 1.0
FULL_POLL_TIMEOUT_MS = 20

Matches = Callable[[ConsumerRecord], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a job is to do.

    Attributes:
        topic: that is read.
        spans: by partition, as far as they are not settled yet.
        states: by partition: what the job's commits said when this run began.
        matches: whether a record is meant; the others are passed over.

    """

    topic: str
    spans: Mapping[int, Sequence[Span]]
    states: Mapping[int, PartitionState]
    matches: Matches


@dataclass(slots=True)
class Outcome:
    """How a run ended. `stopped`: by a signal; `failed`: why it gave up, empty if it did not."""

    states: dict[int, PartitionState]
    stopped: bool = False
    failed: str = ""

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
            give_up_after_s: without a record settled for so long, it ends.
            keeps_state: whether what is settled is committed; else a killed run begins anew, and needs no group.

        """
        self._settings = settings
        self._work = work
        self._sink = sink
        self._tally = tally
        self._lookout = Lookout(work.states, tally, sink.health, readiness, display, give_up_after_s=give_up_after_s)
        self._new_client = new_client
        self._keeps_state = keeps_state
        self._progress = {partition: Progress(state) for partition, state in work.states.items()}
        self._settled = {partition: state.settled for partition, state in work.states.items()}  # as committed
        self._stopping = asyncio.Event()
        self._failed = ""  # why it ends before its end

    def stop(self) -> None:
        """Ask `run()` to finish what is on the wire, commit, and return."""
        self._stopping.set()

    async def run(self) -> Outcome:
        """Work until everything is settled, until `stop()`, or until nothing moves any more."""
        lookout = asyncio.create_task(self._lookout.run(self._give_up))
        try:
            while not self._stopping.is_set() and self._left():
                await self._try_session()
        finally:
            lookout.cancel()
            await asyncio.wait({lookout})
            self._lookout.close()
        states = {partition: progress.at(self._settled[partition]) for partition, progress in self._progress.items()}
        stopped = self._stopping.is_set() and not self._failed
        return Outcome(states, stopped=stopped, failed=self._failed)

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

    def _left(self) -> bool:
        return any(self._settled[partition] < state.end for partition, state in self._work.states.items())

    def _remaining(self, partition: int) -> list[Span]:
        """The spans from the last commit on."""
        settled = self._settled[partition]
        return [
            Span(partition, max(span.begin, settled), span.end)
            for span in self._work.spans[partition]
            if span.end > settled
        ]

    async def _session(self) -> None:
        client = self._new_client()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await client.start()
            ends = {number: state.end for number, state in self._work.states.items()}
            reader = SpanReader(client, self._work.topic, {p: self._remaining(p) for p in self._work.spans}, ends)
            reader.start()
            await self._store_all(client, reader)
        finally:
            await connections.close(client.stop)

    async def _store_all(self, client: AIOKafkaConsumer, reader: SpanReader) -> None:
        async with asyncio.TaskGroup() as group:
            table = {
                number: Partition(TopicPartition(self._work.topic, number), self._sink, group)
                for number in self._work.spans
            }
            for number, partition in table.items():
                partition.start_at(reader.position(number), self._settled[number])
            clock = group.create_task(self._commit_often(client, table))
            try:
                await self._poll(reader, table)
            finally:
                clock.cancel()
                await asyncio.gather(*(each.close(self._settings.drain_timeout_s) for each in table.values()))
                await self._commit(client, table)

    async def _poll(self, reader: SpanReader, table: Mapping[int, Partition]) -> None:
        """Read as there is room; return once everything read is settled, or when told to stop."""
        while not self._stopping.is_set():
            unfinished = set(reader.unfinished())
            if not unfinished and not any(len(partition.window) for partition in table.values()):
                self._follow(reader, table)
                return
            for one in reader.take_gone():
                self._progress[one.partition].gone.append(one)
                log.error("retention was faster", extra={"gone": str(one)})
            for number in table.keys() - unfinished:
                table[number].positioned = False  # what it holds in memory counts on; more it does not want
            hungry, records_max = appetite(table.values(), self._settings)
            polled = await reader.poll(
                [partition.tp.partition for partition in hungry],
                records_max=max(1, records_max),
                timeout_ms=200 if hungry else FULL_POLL_TIMEOUT_MS,
            )
            self._lookout.trouble = ""
            for number, records in polled.items():
                meant = [record for record in records if self._work.matches(record)]
                self._tally.skipped += len(records) - len(meant)
                table[number].admit(meant)
            self._follow(reader, table)

    def _follow(self, reader: SpanReader, table: Mapping[int, Partition]) -> None:
        """With nothing in memory, what was read is settled: holes, and what was not meant."""
        for number, partition in table.items():
            partition.window.follow(reader.position(number))
            if partition.window.committable is not None:
                self._lookout.stored_to(number, partition.window.committable)

    # -- commits

    async def _commit_often(self, client: AIOKafkaConsumer, table: Mapping[int, Partition]) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            await self._commit(client, table)

    async def _commit(self, client: AIOKafkaConsumer, table: Mapping[int, Partition]) -> None:
        """Commit what moved. A failure is met again at the next, or by the next session."""
        moved: dict[int, PartitionState] = {}
        for number, partition in table.items():
            at = partition.window.committable
            if at is None or at <= self._settled[number]:
                continue
            progress = self._progress[number]
            progress.refused = {one.offset for one in self._tally.not_stored if one.partition == number}
            moved[number] = progress.at(min(at, progress.state.end))
        if not moved:
            return
        if self._keeps_state and not await self._write(client, moved):
            return
        self._settled |= {number: state.settled for number, state in moved.items()}

    async def _write(self, client: AIOKafkaConsumer, states: Mapping[int, PartitionState]) -> bool:
        offsets = {TopicPartition(self._work.topic, n): (state.settled, state.note()) for n, state in states.items()}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await client.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            log.warning("a commit failed; its records may be stored again", extra={"cause": repr(error)})
            return False
        return True
