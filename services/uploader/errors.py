"""What can go wrong with a put, named by what to do about it. Pure: stores raise these, `retry` decides on them."""


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
