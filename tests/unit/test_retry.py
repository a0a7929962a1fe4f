"""The retry rule, as tables with their arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ConfigurationError, PoisonRecord, TransientError
from services.uploader.retry import ENVIRONMENT, TRANSIENT, DeadLetter, Kind, Retry, decide, reason


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
        (RuntimeError("a bug"), Kind.TRANSIENT, "unknown"),
        (ConnectionResetError(), Kind.TRANSIENT, "unknown"),
    ],
)
@pytest.mark.parametrize("attempt", [1, 10**9])
def test_classes(error: Exception, kind: Kind, word: str, attempt: int) -> None:
    """Whatever is not poison is retried, however often it failed, and never a dead letter; unknown is transient."""
    decision = decide(error, attempt, 0.5)
    assert isinstance(decision, Retry)
    assert decision.kind is kind
    assert reason(error) == word


def test_poison_is_a_dead_letter_at_once() -> None:
    """S3 will not change its mind: the first refusal decides. Held, it is retried as slowly as an environment error,
    since a person has to act; metrics still tell the two apart.
    """
    error = PoisonRecord("entity_too_large", "400")
    assert decide(error, 4, 1.0) == DeadLetter(error, Retry(8.0, Kind.POISON))  # 1.0 * 2**3


@given(attempt=st.integers(1, 10**9), jitter=st.floats(0, 1, exclude_max=True))
def test_a_retry_comes_in_time_to_drain_within_30_s_of_healing(attempt: int, jitter: float) -> None:
    """No delay is ever over 10 s."""
    for error in (TransientError("x", ""), ConfigurationError("x", ""), PoisonRecord("x", "")):
        decision = decide(error, attempt, jitter)
        retry = decision.held if isinstance(decision, DeadLetter) else decision
        assert 0 <= retry.delay_s <= 10
