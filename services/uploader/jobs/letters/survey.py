"""Reads a range of the dead-letter topic, and asks S3 what is there of it by now. Writes nothing, joins no group.

Asks as many at once as a job puts. A question that fails for a reason that passes by itself is asked again a few times;
whoever runs a survey is told of any other at once.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from services.uploader.cancellation import first_cause
from services.uploader.errors import StoreError, TransientError
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Expected, Finding
from services.uploader.jobs.letters.selection import Chosen, Surveyed
from services.uploader.jobs.options import Bounds
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.span import Range
from services.uploader.jobs.span_reader import SpanReader
from services.uploader.jobs.topic_log import closed_range
from services.uploader.retry import TRANSIENT
from services.uploader.topic_view import TopicView

log = logging.getLogger(__name__)

QUESTIONS_MAX = 6
"""How often one object is asked for; with TRANSIENT's pauses that is some 3 s."""


def dead_settings(settings: JobSettings, bucket: str | None = None) -> JobSettings:
    """The same settings for a job that reads the dead-letter topic."""
    return settings.model_copy(
        update={"kafka_topic": settings.kafka_dead_topic, "s3_bucket": bucket or settings.s3_bucket}
    )


async def close_range(view: TopicView, settings: JobSettings, bounds: Bounds) -> Range:
    """The range in offsets of `settings.kafka_topic`; what is odd about it is logged.

    Raises:
        RangeError: topic or partition is not there.
        KafkaError: the broker could not be asked.

    """
    closed = await closed_range(settings, view, settings.kafka_topic, bounds.lower, bounds.upper, bounds.partitions)
    for one in closed.gone:
        log.warning("the range is cut", extra={"gone": str(one)})
    return closed


async def records(client: AIOKafkaConsumer, closed: Range) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Every record of the range, in pieces; those of a partition in order.

    Raises:
        KafkaError: the broker could not be asked.
        RangeError: the topic is not what it was.

    """
    reader = SpanReader(client, closed.topic, {span.partition: [span] for span in closed.spans})
    reader.start()
    while reader.unfinished():
        polled = await reader.poll(reader.unfinished())
        for one in reader.take_gone():
            log.warning("retention was faster", extra={"gone": str(one)})
        yield [record for each in polled.values() for record in each]


async def survey(
    client: AIOKafkaConsumer,
    closed: Range,
    choose: Callable[[ConsumerRecord], Chosen | None],
    checker: Checker | None,
    *,
    in_flight_max: int,
    asks_repeated: bool,
) -> AsyncGenerator[list[Surveyed], None]:
    """The letters that are meant, in pieces.

    Args:
        client: started.
        closed: the range.
        choose: says which are meant.
        checker: asks S3; None: nobody does.
        in_flight_max: questions at once.
        asks_repeated: whether also letters whose record another letter has are asked for.

    Raises:
        StoreError: S3 could not be asked.
        KafkaError: the broker could not be asked.
        RangeError: the topic is not what it was.

    """
    async with aclosing(records(client, closed)) as pieces:
        async for piece in pieces:
            chosen = [one for one in map(choose, piece) if one is not None]
            asked = [one for one in chosen if checker is not None and (asks_repeated or one.repeats is None)]
            found: dict[int, Finding] = {}
            if checker is not None:
                found = await _ask(checker, asked, in_flight_max)
            yield [Surveyed(one, found.get(id(one))) for one in chosen]


async def _ask(checker: Checker, asked: Sequence[Chosen], in_flight_max: int) -> dict[int, Finding]:
    """What is there, by the identity of the questions."""
    found: dict[int, Finding] = {}
    waiting = iter(asked)

    async def work() -> None:
        for one in waiting:
            found[id(one)] = await _tell(checker, one)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight_max, len(asked))):
                group.create_task(work())
    except* StoreError as errors:
        raise first_cause(errors) from None
    return found


async def _tell(checker: Checker, chosen: Chosen) -> Finding:
    record = chosen.letter.original
    expected = Expected.of(
        partition=record.partition,
        offset=record.offset,
        key=chosen.key,
        record_id=record.id,
        body=chosen.letter.value,
        kind=checker.kind,
    )
    for attempt in range(1, QUESTIONS_MAX):
        try:
            return (await checker.tell(expected)).finding
        except TransientError as error:
            log.debug("S3 could not be asked, asking again", extra={"key": chosen.key, "cause": str(error)})
            await asyncio.sleep(TRANSIENT.delay_s(attempt, random.random()))  # noqa: S311 - jitter, not a secret
    return (await checker.tell(expected)).finding
