"""What to do after a failed put: a decision value. Pure; the caller brings the attempt's number and the jitter.

Backoff is exponential, capped, with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015):
delay = jitter * min(cap, base * 2 ** (attempt - 1)). There is no last attempt: a record is stored or it stays.
The caps stay far below 30 s, the time in which everything drains after healing (DESIGN §9).

Only a poison record leaves this circle, and only as a dead letter that Kafka has acknowledged. An environment error
never does: a wrong setting would drain the topic.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.uploader.errors import ConfigurationError, PoisonRecord, StoreError


class Kind(StrEnum):
    """Class of a failure, as metrics and logs name it."""

    TRANSIENT = "transient"
    ENVIRONMENT = "environment"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential backoff. Seconds."""

    base_s: float
    cap_s: float

    def delay_s(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after the failed `attempt` (from 1); `jitter` lies in [0, 1)."""
        doublings = min(attempt - 1, 30)  # 2 ** 30 is over any cap; unbounded it would overflow a float
        return jitter * min(self.cap_s, self.base_s * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the same put again after `delay_s` seconds."""

    delay_s: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """No put will ever succeed: write the record to the dead-letter topic.

    Where that cannot be done now, `held` follows: the put again, as slowly as for an environment error, since a person
    has to act. Completing the record's offset instead would lose it.
    """

    error: PoisonRecord
    held: Retry


TRANSIENT = Backoff(base_s=0.1, cap_s=5.0)
ENVIRONMENT = Backoff(base_s=1.0, cap_s=10.0)


def decide(error: Exception, attempt: int, jitter: float) -> Retry | DeadLetter:
    """Decide what follows a failed put. Anything that is not known is transient.

    Args:
        error: what the store raised.
        attempt: how often this record was tried, from 1.
        jitter: uniform in [0, 1).

    """
    match error:
        case PoisonRecord():
            return DeadLetter(error, Retry(ENVIRONMENT.delay_s(attempt, jitter), Kind.POISON))
        case ConfigurationError():
            return Retry(ENVIRONMENT.delay_s(attempt, jitter), Kind.ENVIRONMENT)
        case _:
            return Retry(TRANSIENT.delay_s(attempt, jitter), Kind.TRANSIENT)


def reason(error: Exception) -> str:
    """A short stable word for metrics: the store's own, else `unknown`."""
    return error.reason if isinstance(error, StoreError) else "unknown"
