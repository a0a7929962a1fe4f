"""How many cases the fuzzers ask: one switch gives each its short or its long form.

`SPILLWAY_FUZZ=long` (`make fuzz`) asks 20,000 in all; without it some hundreds, so that `make test` stays quick.
"""

import os
from dataclasses import dataclass

SWITCH = "SPILLWAY_FUZZ"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Cases of each fuzzer, and the seconds that one of them may take."""

    legal: int
    broken: int
    packed: int
    documented: int
    forbidden: int
    heads: int
    test_limit_s: float

    @property
    def form(self) -> str:
        """For the header of the report."""
        cases = self.legal + self.broken + self.packed + self.documented + self.forbidden + self.heads
        return f"{'long' if self is LONG else 'short'} form, {cases} cases"


SHORT = Sizes(legal=200, broken=300, packed=100, documented=60, forbidden=60, heads=200, test_limit_s=120)
LONG = Sizes(legal=6_000, broken=9_000, packed=1_500, documented=750, forbidden=750, heads=3_000, test_limit_s=1800)


def chosen() -> Sizes:
    """What the environment asks for."""
    return LONG if os.environ.get(SWITCH) == "long" else SHORT
