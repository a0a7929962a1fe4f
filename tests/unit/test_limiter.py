"""The limiter: its transitions as tables with their arithmetic, and what holds for any run of puts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ConfigurationError, PoisonRecord, TransientError
from services.uploader.limiter import LIMIT_MIN, LIMIT_START, TIMED_BYTES_MAX, Limiter, means_overload

SLOW_DOWN = TransientError("slow_down", "503")
FAST_S = 0.02
LARGE_BYTES = TIMED_BYTES_MAX + 1


def store(limiter: Limiter, puts: int, duration_s: float = FAST_S, *, body_bytes: int = 0, reached: bool = True) -> int:
    """Puts that start one after another and are stored; gives the limit back."""
    for _ in range(puts):
        limiter.stored(limiter.epoch, duration_s, body_bytes, limit_reached=reached)
    return limiter.limit


def fail(limiter: Limiter, puts: int = 1, error: Exception = SLOW_DOWN) -> int:
    for _ in range(puts):
        limiter.failed(limiter.epoch, error)
    return limiter.limit


def settled(limit: int) -> Limiter:
    """A limiter whose slow start was ended at `limit` by an overload: the start of its epoch 2."""
    limiter = Limiter(512)
    fail(limiter, LIMIT_START)  # an outage, to start at 4
    while limiter.limit * 4 < limit * 5:
        store(limiter, 1)
    while limiter.epoch == 1:
        fail(limiter)
    assert limiter.limit == limit
    return limiter


@pytest.mark.parametrize(
    ("maximum", "start", "least"),
    [(512, LIMIT_START, LIMIT_MIN), (10, 10, LIMIT_MIN), (3, 3, 3), (1, 1, 1)],
)
def test_where_the_limit_starts_and_ends(maximum: int, start: int, least: int) -> None:
    """It starts at 16, or at the maximum if that is less; an outage takes it to 4, and no lower than the maximum."""
    limiter = Limiter(maximum)
    assert limiter.limit == start
    assert fail(limiter, 1000) == least


def test_slow_start_doubles_every_round_trip() -> None:
    """One more for each stored put: 16 → 32 → 64 → … → 512, and not above the maximum."""
    limiter = Limiter(512)
    assert [store(limiter, limiter.limit) for _ in range(6)] == [32, 64, 128, 256, 512, 512]


def test_one_step_up_a_round_trip() -> None:
    """Above the threshold a round of puts adds one, and one more a round after each 8 rounds without a decrease."""
    limiter = settled(100)
    assert store(limiter, 99) == 100  # not before the round is over
    assert store(limiter, 1) == 101
    assert [store(limiter, limiter.limit) for _ in range(6)] == [102, 103, 104, 105, 106, 107]  # rounds 2 to 7
    assert [store(limiter, limiter.limit) for _ in range(8)] == [109, 111, 113, 115, 117, 119, 121, 123]  # 8 to 15
    assert store(limiter, limiter.limit) == 126  # round 16: 1 + 16 // 8
    fail(limiter, 7)  # over 5 % of 126: 100 are left, and the steps are small again
    assert [store(limiter, limiter.limit) for _ in range(3)] == [101, 102, 103]


@pytest.mark.parametrize("limiter", [Limiter(512), settled(100)], ids=["slow start", "above it"])
def test_a_limit_that_is_not_reached_does_not_grow(limiter: Limiter) -> None:
    """Puts that were not held back tell nothing of what the store would carry."""
    before = limiter.limit
    assert store(limiter, 10 * before, reached=False) == before


@pytest.mark.parametrize(
    ("limit", "tolerated", "left"),
    [
        (10, 0, 8),  # 5 % of 10 is less than one: the first failure counts; 10 * 0.8
        (19, 0, 15),  # 19 * 0.8 = 15.2
        (20, 1, 16),  # 5 % of 20 is 1
        (100, 5, 80),
        (400, 20, 320),
        (4, 0, 4),  # the least
        (5, 0, 4),
    ],
)
def test_overload_leaves_four_fifths(limit: int, tolerated: int, left: int) -> None:
    """The failure that is over 5 % of a round's puts takes a fifth; those below are left to their retries."""
    limiter = settled(limit)
    store(limiter, 1)
    assert fail(limiter, tolerated) == limit
    assert fail(limiter) == left


