"""The clock of retention, as a table with its arithmetic."""

import math

import pytest

from services.uploader.retention import left_s

HOUR_MS = 3_600_000
NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("retention_ms", "written_s_ago", "left"),
    [
        (HOUR_MS, 0, 3600.0),  # just written: the whole hour
        (HOUR_MS, 600, 3000.0),  # 3600 - 600
        (HOUR_MS, 3600, 0.0),  # may be gone now
        (HOUR_MS, 9000, 0.0),  # its segment lives on, but nobody says how long: never below 0
        (HOUR_MS, -5, 3605.0),  # the broker's clock is ahead of ours
        (HOUR_MS, None, 3600.0),  # everything is stored: what comes next has the whole hour
        (None, 9000, math.inf),  # retention.ms=-1: without end
        (None, None, math.inf),
        (0, 0, 0.0),
    ],
)
def test_seconds_left(retention_ms: int | None, written_s_ago: float | None, left: float) -> None:
    """A record lives for retention.ms from its own timestamp on; less is never promised, and never a negative time."""
    oldest_ms = None if written_s_ago is None else int((NOW_S - written_s_ago) * 1000)
    assert left_s(retention_ms, oldest_ms, NOW_S) == left
