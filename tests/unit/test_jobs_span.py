"""Ranges as offsets, against a log that is looked through record by record."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.uploader.jobs.bounds import At, Beginning, Offsets
from services.uploader.jobs.span import (
    CREATE_TIME_MARGIN_MS,
    Gone,
    LogEnds,
    Range,
    Span,
    beyond,
    close,
    group_offsets,
    widen,
)

TIMES = (1, 2, 3)
BOUNDS = (0, 1, 2, 3, 4)  # before all, at each, after all

Log = tuple[tuple[int, ...], int, frozenset[int]]
"""The times of the records that were ever written, by offset; the first offset left; the offsets that are holes."""


def logs(records_max: int) -> Iterator[Log]:
    """Every log of up to so many records whose times do not go down, cut everywhere, with up to one hole."""
    for count in range(records_max + 1):
        for times in itertools.combinations_with_replacement(TIMES, count):
            for begin in range(count + 1):
                for hole in (None, *range(begin, count)):
                    yield times, begin, frozenset() if hole is None else frozenset({hole})


def alive(log: Log) -> dict[int, int]:
    """The time of each record that can be read, by offset."""
    times, begin, holes = log
    return {offset: at for offset, at in enumerate(times) if offset >= begin and offset not in holes}


def first_since(log: Log, ms: int) -> int | None:
    """What ListOffsets answers for a time."""
    return next((offset for offset, at in alive(log).items() if at >= ms), None)


def ends_of(log: Log, lower: int | None, upper: int | None) -> LogEnds:
    return LogEnds(
        begin=log[1],
        end=len(log[0]),
        oldest_ms=next(iter(alive(log).values()), None),
        at_from=None if lower is None else first_since(log, lower),
        at_to=None if upper is None else first_since(log, upper),
    )


def read(log: Log, span: Span) -> set[int]:
    return {offset for offset in alive(log) if span.begin <= offset < span.end}


def test_a_time_range_has_exactly_the_records_of_that_time() -> None:
    """With times that do not go down, what is read are the records with from <= time < to: none missing, none besides.

    What is deleted and may have been in the range is always told, with its offsets; what cannot have been, never.
    """
    cases = 0
    for log, lower, upper in itertools.product(logs(5), BOUNDS, (None, *BOUNDS)):
        if upper is not None and upper <= lower:
            continue
        cases += 1
        times, begin, _ = log
        (span,), gone = close(At(lower), {0: ends_of(log, lower, upper)}, to_end=upper is None)
        meant = {offset for offset, at in enumerate(times) if at >= lower and (upper is None or at < upper)}
        assert read(log, span) == meant & alive(log).keys(), (log, lower, upper)
        assert begin <= span.begin <= span.end <= len(times), (log, lower, upper)

        told = {offset for one in gone for offset in range(one.begin, one.end)}
        assert {offset for offset in meant if offset < begin} <= told, (log, lower, upper)
        assert told <= set(range(begin))
        # Deleted ones were written no later than the oldest left; one of that time or earlier may be of `lower` itself.
        oldest = next(iter(alive(log).values()), None)
        possible = begin > 0 and (oldest is None or oldest >= lower)
        assert bool(gone) == possible, (log, lower, upper)
        assert all((one.since_ms, one.until_ms) == (lower, oldest) for one in gone)
    assert cases > 5000


def test_from_the_beginning_is_all_that_is_left_before_the_upper_bound() -> None:
    """Nothing of `beginning` can be gone."""
    for log, upper in itertools.product(logs(4), (None, *BOUNDS)):
        (span,), gone = close(Beginning(), {0: ends_of(log, None, upper)}, to_end=upper is None)
        assert read(log, span) == {offset for offset, at in alive(log).items() if upper is None or at < upper}
        assert begin_is_kept(log, span)
        assert gone == ()


def begin_is_kept(log: Log, span: Span) -> bool:
    return span.begin in (log[1], span.end)


OFFSETS = (None, 0, 1, 2, 3, 4, 5, 6)


def test_offsets_are_read_as_asked_and_what_is_gone_is_told_exactly() -> None:
    """Asked offsets are read as far as the log has them; told are exactly those below its beginning.

    An open lower end is the log's own beginning, of which nothing is gone; what is not written yet is not in range.
    """
    for begin, end in itertools.combinations_with_replacement(range(6), 2):
        for first, last in itertools.product(OFFSETS, OFFSETS):
            if first is not None and last is not None and last < first:
                continue
            asked = Offsets({0: (first, None if last is None else last + 1)})
            for to_end, at_to in ((True, None), (False, begin), (True, begin)):  # neither means anything here
                (span,), gone = close(asked, {0: LogEnds(begin, end, at_to=at_to)}, to_end=to_end)
                meant = set(range(begin if first is None else first, end if last is None else last + 1))
                case = (begin, end, first, last)
                assert set(range(span.begin, span.end)) == meant & set(range(begin, end)), case
                assert span.begin <= span.end, case
                told = [offset for one in gone for offset in range(one.begin, one.end)]
                assert told == sorted(meant & set(range(begin))), case
                assert all(one.since_ms is None and one.begin < one.end for one in gone), case


def test_each_partition_has_its_own_span_in_order() -> None:
    """Every partition that is asked for stands there, in order, an empty one too, and each is cut by its own log."""
    logs_of = {
        7: LogEnds(0, 10, oldest_ms=5, at_from=4),
        2: LogEnds(3, 3),  # all of it is gone
        0: LogEnds(0, 0),  # never had any
    }
    spans, gone = close(At(50), logs_of, to_end=True)
    assert spans == (Span(0, 0, 0), Span(2, 3, 3), Span(7, 4, 10))
    assert gone == (Gone(2, 0, 3, since_ms=50),)
    assert Range("payloads", spans, gone).offsets == 6


def test_records_written_after_the_ends_were_asked_for_are_not_in_range() -> None:
    """The end is the one that was read when the command began; a time that no record has reached is that end."""
    (span,), _ = close(At(5), {0: LogEnds(0, 10, at_from=4, at_to=None)}, to_end=False)
    assert span == Span(0, 4, 10)
    (span,), _ = close(At(5), {0: LogEnds(0, 10, at_from=None)}, to_end=True)
    assert span == Span(0, 10, 10)
    (span,), _ = close(At(5), {0: LogEnds(0, 10, at_from=9, at_to=8)}, to_end=False)  # a leader changed in between
    assert span.offsets == 0


@pytest.mark.parametrize("lower_ms", [0, 1, CREATE_TIME_MARGIN_MS, 10**12])
def test_widening_loses_nothing(lower_ms: int) -> None:
    """Where producers set the time, both ends move outwards by the margin, and no further than 1970."""
    lower, upper = widen(At(lower_ms), At(lower_ms + 1))
    assert lower == At(max(0, lower_ms - 300_000))
    assert upper == At(lower_ms + 300_001)
    assert widen(Beginning(), At(7)) == (Beginning(), At(300_007))
    assert widen(At(lower_ms), None) == (lower, None)  # the end of the log stays that


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ((None, None), None),
        ((0, 10), None),
        ((9, None), None),
        ((10, None), None),  # whatever comes from here on: nothing yet
        ((11, None), "partition 0 has no offset 10 yet: its log ends at 9"),
        ((0, 11), "partition 0 has no offset 10 yet: its log ends at 9"),
        ((None, 50), "partition 0 has no offset 49 yet: its log ends at 9"),
    ],
)
def test_offsets_beyond_the_log_are_named(asked: tuple[int | None, int | None], missing: str | None) -> None:
    """Of a log of ten records the last offset is 9."""
    assert beyond(Offsets({0: asked}), {0: LogEnds(begin=2, end=10)}) == missing


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (Gone(3, 0, 100), "partition 3: offsets 0 to 99 are gone from Kafka"),
        (
            Gone(0, 0, 5, since_ms=60_000),
            (
                "partition 0: offsets 0 to 4 are gone from Kafka: what of them was written since "
                "1970-01-01T00:01:00Z cannot be read any more"
            ),
        ),
        (
            Gone(0, 0, 5, since_ms=60_000, until_ms=120_000),
            (
                "partition 0: offsets 0 to 4 are gone from Kafka, and the oldest left is of 1970-01-01T00:02:00Z: "
                "what of them was written since 1970-01-01T00:01:00Z cannot be read any more"
            ),
        ),
    ],
)
def test_what_is_gone_in_words(gone: Gone, text: str) -> None:
    """The last offset is included, as in what an operator types."""
    assert str(gone) == text


def test_a_span_is_a_value() -> None:
    """Two of the same offsets are the same, so that reports can be compared."""
    assert replace(Span(0, 1, 5), begin=2) == Span(0, 2, 5)
    assert Span(0, 2, 5).offsets == 3


def offsets_of(spans: Sequence[Span]) -> list[int]:
    return [offset for span in spans for offset in range(span.begin, span.end)]


@given(
    st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 300), max_size=40), max_size=4),
    st.integers(1, 100),
)
@example({0: [5, 5, 4, 0]}, 1)
@example({0: []}, 10)
def test_grouped_offsets_cover_all_in_order_and_overlap_nowhere(wanted: dict[int, list[int]], gap: int) -> None:
    """Each wanted offset is in one span, begins and ends are wanted ones, and no two spans could be read in one go."""
    grouped = group_offsets(wanted, gap)
    assert list(grouped) == sorted(wanted)
    for partition, spans in grouped.items():
        covered = offsets_of(spans)
        assert covered == sorted(set(covered))
        assert set(wanted[partition]) <= set(covered)
        for span in spans:
            assert span.partition == partition
            assert span.begin in wanted[partition]
            assert span.end - 1 in wanted[partition]
            inside = sorted({offset for offset in wanted[partition] if span.begin <= offset < span.end})
            assert all(later - earlier <= gap for earlier, later in itertools.pairwise(inside))
        for earlier, later in itertools.pairwise(spans):
            assert later.begin - earlier.end >= gap


@pytest.mark.parametrize(
    ("gap", "spans"),
    [
        (1, ((0, 2), (4, 5), (10, 11))),  # neighbours alone
        (2, ((0, 2), (4, 5), (10, 11))),  # 4 - 2 = 2 is not nearer than 2
        (3, ((0, 5), (10, 11))),
        (6, ((0, 11),)),  # 10 - 5 = 5
    ],
)
def test_the_gap_counts_what_is_read_for_nothing(gap: int, spans: tuple[tuple[int, int], ...]) -> None:
    """Offsets between two wanted ones are read along only where they are fewer than the gap."""
    assert group_offsets({1: [10, 4, 1, 0]}, gap) == {1: tuple(Span(1, *each) for each in spans)}
