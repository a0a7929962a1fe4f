"""A topic's log as a job sees it: the clients that read it outside any group, and the range that is closed by offsets.

Reads no record; `span_reader` does.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs.bounds import At, Beginning, Offsets
from services.uploader.jobs.span import LogEnds, Range, beyond, close, widen
from shared.kafka import REQUEST_TIMEOUT_S, AdminClient, KafkaSettings, TopicFacts, connection_options, topic_facts

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0

_LOG_APPEND_TIME = "LogAppendTime"


class RangeError(Exception):
    """The range cannot be made; the message is for the person who asked."""


def log_client(
    settings: KafkaSettings, group_id: str | None = None, *, isolation_level: str = "read_committed"
) -> AIOKafkaConsumer:
    """A consumer that is told what to read; not yet started. A group is for its commits alone: it never joins one.

    Raises:
        ValueError: a certificate file cannot be read.

    """
    return AIOKafkaConsumer(
        **connection_options(settings),
        client_id="spillway-uploader-job",
        client_rack=settings.kafka_client_rack,
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000),
        max_partition_fetch_bytes=1024 * 1024,
        fetch_max_bytes=16 * 1024 * 1024,
    )


async def partitions_of(admin: AdminClient, topic: str, wanted: frozenset[int] | None) -> list[int]:
    """The partitions to read: those wanted, or all.

    Raises:
        RangeError: there is no such topic, or no such partition.
        KafkaError: the broker could not be asked.

    """
    described = await admin.describe_topics([topic])
    there = {partition["partition"] for each in described for partition in each["partitions"]}
    if not there:
        raise RangeError(f"topic {topic} does not exist")
    strange = sorted((wanted or frozenset()) - there)
    if strange:
        raise RangeError(f"topic {topic} has {len(there)} partitions, from 0; there is no {strange[0]}")
    return sorted(wanted if wanted is not None else there)


async def closed_range(
    settings: KafkaSettings,
    admin: AdminClient,
    topic: str,
    lower: At | Beginning | Offsets,
    upper: At | None,
    wanted: frozenset[int] | None = None,
) -> Range:
    """The range in offsets, as the log is now.

    Args:
        settings: how to reach Kafka.
        admin: started.
        topic: that is read.
        lower: the range's beginning, or both ends in offsets.
        upper: its end; None: that of the log now.
        wanted: partitions; None: all, or those that `lower` names.

    Raises:
        RangeError: topic, partition or offset is not there.
        KafkaError: the broker could not be asked.

    """
    if isinstance(lower, Offsets):
        wanted = frozenset(lower.spans) if wanted is None else wanted & frozenset(lower.spans)
    tps = [TopicPartition(topic, partition) for partition in await partitions_of(admin, topic, wanted)]
    widened, facts = False, None
    if isinstance(lower, At) or upper is not None:
        facts = (await topic_facts(admin, [topic]))[topic]
        widened = facts.timestamp_type != _LOG_APPEND_TIME
    if widened and not isinstance(lower, Offsets):
        lower, upper = widen(lower, upper)
        log.warning("producers set the times of this topic: the range was made 5 minutes wider at both ends")
    # Of producers' times the first that is late enough says nothing of those behind it: one clock that is fast would
    # end the range. So it is read to the log's end, and each record's own time decides.
    before_ms = upper.ms if widened and upper is not None else None
    logs = await _ends_of(settings, tps, lower, None if widened else upper)
    if isinstance(lower, Offsets) and (missing := beyond(lower, logs)) is not None:
        raise RangeError(f"topic {topic}, {missing}")
    spans, gone = close(lower, logs, to_end=widened or upper is None, kept_ms=_kept_ms(facts, widened=widened))
    return Range(topic, spans, gone, widened, before_ms)


def _kept_ms(facts: TopicFacts | None, *, widened: bool) -> int | None:
    """Since when retention cannot have taken anything, in milliseconds since 1970; None: it may have at any time."""
    if facts is None or widened or facts.retention_bytes >= 0:
        return None
    return 0 if facts.retention_ms < 0 else round(time.time() * 1000) - facts.retention_ms


async def _ends_of(
    settings: KafkaSettings, tps: Sequence[TopicPartition], lower: At | Beginning | Offsets, upper: At | None
) -> dict[int, LogEnds]:
    """Asked without regard to transactions: what stands behind one that is open is in the range, and waited for. To the
    eyes of who reads committed records only, the log ends before it.
    """
    client = log_client(settings, isolation_level="read_uncommitted")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await client.start()
        begins, ends = await client.beginning_offsets(tps), await client.end_offsets(tps)
        oldest = await client.offsets_for_times(dict.fromkeys(tps, 0))
        at_from = await client.offsets_for_times(dict.fromkeys(tps, lower.ms)) if isinstance(lower, At) else {}
        at_to = await client.offsets_for_times(dict.fromkeys(tps, upper.ms)) if upper is not None else {}
    finally:
        await close_client(client.stop)
    return {
        tp.partition: LogEnds(
            begin=begins[tp],
            end=ends[tp],
            oldest_ms=None if oldest.get(tp) is None else oldest[tp].timestamp,
            at_from=None if at_from.get(tp) is None else min(at_from[tp].offset, ends[tp]),
            at_to=None if at_to.get(tp) is None else min(at_to[tp].offset, ends[tp]),
        )
        for tp in tps
    }


async def close_client(end: Callable[[], Awaitable[None]]) -> None:
    """End a client, within STOP_TIMEOUT_S, whatever it says to that: it is thrown away."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await end()
    except (KafkaError, TimeoutError, OSError):
        return
    except asyncio.CancelledError:
        if cancelled_from_outside():
            raise
