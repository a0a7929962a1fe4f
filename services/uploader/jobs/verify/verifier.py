"""Compares a range of a topic with a bucket: reads the records, asks for their objects, tells what is not as it should.

Owns the reading, the chunks and the retries of questions. Writes nothing to Kafka or S3 and keeps nothing but counts:
each finding is handed on at once. What a listing does not have is asked for once more: the live group may have stored
it meanwhile.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from services.uploader.cancellation import first_cause
from services.uploader.errors import ConfigurationError, StoreError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Expected, Finding, Told
from services.uploader.jobs.bucket.listing import Group, Walk, plan
from services.uploader.jobs.options import GIVE_UP_AFTER_S
from services.uploader.jobs.span import Gone, Span
from services.uploader.jobs.span_reader import SpanReader
from services.uploader.keys import KeyTemplate
from services.uploader.retry import TRANSIENT
from shared.record import Record

T = TypeVar("T")

CHUNK = 50_000
"""Records compared at a time: some 25 MB of what is expected, and long runs of keys in each prefix."""

QUESTIONS_MAX = 64
"""Questions to S3 at a time."""

TRIES_MAX = 6
"""Of one question: with their pauses some 3 s on average, 6 s at most."""


FORBIDDEN_MAX = 10
"""Questions that S3 refuses before it has answered any: then it is the settings, and not single objects."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A record whose object is not as it should be. `finding` None: it could not be told."""

    expected: Expected
    finding: Finding | None
    why: str


@dataclass(slots=True)
class Counts:
    """What was found, in records.

    Attributes:
        records: compared, or tried to be.
        bytes: of their values.
        tombstones: records without a value, which need no object.
        passed_over: records that a filter left out.
        same: as they should be.
        missing: without an object.
        different: with another one.
        unknown: that could not be told.
        listed: told by listings alone.
        gone: what Kafka lost while it was read.

    """

    records: int = 0
    bytes: int = 0
    tombstones: int = 0
    passed_over: int = 0
    same: int = 0
    missing: int = 0
    different: int = 0
    unknown: int = 0
    listed: int = 0
    gone: list[Gone] = field(default_factory=list)


