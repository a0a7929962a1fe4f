"""How fast a job looks, and where it is shown."""

import io
import logging
from contextlib import redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.display import SPEED_OVER_S, Lines, Speed, View, display_of, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (7, "7 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Rounded once, so that no minute has 60 seconds."""
    assert duration(seconds) == text


def speeds(*met: tuple[float, int]) -> list[float]:
    speed = Speed()
    return [speed.of(count, now_s) for now_s, count in met]


def test_a_speed_is_over_the_last_ten_seconds() -> None:
    """What was done before them does not count any more; the first look knows nothing."""
    assert speeds((0, 0), (1, 100), (10, 1000)) == [0.0, 100.0, 100.0]
    # From 10 s on: 20 records in each second; at 30 s the 100/s of the beginning are forgotten.
    met = [(float(at), 100 * at if at <= 10 else 1000 + 20 * (at - 10)) for at in range(31)]
    assert speeds(*met)[-1] == 20.0
    assert speeds(*met)[15] == pytest.approx((500 + 100) / 10)  # 5 to 10 s at 100/s, 10 to 15 s at 20/s


def test_a_job_that_stands_comes_to_zero() -> None:
    """Within SPEED_OVER_S, so that the time left is not that of a job that runs."""
    assert speeds((0, 0), (1, 500), (1 + SPEED_OVER_S, 500), (2 + SPEED_OVER_S, 500))[-1] == 0.0


def test_looks_that_come_seldom_still_have_a_speed() -> None:
    """One a minute: over that minute. Two at the same moment: none."""
    assert speeds((0, 0), (60, 600), (120, 1800)) == [0.0, 10.0, 20.0]
    assert speeds((5, 10), (5, 20)) == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(1, 30_000), st.integers(0, 10**6)), min_size=1, max_size=50))
def test_no_speed_is_above_the_fastest_or_below_the_slowest(steps: list[tuple[int, int]]) -> None:
    """It is an average of what was seen: of no step more than once, and of none that was not."""
    speed, now_ms, count = Speed(), 0, 0
    assert speed.of(0, 0.0) == 0.0
    rates: list[float] = []
    for pause_ms, more in steps:
        now_ms, count = now_ms + pause_ms, count + more
        rates.append(more / pause_ms * 1000)
        assert min(rates) * 0.999 <= speed.of(count, now_ms / 1000) <= max(rates) * 1.001


def test_a_speed_keeps_what_it_needs() -> None:
    """Four looks a second for an hour: no more in memory than of the last ten seconds, and the one before them."""
    speed = Speed()
    for at in range(4 * 3600):
        speed.of(at, at / 4)
    assert len(speed._counts) <= 4 * SPEED_OVER_S + 2


VIEW = View({0: (5, 10), 1: (0, 0)}, records=4, bytes=400, errors=1, rate=2.04, seconds_left=2.4, trouble="S3: 503")


def test_lines_are_few_and_the_last_view_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Of many views within a moment, the first and the last: a log is not flooded, and its end is true."""
    caplog.set_level(logging.INFO)
    lines = Lines("outage-1")
    for records in range(1000):
        lines.show(View({0: (records, 1000)}, records, 0, 0, 0.0, None))
    lines.close()
    lines.close()
    assert [getattr(each, "records") for each in caplog.records] in ([0, 999], [0, 500, 999])  # noqa: B009 - extra


def test_a_line_has_the_whole_and_each_partition(caplog: pytest.LogCaptureFixture) -> None:
    """As fields, for whoever reads JSON lines."""
    caplog.set_level(logging.INFO)
    Lines("outage-1").show(VIEW)
    told = vars(caplog.records[0])
    names = ("job", "offsets_done", "offsets", "records", "bytes", "errors", "records_per_s", "seconds_left", "trouble")
    assert [told[name] for name in names] == ["outage-1", 5, 10, 4, 400, 1, 2.0, 2, "S3: 503"]
    assert told["partitions"] == {"0": [5, 10], "1": [0, 0]}


def test_bars_are_for_terminals_alone() -> None:
    """Where standard error goes to a file, there are lines: a log is no place for a bar."""
    with redirect_stderr(io.StringIO()):
        assert isinstance(display_of("outage-1"), Lines)
