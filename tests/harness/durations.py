"""How long faults last: one switch gives each fault test its short or its long form.

`SPILLWAY_FAULTS=long` (`make faults`) lets faults last as long as the promise names them, 20 s and 60 s for a total
outage of S3. Without it they last as long as still breaks a wrong uploader.
"""

import os
from dataclasses import dataclass

SWITCH = "SPILLWAY_FAULTS"


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds that faults last, and that a test may take."""

    fault_s: float  # one fault among several of a test
    away_s: float  # a server that is gone or frozen
    outage_s: float  # S3 takes nothing at all, with load on
    test_limit_s: float

    @property
    def form(self) -> str:
        """For the header of the report."""
        return "long" if self is LONG else "short"


SHORT = Durations(fault_s=3, away_s=12, outage_s=15, test_limit_s=150)
LONG = Durations(fault_s=20, away_s=20, outage_s=60, test_limit_s=400)


def chosen() -> Durations:
    """What the environment asks for."""
    return LONG if os.environ.get(SWITCH) == "long" else SHORT
