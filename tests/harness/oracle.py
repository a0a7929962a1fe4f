"""The outside judge: what clients were told against what lies in the bucket. Pure: counts ids, compares bytes, keys.

It trusts nothing that a tier says of itself: it takes the answers that clients saw, every version of every key, and the
commits that the broker gave back while things were broken.
"""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_SHOWN = 5


class Written(Protocol):
    """One version of a key, as a store of ours keeps it."""

    @property
    def body(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def sequence(self) -> int:
        """Orders the writes of a store over all its keys, from 1."""
        ...


@dataclass(slots=True)
class Answers:
    """What clients were told. Every payload of a load must differ from every other, or mix-ups go unseen."""

    accepted: dict[str, bytes] = field(default_factory=dict)  # id → bytes, of the 200s
    refused: set[bytes] = field(default_factory=set)  # payloads of which an answer said: nothing was written
    unknown: set[bytes] = field(default_factory=set)  # payloads that may have been written: 504, 500, a lost answer
    repeated_ids: list[str] = field(default_factory=list)  # ids that two 200s gave
    statuses: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # answers by status; 0: none came

    def accept(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        """A 200 with these ids for these payloads.

        Raises:
            AssertionError: not as many ids as payloads.

        """
        assert len(ids) == len(payloads), f"{len(ids)} ids for {len(payloads)} payloads"
        self.repeated_ids += [item for item in ids if item in self.accepted]
        self.accepted.update(zip(ids, payloads, strict=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, by kind; all empty is the promise kept. Lists hold keys or ids."""

    accepted: int
    stored: int
    duplicates: int  # further writes of the same body under the same key: harmless
    lost: list[str]
    wrong_bytes: list[str]
    second_key: list[str]
    changed: list[str]  # keys of which two versions differ
    refused_but_stored: list[str]
    strangers: list[str]  # objects whose bytes nobody posted
    repeated_ids: list[str]
    ahead: list[str] = field(default_factory=list)  # commits past a record that was not stored by then
    rewound: list[str] = field(default_factory=list)  # commits that went back: a zombie's
    memory: list[str] = field(default_factory=list)  # processes that grew out of their bound

    @property
    def faults(self) -> dict[str, list[str]]:
        """The kinds that are not empty."""
        kinds = (
            *("lost", "wrong_bytes", "second_key", "changed", "refused_but_stored", "strangers", "repeated_ids"),
            *("ahead", "rewound", "memory"),
        )
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}

    def __str__(self) -> str:
        found = "".join(f"\n  {kind}: {len(items)}, as {items[:_SHOWN]}" for kind, items in self.faults.items())
        return f"{self.accepted} accepted, {self.stored} stored, {self.duplicates} written again{found}"


def judge(answers: Answers, versions: Mapping[str, Sequence[Written]], *, dead: Collection[str] = ()) -> Verdict:
    """Compare. A payload's id is the last segment of its object's key (DESIGN §4).

    Args:
        answers: what clients were told.
        versions: every version of every key.
        dead: ids that lie in the dead-letter topic: they have no object and are not lost.

    """
    keys: dict[str, list[str]] = defaultdict(list)
    for key in versions:
        keys[key.rpartition("/")[2]].append(key)
    wrong, refused, strangers = [], [], []
    for record_id, places in keys.items():
        bodies = {version.body for key in places for version in versions[key]}
        expected = answers.accepted.get(record_id)
        if expected is not None:
            wrong += [record_id] if bodies != {expected} else []
        elif bodies & answers.refused:
            refused.append(record_id)
        elif not bodies <= answers.unknown:
            strangers.append(record_id)
    return Verdict(
        accepted=len(answers.accepted),
        stored=len(versions),
        duplicates=sum(len(written) - 1 for written in versions.values()),
        lost=[record_id for record_id in answers.accepted if record_id not in keys and record_id not in dead],
        wrong_bytes=wrong,
        second_key=[record_id for record_id, places in keys.items() if len(places) > 1],
        changed=[key for key, written in versions.items() if len({version.body for version in written}) > 1],
        refused_but_stored=refused,
        strangers=strangers,
        repeated_ids=answers.repeated_ids,
    )


def missing(answers: Answers, versions: Mapping[str, Sequence[Written]], *, dead: Collection[str] = ()) -> int:
    """How many accepted ids have no object yet: cheap enough to be polled."""
    return len(answers.accepted.keys() - {key.rpartition("/")[2] for key in versions} - set(dead))


@dataclass(frozen=True, slots=True)
class Sample:
    """One look from outside: the group's commits, and how many writes the store had had when they were known."""

    committed: Mapping[int, int]  # next offset to read, by partition; absent where there is no commit
    writes: int


@dataclass(frozen=True, slots=True)
class Logged:
    """One record as it lies in the topic. `id` is None for what needs no object (a tombstone)."""

    partition: int
    offset: int
    id: str | None


def ahead_of_store(
    samples: Sequence[Sample],
    log: Sequence[Logged],
    versions: Mapping[str, Sequence[Written]],
    *,
    dead: Collection[str] = (),
) -> list[str]:
    """Each sample whose commit lies past a record that the store did not have by then, as a line for a person.

    The commit of a partition says: all below is stored. So all records below it must have been written by the sample's
    last write. Holes (aborted records, markers, what retention took) are no records and need nothing.
    """
    first_write: dict[str | None, int] = {None: 0, **dict.fromkeys(dead, 0)}
    for key, written in versions.items():
        record_id = key.rpartition("/")[2]
        sequence = min(version.sequence for version in written)
        first_write[record_id] = min(first_write.get(record_id, sequence), sequence)
    by_partition: dict[int, list[Logged]] = defaultdict(list)
    for record in sorted(log, key=lambda record: record.offset):
        by_partition[record.partition].append(record)
    found = []
    for partition, records in by_partition.items():
        offsets = [record.offset for record in records]
        needed = [first_write.get(record.id, float("inf")) for record in records]
        highest = list(itertools.accumulate(needed, max))  # write by which all records up to here were stored
        for sample in samples:
            below = bisect.bisect_left(offsets, sample.committed.get(partition, 0))
            if below and highest[below - 1] > sample.writes:
                first = next(i for i in range(below) if needed[i] > sample.writes)
                found.append(
                    f"partition {partition} committed {sample.committed[partition]} after {sample.writes} writes, "
                    f"but offset {offsets[first]} ({records[first].id}) was stored by write {needed[first]:.0f}"
                )
    return found


def rewinds(samples: Sequence[Sample]) -> list[str]:
    """Each commit that is lower than the one before it, as a line for a person. A vanished one (no group) is none."""
    found = []
    for before, after in itertools.pairwise(samples):
        for partition, offset in after.committed.items():
            if offset < before.committed.get(partition, 0):
                found.append(f"partition {partition}: {before.committed[partition]}, then {offset}")
    return found
