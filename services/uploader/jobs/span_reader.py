"""Hands out the records of a closed range, and says where each partition stands.

A partition is at its end when the *position* is: its last record may be a hole (an aborted one, a marker, what
compaction took). Does not know what becomes of a record.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from services.uploader.jobs.span import Gone, Span
from services.uploader.jobs.topic_log import RangeError

POLL_TIMEOUT_MS = 200
STALLED_AFTER_S = 120.0
"""How long the next record is waited for until it is said. Behind an open transaction it is waited for again: a broker
ends one after `transaction.max.timeout.ms` (15 min) at the latest."""


class StalledReadError(KafkaError):  # type: ignore[misc] # aiokafka is not typed
    """Nothing was read for a long time although something is to be."""


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
        self._moved_s = time.monotonic()  # when anything asked for last came, or nothing was asked for
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
            RangeError: a record cannot be read by this client, or the log is another one.

        """
        asked = [TopicPartition(self._topic, partition) for partition in partitions if self._left[partition]]
        try:
            polled = await self._client.getmany(
                *(asked or [self._nobody]), timeout_ms=timeout_ms, max_records=records_max
            )
        except OffsetOutOfRangeError as error:
            await self._pass_over(error.args[0])
            return {}
        except UnicodeDecodeError as error:
            places = ", ".join(f"p{tp.partition}:{self._positions[tp.partition]}" for tp in asked)
            raise RangeError(
                f"topic {self._topic}: a record at or behind {places} has a header whose name is not UTF-8, and cannot "
                f"be read ({error.reason}); leave it out with --partitions, or by offsets on both its sides"
            ) from None
        found: dict[int, list[ConsumerRecord]] = {}
        before = dict(self._positions)
        for tp in asked:
            records = polled.get(tp, [])
            span = self._left[tp.partition][0]
            found[tp.partition] = [record for record in records if span.begin <= record.offset < span.end]
            self._arrive(tp, await self._client.position(tp))
        self._watch(moved=not asked or self._positions != before)
        return found

    def _watch(self, *, moved: bool) -> None:
        now_s = time.monotonic()
        if moved:
            self._moved_s = now_s
        elif now_s - self._moved_s > STALLED_AFTER_S:
            places = ", ".join(f"p{number}:{self._positions[number]}" for number in self.unfinished())
            raise StalledReadError(
                f"nothing came for {STALLED_AFTER_S:g} s at {places}: Kafka does not answer, or a transaction is open"
            )

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
