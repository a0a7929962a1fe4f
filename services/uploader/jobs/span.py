"""A range as offsets: what a command reads of each partition, and what of the asked is gone already. Pure.

A range is closed by offsets once, when the command starts: what is written later is not in it, so that "everything is
there" means something. Times become offsets by the broker's own index (ListOffsets); here its answers become spans.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.uploader.jobs.bounds import At, Beginning, Offsets, iso

CREATE_TIME_MARGIN_MS = 5 * 60 * 1000
"""How much wider a time range becomes where producers set the time: their clocks differ, and offsets are not in order
of time then."""


@dataclass(frozen=True, slots=True)
class LogEnds:
    """What the broker says of a partition.

    Attributes:
        begin: the log's first offset; above 0, something was deleted.
        end: the next offset once all that is committed has been read.
        oldest_ms: when the first record left was written; None: there is none.
        at_from: the first offset written at the lower time or later; None: there is none, or no time was asked.
        at_to: the same of the upper time.

    """

    begin: int
    end: int
    oldest_ms: int | None = None
    at_from: int | None = None
    at_to: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: `begin` is the first, `end` the next after the last. Empty where they are equal."""

    partition: int
    begin: int
    end: int

    @property
    def offsets(self) -> int:
        """How many; holes counted."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Gone:
    """What of the asked range Kafka does not have any more. `since_ms` None: exactly these offsets were asked for.

    With a time: the offsets from the log's beginning to `end`, as far as they were written from `since_ms` on; the
    oldest record left is of `until_ms`.
    """

    partition: int
    begin: int
    end: int
    since_ms: int | None = None
    until_ms: int | None = None

    def __str__(self) -> str:
        offsets = f"partition {self.partition}: offsets {self.begin} to {self.end - 1}"
        if self.since_ms is None:
            return f"{offsets} are gone from Kafka"
        until = "" if self.until_ms is None else f", and the oldest left is of {iso(self.until_ms)}"
        since = iso(self.since_ms)
        return f"{offsets} are gone from Kafka{until}: what of them was written since {since} cannot be read any more"


@dataclass(frozen=True, slots=True)
class Range:
    """What a command reads. `spans` has every partition that was asked for, in order, empty ones too."""

    topic: str
    spans: tuple[Span, ...]
    gone: tuple[Gone, ...] = ()
    widened: bool = False  # by CREATE_TIME_MARGIN_MS
    before_ms: int | None = None  # records of this time or later are not meant; None: offsets say it all

    @property
    def offsets(self) -> int:
        """How many in all; holes counted."""
        return sum(span.offsets for span in self.spans)


def widen(lower: At | Beginning, upper: At | None) -> tuple[At | Beginning, At | None]:
    """The bounds where producers set the times; None stays the end of the log."""
    wider = None if upper is None else At(upper.ms + CREATE_TIME_MARGIN_MS)
    if isinstance(lower, At):
        return At(max(0, lower.ms - CREATE_TIME_MARGIN_MS)), wider
    return lower, wider


def beyond(lower: Offsets, logs: Mapping[int, LogEnds]) -> str | None:
    """What of the offsets that were asked for the log has not given out; None: nothing."""
    for partition, log in sorted(logs.items()):
        first, end = lower.spans[partition]
        last = end - 1 if end is not None else (first or 0) - 1  # an open end may begin where the log ends
        if last >= log.end:
            return f"partition {partition} has no offset {last} yet: its log ends at {log.end - 1}"
    return None


def close(
    lower: At | Beginning | Offsets, logs: Mapping[int, LogEnds], *, to_end: bool, kept_ms: int | None = None
) -> tuple[tuple[Span, ...], tuple[Gone, ...]]:
    """The range in offsets, and what of it is gone.

    Args:
        lower: what was asked for; of `Offsets` both ends.
        logs: by partition, for every partition that is to be read.
        to_end: whether the range ends with the log; else at `LogEnds.at_to`. Not looked at for `Offsets`.
        kept_ms: retention cannot have taken what was written since then; None: it may have taken anything.

    """
    spans, gone = [], []
    for partition, log in sorted(logs.items()):
        begin, end = log.begin, log.end if to_end or log.at_to is None else log.at_to
        match lower:
            case Offsets(asked):
                first, end_asked = asked[partition]
                end = log.end if end_asked is None else min(end_asked, log.end)
                begin = log.begin if first is None else max(first, log.begin)
                if first is not None and first < min(log.begin, end):
                    gone.append(Gone(partition, first, min(log.begin, end)))
            case At(ms):
                begin = log.end if log.at_from is None else log.at_from
                # At the very time of the oldest, others may have been written before it: those of its batch, say.
                may_be_gone = kept_ms is None or ms < kept_ms  # else a partition that was quiet for long is no cut one
                if may_be_gone and log.begin > 0 and (log.oldest_ms is None or log.oldest_ms >= ms):
                    gone.append(Gone(partition, 0, log.begin, ms, log.oldest_ms))
            case Beginning():
                pass
        spans.append(Span(partition, min(begin, end), end))
    return tuple(spans), tuple(gone)


def group_offsets(wanted: Mapping[int, Iterable[int]], gap: int = 1000) -> dict[int, tuple[Span, ...]]:
    """Single offsets as spans to be read one after another: those nearer than `gap` are read in one go."""
    grouped: dict[int, tuple[Span, ...]] = {}
    for partition, offsets in sorted(wanted.items()):
        spans: list[Span] = []
        for offset in sorted(set(offsets)):
            if spans and offset - spans[-1].end < gap:
                spans[-1] = Span(partition, spans[-1].begin, offset + 1)
            else:
                spans.append(Span(partition, offset, offset + 1))
        grouped[partition] = tuple(spans)
    return grouped
