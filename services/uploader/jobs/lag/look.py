"""What Kafka says of the pipeline at one moment: values, as the broker told them. Pure; `pipeline_view` judges them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.uploader.start import ASKS_BEYOND_END, Start, decide_start


@dataclass(frozen=True, slots=True)
class Oldest:
    """The first record that is not committed. `offset` None: there is none, only holes up to the end.

    `written_ms` is the record's time in milliseconds since 1970; None: it has none.
    """

    offset: int | None
    written_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionLook:
    """What Kafka says of a partition.

    Attributes:
        partition: its number.
        begin: the log's first offset.
        committed: the group's, the next offset to read; None: there is none.
        end: the next offset once all that producers have committed has been read.
        gone_id: the id of the topic that `committed` was made for, where that is not this one.
        oldest: None: nobody could tell (or nobody asked).

    """

    partition: int
    begin: int
    committed: int | None
    end: int
    gone_id: str | None = None
    oldest: Oldest | None = None

    @property
    def start(self) -> Start:
        """Where an uploader that is given the partition now starts: the rule of `run`."""
        decided = decide_start(self.committed, self.begin, self.end, ASKS_BEYOND_END, same_topic=self.gone_id is None)
        assert isinstance(decided, Start)  # noqa: S101 - it was asked often enough
        return decided

    @property
    def valid(self) -> int | None:
        """The commit as far as it is one of this topic."""
        return self.committed if self.gone_id is None else None


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the group, and which of the topic's partitions it has."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group. `state` is Kafka's word: Stable, Empty, Dead (there is none), PreparingRebalance, …"""

    group_id: str
    state: str
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """All that Kafka says at one moment.

    Attributes:
        at_ms: when, in milliseconds since 1970.
        clock_s: when, on a clock that only goes forward.
        topic: its name.
        topic_id: None: the broker is too old to tell.
        retention_ms: None: records stay for ever.
        by_size: whether `retention.bytes` may take records earlier.
        group: of the uploaders.
        partitions: those with a leader, in order.
        leaderless: those of which nothing is known now.
        unread: why the oldest records could not be read; empty: they could.

    """

    at_ms: int
    clock_s: float
    topic: str
    topic_id: str | None
    retention_ms: int | None
    by_size: bool
    group: Group
    partitions: tuple[PartitionLook, ...]
    leaderless: tuple[int, ...] = ()
    unread: str = ""


def to_read(partitions: Iterable[PartitionLook]) -> dict[int, tuple[int, int]]:
    """The partitions that lag: where their oldest record is looked for, and the end."""
    return {each.partition: (each.start.offset, each.end) for each in partitions if each.start.offset < each.end}


def aged(look: Look, before: Look) -> Look:
    """A look that read no records, with the times of the oldest ones as far as an earlier look tells them.

    What was the oldest record then is not younger than the oldest one now, and where nothing waited then, what waits
    now has come since. So an age is at most as much too old as the looks are apart: it errs to the side of the alarm.
    """
    if look.topic_id != before.topic_id:
        return look
    then = {each.partition: each for each in before.partitions}
    partitions = tuple(
        replace(each, oldest=_oldest_since(each, then[each.partition], before.at_ms))
        if each.partition in then
        else each
        for each in look.partitions
    )
    return replace(look, partitions=partitions, unread=before.unread)


def _oldest_since(now: PartitionLook, then: PartitionLook, then_ms: int) -> Oldest | None:
    if now.start.offset >= now.end:
        return None
    waited = then.start.offset < then.end
    if waited and (then.oldest is None or then.oldest.offset is not None):
        return then.oldest
    if (now.start.offset, now.end) == (then.start.offset, then.end):
        return then.oldest  # only holes, then and now
    return Oldest(max(now.start.offset, then.end), then_ms)
