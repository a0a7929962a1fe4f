"""Admission: bytes in flight are bounded, and `Retry-After` follows from the backlog."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.admission import RETRY_AFTER_MAX_S, Admission


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    """At the bound a request is refused at once, and the next that fits is not."""
    admission = Admission(100)
    assert admission.reserve(60)
    assert not admission.reserve(41)
    assert admission.reserve(40)
    admission.release(60)
    assert admission.in_flight_bytes == 40
    assert admission.reserve(60)


def test_more_than_was_reserved_cannot_be_released() -> None:
    """A wrong book is an error and not a negative number."""
    admission = Admission(100)
    admission.reserve(10)
    with pytest.raises(ValueError, match="released 11 bytes of 10"):
        admission.release(11)


@given(st.lists(st.integers(0, 60), max_size=40))
def test_the_bound_holds(sizes: list[int]) -> None:
    """Whatever comes and goes, never more than the bound is in flight, and nothing is left when all has gone."""
    admission = Admission(100)
    held = []
    for size in sizes:
        if admission.reserve(size):
            held.append(size)
        elif held:
            admission.release(held.pop(0))
        assert 0 <= admission.in_flight_bytes <= 100
    for size in held:
        admission.release(size)
    assert admission.in_flight_bytes == 0


def test_retry_after_is_backlog_over_rate() -> None:
    """1,000 bytes a second drain, 3,500 are in flight: 3.5 s, said as 4."""
    admission = Admission(1_000_000)
    admission.sample(0.0)
    for second in range(1, 41):  # the rate is smoothed over 5 s: after 40 s it stands within 0.02 % of 1,000
        admission.reserve(1000)
        admission.release(1000)
        admission.sample(float(second))
    assert admission.retry_after_s() == 1  # nothing is in flight
    admission.reserve(3500)
    assert admission.retry_after_s() == 4
    admission.reserve(500_000)
    assert admission.retry_after_s() == RETRY_AFTER_MAX_S


def test_retry_after_when_nothing_drains() -> None:
    """A backlog that does not move says the longest wait."""
    admission = Admission(1000)
    admission.sample(0.0)
    admission.reserve(500)
    admission.sample(1.0)
    assert admission.retry_after_s() == RETRY_AFTER_MAX_S