def test_failures_are_counted_a_round() -> None:
    """5 of 100 in each of many rounds never count; chance is no overload."""
    limiter = settled(100)
    for _ in range(50):
        store(limiter, 1)
        fail(limiter, limiter.limit // 20)
        store(limiter, limiter.limit - 1)
    assert limiter.limit > 100
    assert limiter.epoch == 2


def test_one_overload_is_answered_once() -> None:
    """100 puts on the wire fail together: one decrease. What started before it is not counted, failed or stored."""
    limiter = settled(100)
    store(limiter, 1)
    epoch = limiter.epoch
    for _ in range(100):
        limiter.failed(epoch, SLOW_DOWN)
    assert limiter.limit == 80
    for _ in range(1000):
        limiter.stored(epoch, FAST_S, 0, limit_reached=True)
    assert limiter.limit == 80


def test_an_outage_is_remembered_at_its_first_decrease() -> None:
    """400 → 320, then 4 after 320 failures without a stored put, for however many more; healed:
    doubled up to 320.
    """
    limiter = settled(400)
    store(limiter, 1)
    assert fail(limiter, 21) == 320
    assert fail(limiter, 319) == 320
    assert fail(limiter, 1) == 4
    assert fail(limiter, 10_000) == 4
    assert [store(limiter, limiter.limit) for _ in range(7)] == [8, 16, 32, 64, 128, 256, 321]  # and a step


def test_an_outage_before_the_first_put_is_no_threshold() -> None:
    """A store that is away when the process starts: slow start to the maximum once it is there."""
    limiter = Limiter(512)
    assert fail(limiter, 1000) == 4
    assert [store(limiter, limiter.limit) for _ in range(8)] == [8, 16, 32, 64, 128, 256, 512, 512]


@pytest.mark.parametrize(
    ("error", "overload"),
    [
        (TransientError("slow_down", ""), True),
        (TransientError("timeout", ""), True),
        (TransientError("connection", ""), True),
        (TransientError("server_error", ""), True),
        (TransientError("operation_aborted", ""), False),  # 409: two writers of one key
        (TransientError("unknown", ""), False),
        (ConfigurationError("access_denied", ""), False),
        (ConfigurationError("slow_down", ""), False),  # the class decides first
        (PoisonRecord("entity_too_large", ""), False),
        (RuntimeError("a bug"), False),
        (TimeoutError(), False),  # not the store's word: stores translate theirs
    ],
)
def test_which_errors_count(error: Exception, overload: bool) -> None:
    """What a store with too much to do says lowers the limit; what is about the request or the environment does not."""
    assert means_overload(error) is overload
    limiter = settled(100)
    store(limiter, 1)
    assert fail(limiter, 100, error) == (4 if overload else 100)


# -- latency: normal 20 ms, so a round is slow over 2 * 20 + 50 = 90 ms


def slow_rounds(limiter: Limiter, rounds: int, duration_s: float, *, body_bytes: int = 0, reached: bool = True) -> int:
    for _ in range(rounds):
        store(limiter, limiter.limit, duration_s, body_bytes=body_bytes, reached=reached)
    return limiter.limit


def timed(limit: int) -> Limiter:
    """A limiter at `limit` that has taken FAST_S for normal."""
    limiter = settled(limit)
    assert store(limiter, limit, FAST_S, reached=False) == limit
    return limiter


def test_latency_that_the_load_makes_lowers_the_limit() -> None:
    """100 ms thrice: 100 → 80. The trial helped, 80 ms are within bounds: it stays, and grows from there."""
    limiter = timed(100)
    assert slow_rounds(limiter, 2, 0.1) == 100
    assert slow_rounds(limiter, 1, 0.1) == 80
    assert slow_rounds(limiter, 1, 0.08) == 81


def test_a_long_queue_is_taken_down_round_by_round() -> None:
    """While each trial helps and leaves the latency over the bound, the next begins at once: in proportion to the
    limit, as a queue answers, 400 ms fall to 90 in seven decreases: 400, 320, 256, 204, 163, 130, 104, 83.
    """
    limiter = timed(400)
    slow_rounds(limiter, 2, 0.4)
    limits = []
    while limiter.limit * 0.001 > 0.09:
        limits.append(slow_rounds(limiter, 1, limiter.limit * 0.001))
    assert limits == [320, 256, 204, 163, 130, 104, 83]


def test_latency_that_the_load_does_not_make_becomes_the_normal_one() -> None:
    """2 s from now on: one trial, no gain, and the old limit is back for good."""
    limiter = timed(100)
    assert slow_rounds(limiter, 3, 2.0) == 80
    assert slow_rounds(limiter, 1, 2.0) == 101  # back to 100, and the round's own step
    assert slow_rounds(limiter, 20, 2.0) > 120
    assert slow_rounds(limiter, 3, 4.0) > 120  # the bound is 2 * 2 s + 50 ms now


@pytest.mark.parametrize(
    ("durations_s", "why"),
    [
        ([0.089] * 9, "within twice the normal and 50 ms"),
        ([0.2, 0.2, 0.02] * 5, "never three in a row"),
    ],
)
def test_a_little_noise_lowers_nothing(durations_s: list[float], why: str) -> None:
    """Small differences and single slow rounds are chance."""
    limiter = timed(100)
    for duration_s in durations_s:
        slow_rounds(limiter, 1, duration_s)
    assert limiter.limit >= 100, why
    assert limiter.epoch == 2


def test_one_fast_put_clears_a_round() -> None:
    """A queue delays every put; a round with one fast put in it had none, however slow the others were."""
    limiter = timed(100)
    for _ in range(9):
        store(limiter, 1, FAST_S)
        store(limiter, limiter.limit - 1, 1.0)
    assert limiter.epoch == 2


def test_large_bodies_are_not_timed() -> None:
    """Over 64 KiB the latency is the transfer: a run of large objects lowers nothing."""
    limiter = timed(100)
    assert slow_rounds(limiter, 9, 1.0, body_bytes=LARGE_BYTES) > 100
    assert limiter.epoch == 2


def test_latency_below_the_limit_is_not_the_limits() -> None:
    """Slow puts while the limit is not reached: fewer would not be fewer. The latency is the new normal."""
    limiter = timed(100)
    assert slow_rounds(limiter, 9, 1.0, reached=False) == 100
    assert slow_rounds(limiter, 3, 1.0) == 103
    assert limiter.epoch == 2  # not even a trial


def test_slow_start_is_not_judged() -> None:
    """Latency that doubles with the limit, as it does while a store fills up: 32, 64, … 512 all the same, since the
    puts of such a round were not of one load.
    """
    limiter = Limiter(512)
    assert store(limiter, 16) == 32
    assert [slow_rounds(limiter, 1, limiter.limit * 0.01) for _ in range(4)] == [64, 128, 256, 512]
    assert limiter.epoch == 0


def test_an_overload_ends_a_trial() -> None:
    """A decrease for latency and then one for failures: the first is not taken back when latency stays."""
    limiter = timed(100)
    assert slow_rounds(limiter, 3, 2.0) == 80
    store(limiter, 1, 2.0)
    assert fail(limiter, 5) == 64  # 80 * 0.8; 5 is over 4
    assert slow_rounds(limiter, 1, 2.0) == 64


put = st.tuples(
    st.integers(0, 3),  # epochs that it is old
    st.sampled_from([0.001, 0.02, 0.3, 2.0, 10.0]),
    st.sampled_from([0, 1000, LARGE_BYTES]),
    st.booleans(),
    st.sampled_from([None, None, None, SLOW_DOWN, TransientError("timeout", ""), PoisonRecord("too_large", "")]),
    st.integers(1, 60),  # how many of its like
)


@given(maximum=st.integers(1, 600), puts=st.lists(put, max_size=80))
def test_whatever_comes(maximum: int, puts: list[tuple[int, float, int, bool, Exception | None, int]]) -> None:
    """Always within its bounds; never up on a failure, nor on a put below the limit but to take a trial back; never
    moved by a put of an older epoch; down only with a new epoch, and by one decrease at most.
    """
    limiter = Limiter(maximum)
    for age, duration_s, body_bytes, reached, error, count in puts:
        for _ in range(count):
            before, epoch, trial = limiter.limit, limiter.epoch, limiter._trial
            if error is None:
                limiter.stored(epoch - age, duration_s, body_bytes, limit_reached=reached)
            else:
                limiter.failed(epoch - age, error)
                assert limiter.limit <= before
            assert limiter.minimum <= limiter.limit <= maximum
            if age:
                assert (limiter.limit, limiter.epoch) == (before, epoch)
            if limiter.limit < before:
                assert limiter.epoch == epoch + 1
                assert limiter.limit in {limiter.minimum, int(before * 0.8)}
            if limiter.limit > before and not reached:
                assert trial is not None or limiter._held_back * 2 >= limiter._stored
