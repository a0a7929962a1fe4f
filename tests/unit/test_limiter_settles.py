"""Where the limit settles: whole workloads in simulated time, with the real limiter and the real backoff.

The simulated store takes 20 ms to 150 ms a put, a quarter more or less; 512 workers always have a record to put.
"""

import random

import pytest

from tests.unit.limiter_simulation import HANG, SLOW_DOWN, Ending, Queueing, Shedding, Simulation, Unbounded


@pytest.mark.parametrize(
    ("capacity", "latency_s", "shed_share_max"),
    [
        # What the store carries at once is capacity * latency: 6, 20, 60, 150, 450. One put over it is the more of the
        # whole the fewer they are: one of 7 is 14 %, one of 151 not 1 %.
        (300, 0.02, 0.12),
        (1000, 0.02, 0.05),
        (3000, 0.02, 0.03),
        (1000, 0.15, 0.02),
        (3000, 0.15, 0.02),
    ],
)
def test_it_settles_at_the_capacity_of_a_store_that_sheds(
    capacity: int, latency_s: float, shed_share_max: float
) -> None:
    """From 5 s on at least 90 % of what the store can take is stored, and few puts are shed."""
    run = Simulation(Shedding(lambda _: capacity, latency_s)).run(20)
    assert run.rate(5, 20) >= 0.9 * capacity
    assert run.shed_share(5, 20) <= shed_share_max


def test_it_follows_a_capacity_that_falls_and_rises() -> None:
    """2,000 a second, from 10 s on 500, from 20 s on 2,000 again: 90 % of each, 3 s after the change."""
    run = Simulation(Shedding(lambda now_s: 500 if 10 <= now_s < 20 else 2000, 0.05)).run(30)
    assert run.rate(3, 10) >= 0.9 * 2000
    assert run.rate(13, 20) >= 0.9 * 500
    assert run.shed_share(13, 20) <= 0.05
    assert run.rate(23, 30) >= 0.9 * 2000


@pytest.mark.parametrize("failure", [Ending(0.01, SLOW_DOWN), HANG], ids=["refused", "hanging"])
def test_a_minute_of_outage_is_over_soon_after_it_heals(failure: Ending) -> None:
    """The limit falls to 4 meanwhile. 5 s after healing (the longest backoff) it is back at three quarters, and after
    10 s, the last hanging probe's end included, the rate is what it was.
    """
    run = Simulation(Unbounded(lambda now_s, _: failure if 10 <= now_s < 70 else Ending(0.15))).run(90)
    assert set(run.limits(55, 69)) == {4}
    assert run.rate(69, 70) == 0
    assert run.limits(75, 75.25)[0] >= 0.75 * 512
    assert run.rate(80, 90) >= 0.95 * run.rate(4, 10)


def test_half_of_all_puts_failing_for_a_while_is_forgotten_in_15_s() -> None:
    """No outage (some puts are stored), so the threshold falls too; the growing steps up bring the limit back."""

    def ends(now_s: float, chance: random.Random) -> Ending:
        return Ending(0.15, SLOW_DOWN if 5 <= now_s < 30 and chance.random() < 0.5 else None)

    run = Simulation(Unbounded(ends)).run(46)
    assert max(run.limits(20, 30)) <= 16
    assert run.limits(45, 46)[0] >= 500


def test_the_way_up_takes_a_second() -> None:
    """512 puts of 150 ms: five doublings from 16, 0.75 s; then all 512, as Little's law has it: 3,413 a second."""
    run = Simulation(Unbounded(lambda *_: Ending(0.15))).run(8)
    assert run.limits(0.75, 1.0)[-1] == 512
    assert run.rate(1, 8) >= 0.97 * 512 / 0.15


def test_latency_that_does_not_depend_on_load_costs_no_throughput() -> None:
    """5 ms, and from 2 s on 2 s: one trial of a fifth, then all 512 for good."""
    run = Simulation(Unbounded(lambda now_s, _: Ending(0.005 if now_s < 2 else 2.0))).run(40)
    assert min(run.limits(2, 40)) >= 400
    assert set(run.limits(20, 40)) == {512}
    assert run.rate(20, 40) >= 0.97 * 512 / 2


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("median_s", [0.15, 2.0])
def test_scattered_latency_costs_no_throughput(spread: float, median_s: float) -> None:
    """Lognormal latency, at 1.5 one put in a hundred over 30 times the median: no trial takes more than a fifth."""
    store = Unbounded(lambda _, chance: Ending(median_s * chance.lognormvariate(0, spread)))
    run = Simulation(store).run(60)
    limits = run.limits(20, 60)
    assert min(limits) >= 400
    assert sum(limits) >= 0.95 * 512 * len(limits)


def test_latency_that_swings_costs_little() -> None:
    """50 ms and 1 s in turn, 5 s each: never below four fifths for long, never down step by step."""

    def ends(now_s: float, chance: random.Random) -> Ending:
        return Ending((0.05 if now_s % 10 < 5 else 1.0) * chance.lognormvariate(0, 0.3))

    run = Simulation(Unbounded(ends)).run(60)
    assert min(run.limits(5, 60)) >= 400


@pytest.mark.parametrize(("capacity", "latency_s"), [(1000, 0.02), (3000, 0.05), (500, 0.1)])
def test_a_store_that_queues_is_kept_busy_with_a_short_queue(capacity: int, latency_s: float) -> None:
    """All of its capacity, while a put takes at most twice its latency and 50 ms: Little's law gives the limit, and a
    tenth is for the rounds that it takes to notice.
    """
    run = Simulation(Queueing(capacity, latency_s)).run(40)
    assert run.rate(10, 40) >= 0.99 * capacity
    assert max(run.limits(30, 40)) <= 1.1 * capacity * (2 * latency_s + 0.05)


@pytest.mark.parametrize(("share", "of_the_most"), [(0.001, 0.97), (0.01, 0.95), (0.03, 0.5)])
def test_errors_by_chance_do_not_hold_it_down(share: float, of_the_most: float) -> None:
    """One failure in a hundred, whatever the load, is retried and no more; at three in a hundred half remains."""
    store = Unbounded(lambda _, chance: Ending(0.15, SLOW_DOWN if chance.random() < share else None))
    run = Simulation(store).run(60)
    assert run.rate(10, 60) >= of_the_most * 512 / 0.15


def test_a_run_is_the_same_every_time() -> None:
    """No clock and no chance of its own: two runs agree in every slice."""
    runs = [Simulation(Shedding(lambda _: 1000, 0.05)).run(5) for _ in range(2)]
    assert runs[0].slices == runs[1].slices
