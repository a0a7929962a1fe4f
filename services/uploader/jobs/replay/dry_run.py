"""What a replay would do: offsets, times, records, bytes, cost and time, from a short probe. Writes nothing.

The probe reads the beginning of each span for a few seconds, and asks S3 for the objects of what it read, as many at
once as the replay would put: a HEAD costs S3 and this process about what a PUT does.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from services.uploader.cancellation import first_cause
from services.uploader.errors import StoreError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Expected, Finding
from services.uploader.jobs.replay.plan import Probe
from services.uploader.jobs.span import Span
from services.uploader.jobs.span_reader import SpanReader
from services.uploader.keys import KeyTemplate
from services.uploader.partition import read_record

READ_S = 3.0
ASK_S = 2.0
KEPT_MAX = 5000  # records whose objects may be asked for


@dataclass(slots=True)
class Sample:
    """What the probe read. `times_ms`: of the first record, by partition."""

    offsets: int = 0
    records: int = 0
    matching: int = 0
    bytes: int = 0
    times_ms: dict[int, int] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)


async def read_sample(
    client: AIOKafkaConsumer,
    topic: str,
    spans: Mapping[int, Sequence[Span]],
    keys: KeyTemplate,
    checker: Checker,
    matches: Callable[[ConsumerRecord], bool],
) -> Sample:
    """Read for READ_S at most, a little of each partition in turn."""
    sample = Sample()
    reader = SpanReader(client, topic, spans)
    reader.start()
    until_s = time.monotonic() + READ_S
    while reader.unfinished() and time.monotonic() < until_s:
        before = {number: reader.position(number) for number in spans}
        for number, records in (await reader.poll(reader.unfinished())).items():
            sample.offsets += reader.position(number) - before[number]
            for record in records:
                _count(sample, record, keys, checker, matches)
    return sample


def _count(
    sample: Sample,
    raw: ConsumerRecord,
    keys: KeyTemplate,
    checker: Checker,
    matches: Callable[[ConsumerRecord], bool],
) -> None:
    sample.times_ms.setdefault(raw.partition, raw.timestamp)
    if raw.value is None:
        return
    sample.records += 1
    if not matches(raw):
        return
    sample.matching += 1
    sample.bytes += len(raw.value)
    if len(sample.expected) < KEPT_MAX:
        record = read_record(raw)
        sample.expected.append(
            Expected.of(
                partition=raw.partition,
                offset=raw.offset,
                key=keys.key(record),
                record_id=record.id,
                body=raw.value,
                kind=checker.kind,
            )
        )


async def ask(sample: Sample, checker: Checker, in_flight_max: int) -> Probe:
    """Ask S3 for ASK_S at most."""
    waiting = iter(sample.expected)
    missing = asked = 0
    began_s = time.monotonic()
    until_s = began_s + ASK_S

    async def work() -> None:
        nonlocal missing, asked
        for expected in waiting:
            if time.monotonic() >= until_s:
                return
            told = await checker.tell(expected)
            asked += 1
            missing += told.finding is not Finding.SAME

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight_max):
                group.create_task(work())
    except* StoreError as errors:
        raise first_cause(errors) from None
    passed_s = time.monotonic() - began_s
    return Probe(
        offsets=sample.offsets,
        records=sample.records,
        matching=sample.matching,
        bytes=sample.bytes,
        requests_a_second=asked / passed_s if asked else None,
        missing=missing,
        asked=asked,
    )
