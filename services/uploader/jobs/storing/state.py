"""What a named job keeps in Kafka: its commits, and in the metadata of each what the job is. Pure.

A commit of partition p says: all of the job's records below this offset are settled. It outlives the process, the pod
and the node; it ends with `offsets.retention.minutes` of the broker (7 days without a commit).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from services.uploader.jobs.span import Gone

NOTE_BYTES_MAX = 4096
"""Kafka's own default of offset.metadata.max.bytes."""

GONE_MAX = 20

PURPOSE_BYTES_MAX = NOTE_BYTES_MAX // 2
"""What is left of a note when all its numbers have 19 digits and GONE_MAX are gone: what fits at a job's start fits at
its end."""

_VERSION = 1


class UnreadableStateError(ValueError):
    """The commits of a job's group were not written by a job of this version."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a job does with each record: what must not change between its start and a resume.

    Attributes:
        bucket: where the objects go.
        key_template: with `prefix` and `default_folder`, what makes the keys.
        prefix: stands before every key; empty for none.
        default_folder: `{folder}` of records without one.
        only_missing: whether objects that are there, with the same bytes, are left alone.
        folder: only records of this folder; None: of any.
        record_id: only this id, or those that begin with it and a hyphen; None: any.
        file_sum: SHA-256 of the file that names the records; None: all of the range.
        range: as it was typed, `--from 2h`; a second start with the same words means the range of the first.
        endpoint: S3_ENDPOINT_URL; None: AWS.
        before_ms: records of this time or later are not meant; None: offsets say it all.
        partitions: all that were begun together, `0-11`: where one of them has no state any more, it is missed.

    """

    bucket: str
    key_template: str
    prefix: str = ""
    default_folder: str = ""
    only_missing: bool = False
    folder: str | None = None
    record_id: str | None = None
    file_sum: str | None = None
    range: str = ""
    endpoint: str | None = None
    before_ms: int | None = None
    partitions: str = ""

    def difference(self, other: "Purpose") -> str | None:
        """The first thing in which the other differs, for people; None: nothing."""
        theirs = asdict(other)
        for name, value in asdict(self).items():
            if value != theirs[name]:
                return f"{name} was {value!r} and is {theirs[name]!r}"
        return None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Of one partition: the range, how far it is settled, what could not be stored on the way."""

    topic_id: str | None
    begin: int
    end: int
    settled: int  # the commit: the next offset to be settled
    purpose: Purpose
    not_stored: int = 0  # records that S3 can never take, so far
    first_not_stored: int | None = None  # offset
    gone: tuple[Gone, ...] = ()  # what Kafka did not have any more; at most GONE_MAX are noted

    @property
    def left(self) -> int:
        """Offsets that are still to be read."""
        return max(0, self.end - self.settled)

    def note(self) -> str:
        """The commit's metadata.

        Raises:
            ValueError: the purpose is over PURPOSE_BYTES_MAX.

        """
        purpose_bytes = len(json.dumps(asdict(self.purpose), separators=(",", ":")))
        if purpose_bytes > PURPOSE_BYTES_MAX:
            raise ValueError(f"what the job is takes {purpose_bytes} bytes to note, and there are {PURPOSE_BYTES_MAX}")
        return json.dumps(
            {
                "v": _VERSION,
                "topic_id": self.topic_id,
                "begin": self.begin,
                "end": self.end,
                "not_stored": self.not_stored,
                "first_not_stored": self.first_not_stored,
                "gone": [[one.begin, one.end, one.since_ms, one.until_ms] for one in self.gone[:GONE_MAX]],
                "purpose": asdict(self.purpose),
            },
            separators=(",", ":"),
        )


def read_note(partition: int, settled: int, note: str) -> PartitionState:
    """A commit of a job, as a state.

    Raises:
        UnreadableStateError: it is none.

    """
    try:
        found = json.loads(note)
        if found["v"] != _VERSION:
            raise UnreadableStateError(f"its state is of version {found['v']}, and this program writes {_VERSION}")
        return PartitionState(
            topic_id=found["topic_id"],
            begin=int(found["begin"]),
            end=int(found["end"]),
            settled=settled,
            purpose=Purpose(**found["purpose"]),
            not_stored=int(found["not_stored"]),
            first_not_stored=found["first_not_stored"],
            gone=tuple(Gone(partition, *one) for one in found["gone"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, UnreadableStateError):
            raise
        raise UnreadableStateError(f"its commits were not made by a job: {note[:80]!r}") from None


@dataclass(slots=True)
class Progress:
    """Counts of one partition's work, fed by the job; `state` makes what is committed of them."""

    state: PartitionState
    refused: set[int] = field(default_factory=set)  # offsets that S3 can never take, of this run
    gone: list[Gone] = field(default_factory=list)  # of this run

    def at(self, settled: int) -> PartitionState:
        """The state once everything below `settled` is settled. What was refused above it will be met again."""
        below = [offset for offset in self.refused if offset < settled]
        first = self.state.first_not_stored
        if first is None and below:
            first = min(below)
        gone = (*self.state.gone, *(one for one in self.gone if one.begin < settled))
        return PartitionState(
            topic_id=self.state.topic_id,
            begin=self.state.begin,
            end=self.state.end,
            settled=settled,
            purpose=self.state.purpose,
            not_stored=self.state.not_stored + len(below),
            first_not_stored=first,
            gone=tuple(dict.fromkeys(gone)),  # each session of a run meets it again until its commit is behind it
        )


def lost(states: Mapping[int, PartitionState]) -> list[int]:
    """Partitions that were begun with these and have no state: their commits have expired."""
    begun = {number for state in states.values() for number in _numbers(state.purpose.partitions)}
    return sorted(begun - states.keys())


def spell(partitions: Iterable[int]) -> str:
    """Partitions in few characters, `0-11,14`."""
    runs: list[list[int]] = []
    for number in sorted(set(partitions)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _numbers(spelled: str) -> set[int]:
    found: set[int] = set()
    for run in filter(None, spelled.split(",")):
        first, _, last = run.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def group_of(group_id: str, job: str) -> str:
    """The consumer group of a job: under the uploaders' own, so that one prefixed ACL allows both."""
    return f"{group_id}.job.{job}"


def total(states: Mapping[int, PartitionState]) -> tuple[int, int]:
    """Offsets settled and offsets in all, over the partitions."""
    return (
        sum(min(state.settled, state.end) - state.begin for state in states.values()),
        sum(state.end - state.begin for state in states.values()),
    )
