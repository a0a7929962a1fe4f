"""Token buckets: what passes over any schedule, what is told to wait, and that no clock can harm them."""

import copy
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.quota import SLACK_S, Quotas
from services.ingest.tokens import Token

FREE = Token("free", b"\0" * 32)


def token(requests_per_s: float | None = None, bytes_per_s: float | None = None, name: str = "ci") -> Token:
    return Token(name, b"\1" * 32, requests_per_s=requests_per_s, bytes_per_s=bytes_per_s)


RATES = st.one_of(st.sampled_from([0.001, 0.5, 1, 3, 1000]), st.floats(0.001, 1e6))
BURSTS = st.one_of(st.sampled_from([1.0, 2.0]), st.floats(0, 100))
STARTS = st.sampled_from([0.0, 12.5, 1e6])
STEPS = st.one_of(st.sampled_from([0.0, 0.001, 1.0, 7.0]), st.floats(0, 50))
ANY_STEPS = st.one_of(STEPS, st.sampled_from([-0.001, -1.0, -1000.0]))
BODIES = st.one_of(st.integers(0, 20), st.integers(0, 10_000_000))
SCHEDULES = st.lists(st.tuples(STEPS, BODIES), max_size=60)


def moments(start_s: float, schedule: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each request comes, and its body."""
    times = itertools.accumulate((step for step, _ in schedule), initial=start_s)
    return list(zip(itertools.islice(times, 1, None), (body for _, body in schedule), strict=True))


def assert_bounded(
    passed: list[tuple[float, int]], tok: Token, burst_s: float, returned: list[tuple[float, int]] | None = None
) -> None:
    """In every span of time: requests ≤ rate * time + burst, bytes ≤ rate * time + burst + the last body; and as much
    more as was returned in the span.
    """
    assert tok.requests_per_s is not None
    assert tok.bytes_per_s is not None
    rounding = 1 + 1e-6
    for first in range(len(passed)):
        total = 0
        for last in range(first, len(passed)):
            span_s = passed[last][0] - passed[first][0] + SLACK_S * (last - first + 1)
            total += passed[last][1]
            back = [body for now_s, body in returned or () if passed[first][0] <= now_s <= passed[last][0]]
            requests = tok.requests_per_s * span_s + max(1.0, tok.requests_per_s * burst_s)
            assert last - first + 1 <= (requests + len(back)) * rounding
            of_bytes = tok.bytes_per_s * span_s + max(1.0, tok.bytes_per_s * burst_s)
            assert total <= (of_bytes + passed[last][1] + sum(back)) * rounding


def test_a_burst_passes_and_the_next_waits() -> None:
    """10 requests/s and 2 s of burst: 20 pass at once; then one opens every 0.1 s."""
    quotas, tok = Quotas(2.0), token(requests_per_s=10)
    assert [quotas.take(tok, 5, 100.0) for _ in range(20)] == [0.0] * 20
    assert quotas.take(tok, 5, 100.0) == pytest.approx(0.1, abs=2e-6)
    assert quotas.take(tok, 5, 100.05) == pytest.approx(0.05, abs=2e-6)
    assert quotas.take(tok, 5, 100.1) == 0.0
    assert quotas.take(tok, 5, 100.1) > 0


def test_a_body_larger_than_the_burst_passes_and_is_paid_for() -> None:
    """1,000 bytes/s, 1 s of burst, 10,000 bytes: it passes, leaves a debt of 9,000, and one byte is there after
    (9,000 + 1) / 1,000 = 9.001 s.
    """
    quotas, tok = Quotas(1.0), token(bytes_per_s=1000)
    assert quotas.take(tok, 10_000, 0.0) == 0.0
    assert quotas.take(tok, 1, 0.0) == pytest.approx(9.001, abs=2e-6)
    assert quotas.take(tok, 10_000, 9.0) > 0
    assert quotas.take(tok, 10_000, 9.001) == 0.0
    assert quotas.wait_s(tok, 9.001) == pytest.approx(10.0, abs=2e-6)  # -9,999 now: 10,000 more for the next byte


def test_the_longer_wait_of_both_buckets_is_told_and_a_refusal_takes_nothing() -> None:
    """Requests alone would open after 1 s, bytes after 5 s."""
    quotas, tok = Quotas(1.0), token(requests_per_s=1, bytes_per_s=10)
    assert quotas.take(tok, 59, 0.0) == 0.0  # 10 - 59 = -49; the first byte is there after 5 s
    for _ in range(100):
        assert quotas.take(tok, 1_000_000, 0.0) == pytest.approx(5.0, abs=2e-6)
    assert quotas.take(tok, 0, 5.0) == 0.0


def test_no_rate_is_no_limit_and_no_state() -> None:
    """Tokens without quotas cost nothing."""
    quotas = Quotas(1.0)
    assert all(quotas.take(FREE, 10**9, 0.0) == 0.0 for _ in range(1000))
    quotas.give_back(FREE, 10**9, 0.0)
    assert len(quotas) == 0


def test_names_do_not_share_and_two_tokens_of_one_name_do() -> None:
    """A quota is a client's: by name, whichever of its tokens it uses."""
    quotas, one = Quotas(1.0), token(requests_per_s=1)
    assert quotas.take(one, 1, 0.0) == 0.0
    assert quotas.take(replace(one, sha256=b"\2" * 32), 1, 0.0) > 0
    assert quotas.take(replace(one, name="other"), 1, 0.0) == 0.0


def test_looking_takes_nothing() -> None:
    """`wait_s` says what `take` would, as often as one likes."""
    quotas, tok = Quotas(1.0), token(requests_per_s=1, bytes_per_s=100)
    assert [quotas.wait_s(tok, 0.0) for _ in range(10)] == [0.0] * 10
    assert len(quotas) == 0
    assert quotas.take(tok, 1, 0.0) == 0.0
    assert quotas.wait_s(tok, 0.25) == quotas.take(tok, 1, 0.25) > 0


@pytest.mark.parametrize("later_s", [0.0, 0.5, 1000.0])
def test_what_is_given_back_was_never_taken(later_s: float) -> None:
    """A 503 costs no quota; but a bucket never holds more than its burst for it: 3 requests/s, 1 s, so 3."""
    quotas, tok = Quotas(1.0), token(requests_per_s=3, bytes_per_s=300)
    assert quotas.take(tok, 10_000, 0.0) == 0.0
    quotas.give_back(tok, 10_000, later_s)
    passed = [quotas.take(tok, 1, later_s) == 0.0 for _ in range(5)]
    assert passed == [True] * 3 + [False] * 2


def test_a_new_rate_applies_at_once() -> None:
    """Down: what was saved at the old rate is cut to the new burst. Up: a debt is paid at the new rate."""
    quotas = Quotas(10.0)
    assert quotas.take(token(requests_per_s=10), 1, 0.0) == 0.0  # 99 left
    slow = token(requests_per_s=0.1)
    assert [quotas.take(slow, 1, 0.0) == 0.0 for _ in range(3)] == [True, False, False]
    assert quotas.wait_s(slow, 0.0) == pytest.approx(10.0, abs=2e-6)
    assert quotas.wait_s(token(requests_per_s=10), 0.0) == pytest.approx(0.1, abs=2e-6)
    assert quotas.take(token(bytes_per_s=1), 1_000_010, 0.0) == 0.0  # a debt of 1,000,000
    assert quotas.wait_s(token(bytes_per_s=1), 0.0) == pytest.approx(1_000_001.0, abs=1e-3)
    assert quotas.wait_s(token(bytes_per_s=1_000_001), 0.0) == pytest.approx(1.0, abs=1e-3)
    assert quotas.wait_s(FREE, 0.0) == 0.0
    assert quotas.wait_s(token(), 0.0) == 0.0  # the limit was lifted
    assert len(quotas) == 0


def test_names_that_are_gone_are_forgotten() -> None:
    """State is bounded by the tokens file."""
    quotas = Quotas(1.0)
    clients = [token(requests_per_s=1, bytes_per_s=1, name=f"n{i}") for i in range(100)]
    for each in clients:
        assert quotas.take(each, 1, 0.0) == 0.0
    assert len(quotas) == 100
    quotas.keep({"n7", "never-seen"})
    assert len(quotas) == 1
    assert quotas.take(clients[7], 1, 0.0) > 0, "a name that is kept keeps its bucket"
    quotas.give_back(clients[8], 1, 0.0)
    assert len(quotas) == 1


@given(RATES, RATES, BURSTS, STARTS, SCHEDULES)
def test_no_schedule_passes_more_than_rate_and_burst(
    requests_per_s: float, bytes_per_s: float, burst_s: float, start_s: float, schedule: list[tuple[float, int]]
) -> None:
    """Over every span of any schedule."""
    quotas, tok = Quotas(burst_s), token(requests_per_s, bytes_per_s)
    come = moments(start_s, schedule)
    assert_bounded([(now_s, body) for now_s, body in come if quotas.take(tok, body, now_s) == 0.0], tok, burst_s)


@given(RATES, RATES, BURSTS, STARTS, st.lists(st.tuples(STEPS, BODIES, st.integers(0, 5)), max_size=60))
def test_giving_back_opens_no_hole(
    requests_per_s: float, bytes_per_s: float, burst_s: float, start_s: float, schedule: list[tuple[float, int, int]]
) -> None:
    """What passes and is not given back stays in bounds, whenever the rest is given back: at most that much more."""
    quotas, tok = Quotas(burst_s), token(requests_per_s, bytes_per_s)
    kept: list[tuple[float, int]] = []
    refused: list[int] = []  # bodies that passed and are then answered 503
    returned: list[tuple[float, int]] = []
    come = moments(start_s, [(step, body) for step, body, _ in schedule])
    for (now_s, body), (_, _, fate) in zip(come, schedule, strict=True):
        if fate == 0 and refused:
            returned.append((now_s, refused.pop()))
            quotas.give_back(tok, returned[-1][1], now_s)
        elif quotas.take(tok, body, now_s) == 0.0:
            if fate == 1:
                refused.append(body)
            else:
                kept.append((now_s, body))
    assert_bounded(kept, tok, burst_s, returned)


@given(RATES, RATES, BURSTS, STARTS, st.lists(st.tuples(ANY_STEPS, BODIES), max_size=40))
def test_the_told_wait_is_enough_and_no_more_than_needed(
    requests_per_s: float, bytes_per_s: float, burst_s: float, start_s: float, schedule: list[tuple[float, int]]
) -> None:
    """Who waits as told passes, if nobody else came; who comes 2 µs earlier does not."""
    quotas, tok = Quotas(burst_s), token(requests_per_s, bytes_per_s)
    latest_s = -math.inf
    for now_s, body in moments(start_s, schedule):
        latest_s = max(latest_s, now_s)
        wait_s = quotas.take(tok, body, now_s)
        assert 0 <= wait_s < math.inf
        if wait_s > 0:
            assert copy.deepcopy(quotas).take(tok, body, now_s + wait_s) == 0.0
            earlier_s = max(latest_s, now_s + wait_s * (1 - 1e-9) - 2e-6)
            if earlier_s < now_s + wait_s - 1e-6:
                assert copy.deepcopy(quotas).take(tok, body, earlier_s) > 0


@given(RATES, RATES, BURSTS, STARTS, st.lists(st.tuples(ANY_STEPS, BODIES), max_size=40))
def test_time_that_goes_backwards_counts_as_standing_still(
    requests_per_s: float, bytes_per_s: float, burst_s: float, start_s: float, schedule: list[tuple[float, int]]
) -> None:
    """The same requests pass as with a clock that never goes back: nobody gains by it, and nobody is shut out."""
    tok, jumping, steady = token(requests_per_s, bytes_per_s), Quotas(burst_s), Quotas(burst_s)
    latest_s = -math.inf
    for now_s, body in moments(start_s, schedule):
        latest_s = max(latest_s, now_s)
        assert (jumping.take(tok, body, now_s) == 0.0) == (steady.take(tok, body, latest_s) == 0.0)


@given(RATES, BURSTS, STARTS, SCHEDULES)
def test_it_decides_as_the_textbook_bucket_does(
    bytes_per_s: float, burst_s: float, start_s: float, schedule: list[tuple[float, int]]
) -> None:
    """Against a bucket that is refilled step by step in exact fractions; only within the slack may they differ."""
    quotas, tok = Quotas(burst_s), token(bytes_per_s=bytes_per_s)
    rate = Fraction(bytes_per_s)
    capacity = max(Fraction(1), rate * Fraction(burst_s))
    held, before_s = capacity, Fraction(start_s)
    for now_s, body in moments(start_s, schedule):
        held = min(capacity, held + rate * (Fraction(now_s) - before_s))
        before_s = Fraction(now_s)
        passed = quotas.take(tok, body, now_s) == 0.0
        near = rate * Fraction(2 * SLACK_S) + capacity * Fraction(1e-9)
        assert passed or held < 1 + near
        assert not passed or held >= 1 - near
        held -= body if passed else 0
