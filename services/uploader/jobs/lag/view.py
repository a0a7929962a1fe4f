"""How far behind the pipeline is: what one look at Kafka shows, and what two looks say of its pace. Pure.

Lag is counted from the first record that is not committed to the end (of what is committed by producers): holes before
that record (markers, aborted records, what compaction took) are no lag, so that a log that ends with an aborted
transaction is not behind for ever. Holes after it count, since only reading all of it would tell.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.uploader.jobs.lag.look import Look, PartitionLook
from services.uploader.retention import left_s

KEEPS_UP_WITHIN_S = 3.0
"""A partition whose lag is committed within so many seconds keeps up: uploaders commit once a second, so that some lag
is always seen, and whether it grows or shrinks by a record means nothing."""


UNKNOWN = "?"
_UNITS = ((172_800, 86_400, "d"), (5400, 3600, "h"), (90, 60, "min"))
"""From so many seconds on, in what unit; seconds below."""


class Pace(StrEnum):
    """Whether a partition catches up; from best to worst."""

    DONE = "done"
    KEEPS_UP = "keeps up"
    IN = "in"  # a time that is known
    UNKNOWN = "unknown"
    NEVER = "never at this rate"


_WORST_LAST = tuple(Pace)
"""The order in which the members of Pace stand: a total is as bad as its worst partition."""


@dataclass(frozen=True, slots=True)
class Drain:
    """When nothing will be left to store. `seconds` only with IN."""

    pace: Pace
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partition stands, or all of them together.

    Attributes:
        lag_records: what is not committed; holes after the first of it counted.
        lag_s: age of the oldest record that is not committed, in seconds; None: unknown.
        retention_left_s: seconds until retention may delete that record; infinity: never; None: unknown.
        committed_per_s: records; None: unknown.
        arriving_per_s: records; None: unknown.
        drain: when nothing will be left.

    """

    lag_records: int
    lag_s: float | None
    retention_left_s: float | None
    committed_per_s: float | None
    arriving_per_s: float | None
    drain: Drain


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A look, and what it means."""

    look: Look
    standings: tuple[Standing, ...]  # beside look.partitions
    total: Standing
    warnings: tuple[str, ...]


def view_of(look: Look, before: Look | None) -> PipelineView:
    """What a look means; rates need one before it, of the same topic."""
    rates = _rates(look, before)
    standings = tuple(_standing(each, look, *rates.get(each.partition, (None, None))) for each in look.partitions)
    return PipelineView(look, standings, _total(standings), tuple(_warnings(look, standings)))


def drain(lag_records: int, committed_per_s: float | None, arriving_per_s: float | None) -> Drain:
    """When nothing will be left: the lag through the rate at which it shrinks."""
    if lag_records == 0:
        return Drain(Pace.DONE)
    if committed_per_s is None or arriving_per_s is None:
        return Drain(Pace.UNKNOWN)
    if lag_records <= committed_per_s * KEEPS_UP_WITHIN_S:
        return Drain(Pace.KEEPS_UP)
    if committed_per_s <= arriving_per_s:
        return Drain(Pace.NEVER)
    return Drain(Pace.IN, lag_records / (committed_per_s - arriving_per_s))


def _rates(look: Look, before: Look | None) -> Mapping[int, tuple[float | None, float | None]]:
    """Committed and arriving records a second, by partition."""
    if before is None or before.topic_id != look.topic_id or not look.clock_s > before.clock_s:
        return {}
    elapsed_s = look.clock_s - before.clock_s
    earlier = {each.partition: each for each in before.partitions}
    return {
        each.partition: (
            _per_s(_newly_committed(earlier[each.partition], each), elapsed_s),
            _per_s(each.end - earlier[each.partition].end, elapsed_s),
        )
        for each in look.partitions
        if each.partition in earlier
    }


def _newly_committed(before: PartitionLook, now: PartitionLook) -> int | None:
    # Where retention moved the beginning, nothing was committed by that.
    if now.valid is None:
        return 0 if before.valid is None else None
    return now.valid - (before.begin if before.valid is None else before.valid)


def _per_s(records: int | None, elapsed_s: float) -> float | None:
    """None too where it went backwards: somebody has reset the group, or the log was cut."""
    return None if records is None or records < 0 else records / elapsed_s


def _standing(
    partition: PartitionLook, look: Look, committed_per_s: float | None, arriving_per_s: float | None
) -> Standing:
    first, oldest = partition.start.offset, partition.oldest
    if oldest is not None:
        first = partition.end if oldest.offset is None else max(first, oldest.offset)
    lag = max(0, partition.end - first)
    written_ms = None if oldest is None else oldest.written_ms
    known = lag == 0 or written_ms is not None
    return Standing(
        lag,
        (max(0.0, (look.at_ms - (written_ms or 0)) / 1000) if lag else 0.0) if known else None,
        left_s(look.retention_ms, written_ms if lag else None, look.at_ms / 1000)
        if known or look.retention_ms is None
        else None,
        committed_per_s,
        arriving_per_s,
        drain(lag, committed_per_s, arriving_per_s),
    )


def _total(standings: tuple[Standing, ...]) -> Standing:
    """All together: the sums, the oldest record, the shortest retention, and the slowest partition's drain."""
    drains = [each.drain for each in standings]
    worst = max((each.pace for each in drains), key=_WORST_LAST.index, default=Pace.UNKNOWN)
    longest_s = max((each.seconds or 0.0 for each in drains), default=0.0)
    committed, arriving = ([each.committed_per_s for each in standings], [each.arriving_per_s for each in standings])
    lags, left = [each.lag_s for each in standings], [each.retention_left_s for each in standings]
    return Standing(
        sum(each.lag_records for each in standings),
        None if None in lags else max((each for each in lags if each is not None), default=None),
        None if None in left else min((each for each in left if each is not None), default=None),
        None if None in committed or not committed else math.fsum(each or 0.0 for each in committed),
        None if None in arriving or not arriving else math.fsum(each or 0.0 for each in arriving),
        Drain(worst, longest_s if worst is Pace.IN else None),
    )


