"""Group commit: what goes into a batch, what waits, and that a batch is never larger than it was measured."""

from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.batching import BATCH_HEADER_BYTES, Part, PartitionQueue, Submission
from services.ingest.problems import Code, Problem
from shared.record import Header, Stamp

COLLECTION = "01890a5d-ac96-774b-bcce-b302099a8057"
Answers = list[Problem | None]


def headers_of(index: int) -> list[Header]:
    return [("i", b"%d" % index)]


def submission(*sizes: int, deadline_s: float = 10.0, answers: Answers | None = None) -> Submission:
    return Submission(
        [b"x" * size for size in sizes],
        headers_of,
        key=None,
        deadline_s=deadline_s,
        notify=(answers if answers is not None else []).append,
    )


OVERHEAD = submission(0).overhead_bytes


def batch_of(*sizes: int) -> int:
    """The batch size that these values just fit into."""
    return BATCH_HEADER_BYTES + sum(sizes) + OVERHEAD * len(sizes)


def spans(parts: list[Part]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in parts]


def test_small_collections_share_a_batch() -> None:
    """Whatever waits and fits goes with the next produce."""
    queue = PartitionQueue(10_000)
    waiting = [submission(10, 20), submission(5), submission(7)]
    for one in waiting:
        queue.push(one)
    parts = queue.take(batch_of(10, 20, 5, 7))
    assert [part.submission for part in parts] == waiting
    assert spans(parts) == [(0, 2), (0, 1), (0, 1)]
    assert (len(queue), queue.bytes) == (0, 0)


def test_a_collection_is_not_divided_to_fill_a_batch() -> None:
    """A collection that fits into a batch of its own waits for one: it is written whole or not at all."""
    queue = PartitionQueue(10_000)
    queue.push(submission(10, 10))
    queue.push(submission(10, 10))
    limit = batch_of(10, 10, 10)
    assert spans(queue.take(limit)) == [(0, 2)]
    assert spans(queue.take(limit)) == [(0, 2)]
    assert queue.take(limit) == []


def test_only_a_collection_larger_than_a_batch_is_cut() -> None:
    """Three values in batches of two: 2, then the last one together with the next collection."""
    queue = PartitionQueue(10_000)
    queue.push(submission(10, 10, 10))
    queue.push(submission(10))
    limit = batch_of(10, 10)
    first = queue.take(limit)
    assert (spans(first), first[0].last) == ([(0, 2)], False)
    second = queue.take(limit)
    assert spans(second) == [(2, 3), (0, 1)]
    assert second[0].last
    assert queue.bytes == 0


def test_a_failed_collection_is_not_continued() -> None:
    """Once a cut collection is answered, its rest is not written."""
    queue = PartitionQueue(10_000)
    queue.push(submission(10, 10, 10))
    limit = batch_of(10)
    queue.take(limit)[0].submission.settle(Problem(Code.OUTCOME_UNKNOWN, ""))
    assert queue.take(limit) == []
    assert queue.bytes == 0


def test_the_queue_is_bounded_but_never_closed_to_the_largest() -> None:
    """Past its bound the queue takes nothing; an empty one takes any collection."""
    queue = PartitionQueue(500)
    assert queue.has_room(10_000)
    queue.push(submission(400))
    assert not queue.has_room(500)


def test_late_collections_are_answered_once() -> None:
    """At its deadline a waiting collection leaves the queue; one that nobody waits for leaves silently."""
    queue = PartitionQueue(10_000)
    answers: Answers = []
    gone, late, early = submission(1), submission(1, answers=answers), submission(1, deadline_s=20)
    for one in (gone, late, early):
        queue.push(one)
    gone.abandon()
    assert queue.due(9.9) == []
    assert queue.due(10.0) == [late]
    late.settle(None)
    late.settle(None)
    assert answers == [None]
    assert queue.bytes == early.left_bytes


@given(st.lists(st.integers(0, 30), max_size=8), st.lists(st.integers(0, 30), max_size=8), st.integers(0, 31))
def test_a_moved_collection_keeps_nobody_waiting(own: list[int], moved: list[int], now_s: int) -> None:
    """What comes from another partition stands by its deadline: whoever is due is told so, whoever came from where."""
    queue = PartitionQueue(10_000)
    waiting = [submission(1, deadline_s=deadline_s) for deadline_s in sorted(own)]
    for one in waiting:
        queue.push(one)
    come = [submission(1, deadline_s=deadline_s) for deadline_s in sorted(moved)]
    for one in reversed(come):  # as `give_away` offers them
        queue.insert(one)
    due = queue.due(float(now_s))
    assert [one.deadline_s for one in due] == sorted(d for d in (*own, *moved) if d <= now_s)
    assert [one for one in due if one in come] == come[: sum(d <= now_s for d in moved)]
    assert queue.bytes == sum(one.left_bytes for one in (*waiting, *come) if one.deadline_s > now_s)


@given(st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=12), max_size=12), st.integers(200, 900))
def test_every_record_goes_once_and_in_order(collections: list[list[int]], limit: int) -> None:
    """Whatever the sizes, every record is taken exactly once, in order, in batches within the limit."""
    queue = PartitionQueue(1_000_000)
    waiting = [submission(*sizes) for sizes in collections]
    for one in waiting:
        queue.push(one)
    taken: dict[int, list[int]] = {id(one): [] for one in waiting}
    while parts := queue.take(limit):
        size = batch_of(*(len(part.submission.values[i]) for part in parts for i in range(part.start, part.stop)))
        assert size <= limit or (len(parts) == 1 and parts[0].stop - parts[0].start == 1)
        for part in parts:
            taken[id(part.submission)] += range(part.start, part.stop)
    assert [taken[id(one)] for one in waiting] == [list(range(len(sizes))) for sizes in collections]
    assert (queue.bytes, len(queue)) == (0, 0)


@given(
    values=st.lists(st.binary(max_size=5000), min_size=1, max_size=40),
    key=st.none() | st.binary(min_size=1, max_size=256),
    version=st.text(max_size=40),
    trace=st.booleans(),
)
def test_a_batch_is_never_larger_than_measured(
    values: list[bytes], key: bytes | None, version: str, *, trace: bool
) -> None:
    """The measure is an upper bound of what the client builds: a batch within it is never refused for its size."""
    stamp = Stamp.of(
        collection_id=COLLECTION,
        folder="f" * 256,
        version=version.encode("utf-8", "ignore").decode(),
        received_ns=2**63 - 1,
        request_id="r" * 128,
        count=len(values),
        traceparent="00-" + "0" * 32 + "-" + "0" * 16 + "-00" if trace else None,
    )
    measured = Submission(values, stamp.headers, key=key, deadline_s=0, notify=lambda _: None).left_bytes
    batch = BatchBuilder(2**30, 0)
    for index, value in enumerate(values):
        batch.append(timestamp=None, key=key, value=value, headers=stamp.headers(index))
    assert batch.size() <= BATCH_HEADER_BYTES + measured
