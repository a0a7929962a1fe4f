"""The retry rule, as tables with their arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ConfigurationError, PoisonRecord, TransientError
from services.uploader.retry import ENVIRONMENT, TRANSIENT, Kind, decide, reason


@pytest.mark.parametrize(
    ("attempt", "jitter", "delay_s"),
    [
        (1, 1.0, 0.1),  # 0.1 * 2**0
        (2, 1.0, 0.2),  # 0.1 * 2**1
        (3, 0.5, 0.2),  # half of 0.1 * 2**2
        (6, 1.0, 3.2),  # 0.1 * 2**5
        (7, 1.0, 5.0),  # 0.1 * 2**6 = 6.4, capped
        (10_000, 1.0, 5.0),  # no overflow
        (10_000, 0.0, 0.0),  # full jitter reaches down to 0
    ],
)
def test_transient_backoff(attempt: int, jitter: float, delay_s: float) -> None:
    """Doubles from 0.1 s to a cap of 5 s, times the jitter."""
    assert TRANSIENT.delay_s(attempt, jitter) == pytest.approx(delay_s)


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (99, 10.0)])
def test_environment_backoff(attempt: int, delay_s: float) -> None:
    """Doubles from 1 s to a cap of 10 s: a person has to act."""
    assert ENVIRONMENT.delay_s(attempt, 1.0) == pytest.approx(delay_s)


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (TransientError("slow_down", "503"), Kind.TRANSIENT, "slow_down"),
        (ConfigurationError("access_denied", "403"), Kind.ENVIRONMENT, "access_denied"),
        (PoisonRecord("entity_too_large", "400"), Kind.POISON, "entity_too_large"),
        (RuntimeError("a bug"), Kind.TRANSIENT, "unknown"),
        (ConnectionResetError(), Kind.TRANSIENT, "unknown"),
    ],
)
def test_classes(error: Exception, kind: Kind, word: str) -> None:
    """Every failure is retried; what differs is how fast, and how it is named. Unknown is transient."""
    assert decide(error, 1, 0.5).kind is kind
    assert reason(error) == word


@given(attempt=st.integers(1, 10**9), jitter=st.floats(0, 1, exclude_max=True))
def test_a_retry_comes_in_time_to_drain_within_30_s_of_healing(attempt: int, jitter: float) -> None:
    """No delay is ever over 10 s."""
    for error in (TransientError("x", ""), ConfigurationError("x", ""), PoisonRecord("x", "")):
        assert 0 <= decide(error, attempt, jitter).delay_s <= 10
