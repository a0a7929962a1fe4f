"""What a job would do and cost, with the arithmetic; and the turns of its rate."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.replay.plan import Plan, Prices, Probe, make_plan
from services.uploader.jobs.storing.rate import Rate

PRICES = Prices(put=0.005, get=0.0004, list_=0.005, currency="USD", source="2025-01")
HALF = Probe(offsets=1000, records=900, matching=600, bytes=60_000, requests_a_second=200.0, missing=3, asked=300)


def plan_of(offsets: int, probe: Probe, *, only_missing: bool = False, rate_per_s: float | None = None) -> Plan:
    return make_plan(offsets, probe, PRICES, only_missing=only_missing, rate_per_s=rate_per_s)


def test_a_range_that_was_read_to_its_end_is_counted() -> None:
    """No projection: what the probe has seen is what there is."""
    plan = plan_of(1000, HALF)
    assert plan.exact
    assert (plan.records, plan.bytes, plan.puts, plan.heads) == (600, 60_000, 600, 0)
    assert plan.cost == pytest.approx(0.003)  # 0.6 thousand PUTs at 0.005
    assert plan.seconds == 3.0  # 600 / 200


def test_the_rest_is_projected_by_offsets() -> None:
    """2,500 offsets, of which 1,000 were read: two and a half times of everything, rounded up."""
    plan = plan_of(2500, HALF)
    assert not plan.exact
    assert (plan.records, plan.bytes, plan.puts) == (1500, 150_000, 1500)
    assert plan.cost == pytest.approx(0.0075)
    assert plan.seconds == 7.5
    assert plan_of(1001, HALF).records == 601  # 600.6


def test_only_missing_asks_for_all_and_puts_the_share_that_is_missing() -> None:
    """1 in 100 of what was asked for is missing: of 6,000 records 60 PUTs, and 6,000 HEADs."""
    plan = plan_of(10_000, HALF, only_missing=True)
    assert (plan.records, plan.puts, plan.heads) == (6000, 60, 6000)
    assert plan.cost == pytest.approx(0.0003 + 0.0024)  # 0.06 * 0.005 + 6 * 0.0004
    assert plan.seconds == pytest.approx(30.3)  # (60 + 6000) / 200


def test_what_was_not_asked_may_all_be_missing() -> None:
    """Without an answer of S3 the plan is for the worst, and tells no time."""
    unasked = Probe(offsets=1000, records=900, matching=600, bytes=60_000)
    plan = plan_of(1000, unasked, only_missing=True)
    assert (plan.puts, plan.heads, plan.seconds) == (600, 600, None)


@pytest.mark.parametrize(("rate_per_s", "seconds"), [(None, 3.0), (50.0, 12.0), (1000.0, 3.0), (0.5, 1200.0)])
def test_a_rate_slows_puts_alone(rate_per_s: float | None, seconds: float) -> None:
    """600 PUTs at the slower of the rate and S3's 200/s; HEADs go on as fast as S3 answers."""
    assert plan_of(1000, HALF, rate_per_s=rate_per_s).seconds == seconds
    heads_s = 600 / 200
    missing = plan_of(1000, HALF, only_missing=True, rate_per_s=rate_per_s)
    assert missing.seconds == pytest.approx(heads_s + 6 / min(200, rate_per_s or math.inf))


def test_nothing_to_do_costs_nothing() -> None:
    """An empty range, and one with nothing but holes, tombstones and what the filters leave out."""
    assert plan_of(0, Probe()) == Plan(0, 0, 0, 0, 0.0, None, exact=True)
    assert plan_of(1000, Probe(offsets=1000, records=900), only_missing=True) == Plan(0, 0, 0, 0, 0.0, None, exact=True)


def test_a_probe_that_read_nothing_promises_nothing() -> None:
    """A broker too slow for the probe: the plan says that it is not exact."""
    plan = plan_of(1000, Probe())
    assert not plan.exact
    assert plan.seconds is None


@given(
    st.integers(0, 10**12),
    st.integers(0, 10**6),
    st.data(),
    st.booleans(),
    st.none() | st.floats(0.001, 1e9),
)
def test_every_plan_is_possible(
    offsets: int, read: int, data: st.DataObject, only_missing: bool, rate_per_s: float | None
) -> None:
    """Never fewer than the probe has seen, never more puts than records, no cost or time below 0."""
    records = data.draw(st.integers(0, read))
    matching = data.draw(st.integers(0, records))
    asked = data.draw(st.integers(0, matching))
    missing = data.draw(st.integers(0, asked))
    answers_per_s = data.draw(st.none() | st.floats(0.001, 1e6)) if asked else None
    probe = Probe(read, records, matching, matching * 100, answers_per_s, missing, asked)
    plan = plan_of(offsets, probe, only_missing=only_missing, rate_per_s=rate_per_s)
    assert plan.exact == (read >= offsets and (not only_missing or asked == matching))
    assert plan.records >= matching
    assert read == 0 or plan.records <= max(matching, offsets)
    assert 0 <= plan.puts <= plan.records
    assert plan.puts > 0 or not missing
    assert plan.heads == (plan.records if only_missing else 0)
    assert plan.cost >= 0
    assert plan.seconds is None or 0 <= plan.seconds < math.inf


# -- the rate


def test_turns_come_evenly() -> None:
    """4 a second: whoever comes at once waits a quarter of a second behind the one before."""
    rate = Rate(4)
    assert [rate.wait_s(10.0) for _ in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_pause_saves_nothing_up() -> None:
    """After an hour of nothing the next ones come evenly too: no burst meets the live group."""
    rate = Rate(4)
    rate.wait_s(0.0)
    assert [rate.wait_s(3600.0) for _ in range(3)] == [0.0, 0.25, 0.5]


def test_who_comes_late_does_not_wait() -> None:
    """A turn is free once its time has come."""
    rate = Rate(4)
    assert [rate.wait_s(at) for at in (0.0, 0.125, 0.5, 5.0)] == [0.0, 0.125, 0.0, 0.0]


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.01, 1000))
def test_never_more_than_the_rate(pauses: list[float], per_s: float) -> None:
    """However they come, any two starts lie a turn apart, nobody waits below 0, and no turn is wasted on a queue."""
    rate, now_s, starts = Rate(per_s), 0.0, list[float]()
    for pause_s in pauses:
        now_s += pause_s
        wait_s = rate.wait_s(now_s)
        assert wait_s >= 0
        earliest_s = now_s if not starts else max(now_s, starts[-1] + 1 / per_s)
        assert now_s + wait_s == pytest.approx(earliest_s)
        starts.append(now_s + wait_s)
    for earlier, later in itertools.pairwise(starts):
        assert later - earlier >= 1 / per_s - 1e-6
