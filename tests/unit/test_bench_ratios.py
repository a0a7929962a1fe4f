"""The benchmark's figures: medians and ratios of interleaved rounds."""

import pytest

from bench.ratios import Spread, ratio, spread


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Spread(3, 3, 3, 1)),
        ([5.0, 1.0, 3.0], Spread(3, 1, 5, 3)),  # few: lowest to highest
        ([1.0, 2.0, 3.0, 4.0, 100.0], Spread(3, 2, 4, 5)),  # quartiles: one disturbed round does not widen it
    ],
)
def test_a_median_comes_with_its_spread(values: list[float], expected: Spread) -> None:
    """Whatever the order."""
    assert spread(values) == expected
    assert spread(values[::-1]) == expected


def test_there_is_no_median_of_nothing() -> None:
    """It would be a figure that nobody measured."""
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_a_ratio_is_of_neighbours_in_time() -> None:
    """Rounds of a machine that grows three times slower: the ratio of each is 0.5, that of the two medians as well; but
    with one round missing the medians' would be 1/3 (20 over 60), and the ratio of rounds stays.
    """
    found = ratio([10.0, 20.0, 30.0], [20.0, 40.0, 60.0])
    assert found == Spread(0.5, 0.5, 0.5, 3)
    assert ratio([10.0, 20.0, 30.0], [None, None, 60.0]) == Spread(0.5, 0.5, 0.5, 1)


def test_a_failed_run_has_no_ratio() -> None:
    """None, zero and a missing round give none; the others count."""
    assert ratio([None, 2.0, 3.0, 4.0], [1.0, 0.0, 6.0]) == Spread(0.5, 0.5, 0.5, 1)
    assert ratio([None], [1.0]) is None
    assert ratio([], []) is None


def test_how_wide_a_spread_is() -> None:
    """In parts of its median: what `twice within 10 %` is judged by."""
    assert Spread(2, 1.9, 2.1, 5).relative == pytest.approx(0.1)
    assert Spread(0, 0, 0, 1).relative == 0
