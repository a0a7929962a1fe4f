"""Medians, and ratios with their spread over interleaved runs. Pure.

The machine's speed drifts within minutes, and others work on it: so A and B run in turn, each round gives one ratio of
neighbours, and the figure is the median of these. The spread is between the quartiles of the rounds; with three rounds
or fewer it is from the lowest to the highest.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_FEW = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and between what the values lay."""

    median: float
    low: float
    high: float
    count: int

    @property
    def relative(self) -> float:
        """How wide it is, in parts of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """The median of some values and their quartiles.

    Raises:
        ValueError: there are none.

    """
    if not values:
        raise ValueError("a median of nothing")
    if len(values) <= _FEW:
        return Spread(statistics.median(values), min(values), max(values), len(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def ratio(over: Sequence[float | None], under: Sequence[float | None]) -> Spread | None:
    """The ratio of what was measured in the same rounds; None where no round has both.

    Args:
        over: one value a round, None where that run failed.
        under: likewise.

    """
    found = [a / b for a, b in zip(over, under, strict=False) if a is not None and b]
    return spread(found) if found else None
