"""What the puts of a process say about S3: readiness with a reason in words, and one log line a change of state.

A storm of failing puts is one event for a person, not one line a put.
"""

import logging

from shared.ops import Readiness

log = logging.getLogger(__name__)

CONDITION = "s3"


class StoreHealth:
    """Fed by every put of the process; owns the readiness condition `s3`."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._failing: tuple[str, float] | None = None  # the reason that was logged, and since when (monotonic, s)

    def failed(self, reason: str, message: str, now_s: float) -> None:
        """A put failed. `reason` is a stable word, `message` what the store said, `now_s` monotonic seconds."""
        since_s = now_s if self._failing is None else self._failing[1]
        if self._failing is None or self._failing[0] != reason:
            log.warning("S3 does not take objects; trying without end", extra={"reason": reason, "cause": message})
        self._failing = (reason, since_s)
        self._readiness.fail(CONDITION, f"{reason} for {now_s - since_s:.0f} s: {message}")

    def succeeded(self) -> None:
        """A put was stored."""
        if self._failing is not None:
            log.info("S3 takes objects again", extra={"reason": self._failing[0]})
            self._failing = None
        self._readiness.hold(CONDITION)
