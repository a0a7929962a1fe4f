"""The window, exhaustively: wrong here is silent loss."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.window import Run, Window


def contiguous(offsets: list[int], done: set[int], start: int) -> int:
    """What may be committed, by the plainest definition: after the longest all-done prefix."""
    committable = start
    for offset in offsets:
        if offset not in done:
            break
        committable = offset + 1
    return committable


def opened(offsets: list[int], start: int) -> tuple[Window, dict[int, Run]]:
    window = Window()
    window.follow(start)
    return window, {offset: window.admit(offset, 10, 0) for offset in offsets}


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("stride", [1, 3], ids=["dense", "holes"])
def test_every_completion_order_commits_only_the_contiguous_prefix(count: int, stride: int) -> None:
    """In each of the n! orders, after each completion, the committable offset is that of the all-done prefix."""
    offsets = [100 + stride * i for i in range(count)]
    for order in permutations(offsets):
        window, runs = opened(offsets, 100)
        done: set[int] = set()
        for offset in order:
            window.complete(runs[offset])
            done.add(offset)
            assert window.committable == contiguous(offsets, done, 100), (order, done)
        assert len(window) == 0
        assert window.pending_bytes == 0


@given(
    gaps=st.lists(st.integers(1, 50), min_size=1, max_size=200),
    start=st.integers(0, 10**15),
    data=st.data(),
)
def test_any_interleaving_of_admissions_and_completions(gaps: list[int], start: int, data: st.DataObject) -> None:
    """However admissions and completions mix, with any holes: prefix only, never back, bytes add up."""
    window = Window()
    window.follow(start)
    offsets, offset = [], start - 1
    for gap in gaps:
        offset += gap
        offsets.append(offset)
    waiting = list(offsets)
    in_flight: list[Run] = []
    done: set[int] = set()
    last = start
    while waiting or in_flight:
        if waiting and (not in_flight or data.draw(st.booleans())):
            in_flight.append(window.admit(waiting.pop(0), 7, 0))
        else:
            run = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            window.complete(run)
            done.add(run.last_offset)
        committable = window.committable
        assert committable is not None
        assert committable >= last
        admitted = [o for o in offsets if o not in waiting]
        assert committable == contiguous(admitted, done, start)
        assert window.pending_bytes == 7 * len(in_flight)
        last = committable


def test_nothing_is_committable_before_anything_is_known() -> None:
    """A window that never learnt where it starts commits nothing."""
    window = Window()
    assert window.committable is None
    run = window.admit(5, 1, 0)
    assert window.committable is None
    window.complete(run)
    assert window.committable == 6


def test_an_empty_window_follows_the_position_and_never_back() -> None:
    """Behind transaction markers the position moves without records; a full window ignores it; it never goes back."""
    window, runs = opened([10], 10)
    window.follow(50)
    assert window.committable == 10
    window.complete(runs[10])
    assert window.committable == 11
    window.follow(13)
    assert window.committable == 13
    window.follow(12)
    assert window.committable == 13


def test_offsets_that_do_not_go_up_are_refused() -> None:
    """A batch polled across a reassignment must not enter ahead of older offsets."""
    window, _ = opened([10, 12], 10)
    for offset in (12, 11, 9):
        with pytest.raises(ValueError, match="not above"):
            window.admit(offset, 1, 0)
    window, runs = opened([3], 3)
    window.complete(runs[3])
    window.follow(8)
    with pytest.raises(ValueError, match="not above"):
        window.admit(7, 1, 0)
    window.admit(8, 1, 0)


def test_completing_twice_is_an_error() -> None:
    """A run has one owner; a second completion is a bug that must not pass."""
    window, runs = opened([1, 2], 1)
    window.complete(runs[2])
    with pytest.raises(ValueError, match="twice"):
        window.complete(runs[2])
