"""What Kafka says of the pipeline at one moment: values, as the broker told them. Pure; `pipeline_view` judges them."""

from collections.abc import Iterable
from dataclasses import dataclass

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
