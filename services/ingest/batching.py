"""Which waiting records go into the next batch of one partition. Pure: no clock, no client.

Owns the queue of one partition and the rules of group commit: a collection goes whole into one batch where it fits, so
that it is written whole or not at all; only one larger than a batch is cut, and then it goes alone. Sizes are upper
bounds of what the broker will measure, so a batch never exceeds the topic's `max.message.bytes`.
"""

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from services.ingest.problems import Code, Problem
from shared.record import Header

BATCH_HEADER_BYTES = 61
"""Length of a record batch's own header (magic 2): Kafka protocol guide, *Record Batch*."""

_RECORD_FRAME_BYTES = 41
"""Most that a record adds to key, value and headers: length 5, attributes 1, deltas of time 10 and offset 5,
lengths of key and value 5 + 5, number of headers 5, and 5 to spare."""
_HEADER_FRAME_BYTES = 4  # lengths of a name and of a value, two bytes each: both are below 8 KiB
_VARYING_BYTES = 20  # the index stands in two headers, at most 10 digits each


def record_overhead_bytes(key: bytes | None, headers: Sequence[Header]) -> int:
    """The most that a record of this collection takes beyond its value, given the headers of its first payload."""
    size = _RECORD_FRAME_BYTES + _VARYING_BYTES + len(headers) * _HEADER_FRAME_BYTES
    for name, value in headers:
        size += len(name) + len(value)
    return size + len(key) if key else size


def record_too_large(index: int, limit_bytes: int) -> Problem:
    """The refusal of a payload that no record can hold."""
    return Problem(
        Code.RECORD_TOO_LARGE,
        f"payload {index} is larger than the topic takes ({limit_bytes} bytes with headers)",
    )


class Written(Enum):
    """What is known of a collection whose answer is due."""

    NOTHING = "nothing"  # no record of it can be in the log
    UNKNOWN = "unknown"  # some may be


class Submission:
    """One collection on its way through one partition's writer. Owned by the writer until it is settled."""

    __slots__ = (
        "_notify",
        "deadline_s",
        "first_headers",
        "headers_of",
        "key",
        "left_bytes",
        "moved",
        "next",
        "overhead_bytes",
        "request_id",
        "settled",
        "values",
        "written",
    )

    def __init__(
        self,
        values: list[bytes],
        headers_of: Callable[[int], list[Header]],
        *,
        key: bytes | None,
        deadline_s: float,
        notify: Callable[[Problem | None], None],
        request_id: str = "",
    ) -> None:
        self.values = values
        self.headers_of = headers_of  # index → the record's headers
        self.key = key
        self.request_id = request_id  # for the log
        self.deadline_s = deadline_s  # the loop's clock; the answer is due by then
        self.first_headers = headers_of(0)
        self.overhead_bytes = record_overhead_bytes(key, self.first_headers)  # of each record, beyond its value
        self.left_bytes = sum(map(len, values)) + len(values) * self.overhead_bytes  # not yet in an acked batch
        self.next = 0  # first value that no batch has taken
        self.written = Written.NOTHING
        self.moved = False  # from one partition's queue to another's; once is enough to flee a leader that is gone
        self.settled = False
        self._notify = notify

    def too_large(self, batch_bytes_max: int) -> Problem | None:
        """The refusal, where a payload fits into no record batch of that size (the topic's `max.message.bytes`)."""
        limit = batch_bytes_max - BATCH_HEADER_BYTES - self.overhead_bytes
        if self.next or self.left_bytes > limit:  # else all that it has is left, and no single payload can be over it
            for index, value in enumerate(self.values):
                if len(value) > limit:
                    return record_too_large(index, limit)
        return None

    @property
    def movable(self) -> bool:
        """Whether another partition may have it: no key pins it, and no record of it has been in a batch."""
        return self.key is None and not (self.moved or self.settled or self.next) and self.written is Written.NOTHING

    def settle(self, problem: Problem | None) -> None:
        """Answer the request, None for success; a second call does nothing."""
        if not self.settled:
            self.settled = True
            self._notify(problem)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.settled = True


@dataclass(slots=True)
class Part:
    """A run of one collection's records in a batch: values `start` to `stop`, the latter excluded."""

    submission: Submission
    start: int
    stop: int

    @property
    def last(self) -> bool:
        """Whether the collection is complete with this part."""
        return self.stop == len(self.submission.values)

    def halves(self) -> tuple["Part", "Part"]:
        """The part cut in two, for a broker that takes less than it said."""
        middle = (self.start + self.stop) // 2
        return Part(self.submission, self.start, middle), Part(self.submission, middle, self.stop)


class PartitionQueue:
    """Collections that wait for one partition, bounded in bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0  # sum of left_bytes over the queue
        self._waiting: deque[Submission] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, size_bytes: int) -> bool:
        """Whether a collection of this size may come in. An empty queue takes any: else the largest never would."""
        return not self._waiting or self.bytes + size_bytes <= self.bytes_max

    def push(self, submission: Submission) -> None:
        """Add a collection that has just come: its deadline is the last."""
        self._waiting.append(submission)
        self.bytes += submission.left_bytes

    def insert(self, submission: Submission) -> None:
        """Add a collection that has waited elsewhere, in its place by deadline: `due` looks no further than needed."""
        place = bisect.bisect_left(self._waiting, submission.deadline_s, key=attrgetter("deadline_s"))
        self._waiting.insert(place, submission)
        self.bytes += submission.left_bytes

    def give_away(self, take: Callable[[Submission], bool]) -> None:
        """Offer what may be moved to `take`, the last first, until one is not taken."""
        kept: deque[Submission] = deque()
        while self._waiting:
            submission = self._waiting.pop()
            if not submission.movable:
                kept.appendleft(submission)
            elif take(submission):
                self.bytes -= submission.left_bytes
            else:
                self._waiting.append(submission)
                break
        self._waiting.extend(kept)

    def take(self, batch_bytes_max: int) -> list[Part]:
        """Take the next batch's parts from the front; empty only where nothing waits.

        Args:
            batch_bytes_max: the topic's `max.message.bytes`.

        """
        room = batch_bytes_max - BATCH_HEADER_BYTES
        parts: list[Part] = []
        while self._waiting:
            submission = self._waiting[0]
            if submission.settled:
                self._drop_first()
            elif submission.left_bytes <= room:
                room -= submission.left_bytes
                parts.append(Part(submission, submission.next, len(submission.values)))
                self._drop_first()
            elif parts:
                break
            else:
                return [self._cut(submission, room)]
        return parts

    def due(self, now_s: float) -> list[Submission]:
        """Take out the collections whose deadline has passed. They stand in the order of their deadlines."""
        late: list[Submission] = []
        while self._waiting and (self._waiting[0].settled or self._waiting[0].deadline_s <= now_s):
            late.append(self._drop_first())
        return [submission for submission in late if not submission.settled]

    def _drop_first(self) -> Submission:
        submission = self._waiting.popleft()
        self.bytes -= submission.left_bytes
        return submission

    def _cut(self, submission: Submission, room: int) -> Part:
        """As many records of the first collection as fit, at least one; the rest keeps its place."""
        start = stop = submission.next
        taken = 0
        for value in submission.values[start:]:
            size = len(value) + submission.overhead_bytes
            if taken and taken + size > room:
                break
            taken += size
            stop += 1
        submission.next = stop
        submission.left_bytes -= taken
        self.bytes -= taken
        if stop == len(submission.values):
            self._waiting.popleft()
        return Part(submission, start, stop)