class Verifier:
    """One comparison."""

    def __init__(
        self,
        checker: Checker,
        keys: KeyTemplate,
        read: Callable[[ConsumerRecord], Record],
        matches: Callable[[Record], bool],
        found: Callable[[Fault], None],
        *,
        lists: bool,
        before_ms: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            checker: asks the bucket.
            keys: of the objects.
            read: makes a record of what is polled.
            matches: whether a record is meant.
            found: takes each fault.
            lists: whether listings may be used; else each object is asked for.
            before_ms: records of this time or later are not meant; None: all are.

        """
        self.counts = Counts()
        self._checker = checker
        self._keys = keys
        self._read = read
        self._matches = matches
        self._found = found
        self._lists = lists
        self._before_ms = before_ms
        self._questions = asyncio.Semaphore(QUESTIONS_MAX)
        self._answered_s: float | None = None  # when S3 last answered a question, monotonic; None: never
        self._began_s = time.monotonic()
        self._forbidden = 0  # questions that it has refused
        self._chunk: list[Expected] = []  # read, not compared yet
        self._chunk_tombstones = self._chunk_passed_over = 0  # read with it

    async def look_at_bucket(self) -> None:
        """See `Checker.look_at_bucket`; asked for some times."""
        await self._tried(self._checker.look_at_bucket)

    async def compare(
        self,
        client: AIOKafkaConsumer,
        topic: str,
        spans: Mapping[int, Span],
        moved: Callable[[Mapping[int, int]], None],
    ) -> None:
        """Read the spans and compare them.

        Args:
            client: started, assigned to nobody.
            topic: that is read.
            spans: by partition.
            moved: is told the positions below which everything was compared; none of them while it reads on.

        Raises:
            KafkaError: it was not read to its end; `moved` has said how far it came.
            ConfigurationError: the bucket cannot be asked at all.
            UnwritableFileError: or whatever else `found` raises.

        """
        reader = SpanReader(client, topic, {number: [span] for number, span in spans.items()})
        reader.start()
        while reader.unfinished():
            for records in (await reader.poll(reader.unfinished())).values():
                for raw in records:
                    self._expect(raw)
            self.counts.gone += reader.take_gone()
            moved({})
            if len(self._chunk) >= CHUNK:
                await self._compare_chunk()
                moved({number: reader.position(number) for number in spans})
        await self._compare_chunk()
        moved({number: reader.position(number) for number in spans})

    def forget(self) -> None:
        """Drop what was read and not compared: it is read again."""
        self._chunk.clear()
        self._chunk_tombstones = self._chunk_passed_over = 0

    def _expect(self, raw: ConsumerRecord) -> None:
        record = self._read(raw)
        late = self._before_ms is not None and raw.timestamp >= self._before_ms
        if late or not self._matches(record):
            self._chunk_passed_over += 1
        elif record.value is None:
            self._chunk_tombstones += 1
        else:
            self._chunk.append(
                Expected.of(
                    partition=raw.partition,
                    offset=raw.offset,
                    key=self._keys.key(record),
                    record_id=record.id,
                    body=record.value,
                    kind=self._checker.kind,
                )
            )

    # -- one chunk

    async def _compare_chunk(self) -> None:
        chunk = self._chunk
        groups, singles = plan(chunk, lists=self._lists)
        unlisted: list[Expected] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups:
                    tasks.create_task(self._list(group, unlisted))
            await self._ask_each((*singles, *unlisted))
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from None
        self.counts.records += len(chunk)
        self.counts.bytes += sum(expected.size_bytes for expected in chunk)
        self.counts.tombstones += self._chunk_tombstones
        self.counts.passed_over += self._chunk_passed_over
        self.forget()

    async def _list(self, group: Group, unlisted: list[Expected]) -> None:
        """Walk through the group's listing; what it does not settle goes to `unlisted`."""
        walk = Walk.of(group)
        async with self._questions:
            while not walk.done:
                self._checker.requests.lists += 1
                try:
                    page, more = await self._tried(lambda: self._checker.objects.page(group.prefix, walk.after))
                except StoreError:
                    break  # one by one they may be told
                self._answered_s = time.monotonic()
                for expected, listed in walk.feed(page, more=more):
                    told = None if listed is None else self._checker.by_listing(expected, listed)
                    if told is None:
                        unlisted.append(expected)
                    else:
                        self.counts.listed += 1
                        self._tell(expected, told)
        unlisted += walk.rest

    async def _ask_each(self, wanted: Iterable[Expected]) -> None:
        waiting = iter(wanted)

        async def work() -> None:
            for expected in waiting:
                await self._ask(expected)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(QUESTIONS_MAX):
                tasks.create_task(work())

    async def _ask(self, expected: Expected) -> None:
        try:
            told = await self._tried(lambda: self._checker.tell(expected))
        except StoreError as error:
            self._forbidden += isinstance(error, ConfigurationError)
            if self._forbidden >= FORBIDDEN_MAX and self._answered_s is None:
                raise  # a word on the settings, and on no object
            if time.monotonic() - (self._answered_s or self._began_s) > GIVE_UP_AFTER_S:
                raise  # S3 is away: to ask for each object would take hours
            self.counts.unknown += 1
            self._found(Fault(expected, None, f"{error.reason}: {error}"))
        else:
            self._answered_s = time.monotonic()
            self._tell(expected, told)

    async def _tried(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer, asked for up to TRIES_MAX times."""
        attempt = 1
        while True:
            try:
                return await question()
            except ConfigurationError:
                raise
            except StoreError:
                if attempt >= TRIES_MAX:
                    raise
            await asyncio.sleep(TRANSIENT.delay_s(attempt, random.random()))  # noqa: S311 - jitter, not a secret
            attempt += 1

    def _tell(self, expected: Expected, told: Told) -> None:
        match told.finding:
            case Finding.SAME:
                self.counts.same += 1
                return
            case Finding.MISSING:
                self.counts.missing += 1
            case Finding.DIFFERENT:
                self.counts.different += 1
        self._found(Fault(expected, told.finding, told.why))
