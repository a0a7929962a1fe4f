"""What can go wrong with a put, named by what to do about it. Pure: stores raise these, `retry` decides on them."""

from dataclasses import dataclass


class StoreError(Exception):
    """A put that did not succeed.

    Attributes:
        reason: a short stable word for metrics (`slow_down`, `timeout`, `access_denied`).

    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransientError(StoreError):
    """Passes by itself: network, time-outs, 5xx, SlowDown, 409, and anything unknown. Retried without end."""


class ConfigurationError(StoreError):
    """Passes when a person mends the environment: credentials, permissions, bucket, region. Retried without end too,
    and never a reason to dead-letter: a wrong setting must not drain a topic.
    """


class ClientSetupError(ConfigurationError):
    """S3 refuses what its client read when it was made: credentials, region, certificates.

    A client made anew reads them anew, which is all that it takes where someone has renewed them outside.
    """


class PoisonRecord(StoreError):  # noqa: N818 - the record is what it names
    """S3 can never take this record, whoever asks: too large, key too long, or another object at its key."""


@dataclass(frozen=True, slots=True)
class StoreFault:
    """S3 does not take objects, or did not a moment ago.

    Attributes:
        reason: a stable word.
        message: what the store said last.
        since_s: when it began, in seconds since 1970, whatever its reason was then.
        mend: whether it takes a person to mend it (credentials, policy, bucket); otherwise it passes by itself.
        failed_s: the last failure.
        stored_s: when an object was last stored since it began, to the fifth of a second; None: none was.
        stored_since: whether one was stored after the last failure: it seems to be over.

    """

    reason: str
    message: str
    since_s: float
    mend: bool
    failed_s: float
    stored_s: float | None
    stored_since: bool
