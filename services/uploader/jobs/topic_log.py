"""Reads a closed range of a topic, outside any group: finds its offsets, then hands out its records.

Owns what is read and where each partition stands. A partition is at its end when the *position* is: its last record may
be a hole (an aborted one, a marker, what compaction took). Does not know what becomes of a record.
"""

from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from services.uploader.jobs.bounds import At, Beginning, Offsets
from services.uploader.jobs.span import Gone, LogEnds, Range, Span, beyond, close, widen
from shared.kafka import REQUEST_TIMEOUT_S, AdminClient, KafkaSettings, connection_options, topic_facts

POLL_TIMEOUT_MS = 200
_LOG_APPEND_TIME = "LogAppendTime"


class RangeError(Exception):
    """The range cannot be made; the message is for the person who asked."""


def log_client(settings: KafkaSettings, group_id: str | None = None) -> AIOKafkaConsumer:
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
        isolation_level="read_committed",
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
    client: AIOKafkaConsumer,
    admin: AdminClient,
    topic: str,
    lower: At | Beginning | Offsets,
    upper: At | None,
    wanted: frozenset[int] | None = None,
) -> Range:
    """The range in offsets, as the log is now.

    Args:
        client: started.
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
    widened = False
    if isinstance(lower, At) or upper is not None:
        facts = (await topic_facts(admin, [topic]))[topic]
        widened = facts.timestamp_type != _LOG_APPEND_TIME
    if widened and not isinstance(lower, Offsets):
        lower, upper = widen(lower, upper)
    begins, ends = await client.beginning_offsets(tps), await client.end_offsets(tps)
    oldest = await client.offsets_for_times(dict.fromkeys(tps, 0))
    at_from = await client.offsets_for_times(dict.fromkeys(tps, lower.ms)) if isinstance(lower, At) else {}
    at_to = await client.offsets_for_times(dict.fromkeys(tps, upper.ms)) if upper is not None else {}
    logs = {
        tp.partition: LogEnds(
            begin=begins[tp],
            end=ends[tp],
            oldest_ms=None if oldest.get(tp) is None else oldest[tp].timestamp,
            at_from=None if at_from.get(tp) is None else min(at_from[tp].offset, ends[tp]),
            at_to=None if at_to.get(tp) is None else min(at_to[tp].offset, ends[tp]),
        )
        for tp in tps
    }
    if isinstance(lower, Offsets) and (missing := beyond(lower, logs)) is not None:
        raise RangeError(f"topic {topic}, {missing}")
    spans, gone = close(lower, logs, to_end=upper is None)
    return Range(topic, spans, gone, widened)


class SpanReader:
    """Hands out the records of spans, partition by partition in the order of offsets."""

    def __init__(
        self,
        client: AIOKafkaConsumer,
        topic: str,
        spans: Mapping[int, Sequence[Span]],
        ends: Mapping[int, int] | None = None,
    ) -> None:
        """Prepare; `start` comes first.

        Args:
            client: started, and assigned to nobody.
            topic: that is read.
            spans: by partition, in order, none overlapping another.
            ends: a partition's position once all of it was handed out; None: the end of its last span.

        """
        self._gone: list[Gone] = []  # what the broker did not have any more, not taken yet
        self._client = client
        self._topic = topic
        self._left = {partition: [span for span in each if span.offsets > 0] for partition, each in spans.items()}
        self._positions = {partition: (each[0].begin if each else 0) for partition, each in spans.items()}
        self._ends = ends or {partition: (each[-1].end if each else 0) for partition, each in spans.items()}
        self._nobody = TopicPartition(topic, -1)  # asked for when nobody is: an empty list means all

    def start(self) -> None:
        """Take the partitions, also those that have nothing to be read, and go to where each begins."""
        tps = [TopicPartition(self._topic, partition) for partition in self._left]
        self._client.assign(tps)
        for tp in tps:
            self._client.seek(tp, self.position(tp.partition))

    def take_gone(self) -> list[Gone]:
        """What the broker did not have any more when it was to be read, since this was last asked."""
        gone, self._gone = self._gone, []
        return gone

    def unfinished(self) -> list[int]:
        """The partitions of which something is still to be read."""
        return [partition for partition, spans in self._left.items() if spans]

    def position(self, partition: int) -> int:
        """Below this, all of the partition's spans has been handed out; its end once all has."""
        return self._positions[partition] if self._left[partition] else self._ends[partition]

    async def poll(
        self, partitions: Iterable[int], *, records_max: int | None = None, timeout_ms: int = POLL_TIMEOUT_MS
    ) -> dict[int, list[ConsumerRecord]]:
        """The next records of those partitions; none is of another span, and none comes twice.

        Raises:
            KafkaError: records may have been passed over: only a new client, from `position` on, is safe.

        """
        asked = [TopicPartition(self._topic, partition) for partition in partitions if self._left[partition]]
        try:
            polled = await self._client.getmany(
                *(asked or [self._nobody]), timeout_ms=timeout_ms, max_records=records_max
            )
        except OffsetOutOfRangeError as error:
            await self._pass_over(error.args[0])
            return {}
        found: dict[int, list[ConsumerRecord]] = {}
        for tp in asked:
            records = polled.get(tp, [])
            span = self._left[tp.partition][0]
            found[tp.partition] = [record for record in records if span.begin <= record.offset < span.end]
            self._arrive(tp, await self._client.position(tp))
        return found

    def _arrive(self, tp: TopicPartition, position: int) -> None:
        """The client stands there now: the span may be over, and the next one begin."""
        spans = self._left[tp.partition]
        span = spans[0]
        self._positions[tp.partition] = min(position, span.end)
        if position < span.end:
            return
        spans.pop(0)
        if spans:
            self._client.seek(tp, spans[0].begin)
            self._positions[tp.partition] = spans[0].begin

    async def _pass_over(self, positions: Mapping[TopicPartition, int]) -> None:
        """Retention was faster."""
        begins = await self._client.beginning_offsets(list(positions))
        ends = await self._client.end_offsets(list(positions))
        for tp, position in positions.items():
            spans = self._left.get(tp.partition)
            if not spans:
                continue
            begin = begins[tp]
            if not position < begin:
                raise RangeError(
                    f"partition {tp.partition} ends at {ends[tp]}, before {position}, where this command reads: the "
                    f"topic was made anew, or its leader lost records"
                )
            self._gone += [
                Gone(tp.partition, max(span.begin, position), min(span.end, begin))
                for span in spans
                if max(span.begin, position) < min(span.end, begin)
            ]
            kept = [Span(span.partition, max(span.begin, begin), span.end) for span in spans if span.end > begin]
            self._left[tp.partition] = kept
            if kept:
                self._client.seek(tp, kept[0].begin)
                self._positions[tp.partition] = kept[0].begin
