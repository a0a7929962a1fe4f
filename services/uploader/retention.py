"""The clock of retention: how long until Kafka may delete a record that is not stored yet. Pure.

Kafka deletes a segment once its newest record is older than `retention.ms`, so a record lives at least that long, and
usually longer: the clock errs on the side of the alarm. `retention.bytes` may delete earlier and has no clock.
"""

import math


def left_s(retention_ms: int | None, oldest_ms: int | None, now_s: float) -> float:
    """Seconds until retention may delete the oldest record that is not stored.

    Args:
        retention_ms: the topic's `retention.ms`; None: records stay for ever.
        oldest_ms: when that record was written, in milliseconds since 1970; None: everything is stored.
        now_s: seconds since 1970.

    Returns:
        Infinity where nothing is deleted, the whole retention where nothing waits, 0 where it may be gone already.

    """
    if retention_ms is None:
        return math.inf
    if oldest_ms is None:
        return retention_ms / 1000
    return max(0.0, (oldest_ms + retention_ms) / 1000 - now_s)
