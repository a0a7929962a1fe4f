"""What a job would do and cost, before it does it. Pure: sizes, prices and the probe's figures in, a plan out."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prices:
    """Of 1,000 requests. `source`: when and where they are from."""

    put: float
    get: float
    list_: float
    currency: str
    source: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What a short look at the beginning of the range showed.

    Attributes:
        offsets: how many offsets were read.
        records: records among them that have an object.
        matching: of these, those that the filters leave.
        bytes: of the values of the matching ones.
        requests_a_second: how fast S3 answered HEADs at the concurrency of the job; None: it was not asked.
        missing: of the HEADs that were answered, how many objects were not there.
        asked: HEADs that were answered.

    """

    offsets: int = 0
    records: int = 0
    matching: int = 0
    bytes: int = 0
    requests_a_second: float | None = None
    missing: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate. `exact`: nothing is projected, the probe read the whole range and asked for what it had to."""

    records: int
    bytes: int
    puts: int
    heads: int
    cost: float
    seconds: float | None
    exact: bool


def make_plan(offsets: int, probe: Probe, prices: Prices, *, only_missing: bool, rate_per_s: float | None) -> Plan:
    """Project the probe on the whole range of so many offsets."""
    whole = probe.offsets >= offsets
    factor = 1.0 if whole or not probe.offsets else offsets / probe.offsets
    records, size = math.ceil(probe.matching * factor), math.ceil(probe.bytes * factor)
    share_missing = probe.missing / probe.asked if only_missing and probe.asked else 1.0
    puts, heads = math.ceil(records * share_missing), records if only_missing else 0
    exact = whole and (not only_missing or probe.asked >= probe.matching)
    cost = puts / 1000 * prices.put + heads / 1000 * prices.get
    seconds = None
    if probe.requests_a_second:
        put_per_s = min(probe.requests_a_second, rate_per_s or math.inf)
        seconds = puts / put_per_s + heads / probe.requests_a_second
    return Plan(records, size, puts, heads, cost, seconds, exact)