def _warnings(look: Look, standings: tuple[Standing, ...]) -> Iterable[str]:
    group, lag = look.group, sum(each.lag_records for each in standings)
    if not group.members:
        behind = "" if lag == 0 else f", and {lag} records wait"
        yield f"no uploader is in the group{behind}"
    elif group.state == "Stable":
        owned = {partition for member in group.members for partition in member.partitions}
        strays = [each.partition for each in look.partitions if each.partition not in owned]
        if strays:
            yield f"no member has {named(strays)}"
    if look.leaderless:
        yield f"{named(look.leaderless)} without a leader: nothing is known there, and nothing of it counted here"
    for each in look.partitions:
        yield from _of_commit(each)
    unknown = [
        each.partition for each, standing in zip(look.partitions, standings, strict=True) if standing.lag_s is None
    ]
    if unknown:
        why = f": {look.unread}" if look.unread else ""
        yield f"the oldest record of {named(unknown)} could not be read in time{why}"


def _of_commit(look: PartitionLook) -> Iterable[str]:
    place, start = f"partition {look.partition}", look.start
    if look.gone_id is not None:
        yield (
            f"{place}: offset {look.committed} was committed for a topic that is gone (topic id {look.gone_id}); "
            f"everything since {look.begin} is behind"
        )
    elif start.lost:
        yield (
            f"{place}: retention took offsets {look.committed} to {look.begin - 1} before they were committed "
            f"({start.lost} offsets)"
        )
    elif start.remade:
        yield (
            f"{place}: offset {look.committed} is committed, and the log ends at {look.end}: it was cut, or the topic "
            f"made anew; everything since {look.begin} counts as behind"
        )


def named(partitions: Iterable[int]) -> str:
    """`partition 3`, `partitions 0-2, 5`."""
    runs: list[list[int]] = []
    for partition in sorted(partitions):
        if runs and partition == runs[-1][-1] + 1:
            runs[-1].append(partition)
        else:
            runs.append([partition])
    word = "partition" if sum(map(len, runs)) == 1 else "partitions"
    return f"{word} " + ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def duration(seconds: float | None) -> str:
    """A time that people read, to two digits or more: `42 s`, `12 min`, `5.2 h`, `6.9 d`."""
    if seconds is None:
        return UNKNOWN
    for least_s, unit_s, unit in _UNITS:
        if seconds >= least_s:
            return f"{seconds / unit_s:.{0 if unit == 'min' else 1}f} {unit}"
    return f"{seconds:.0f} s"
