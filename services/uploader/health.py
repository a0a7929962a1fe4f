"""What the puts of a process say about S3: readiness with a reason in words, and one log line a change of state.

A storm of failing puts is one event for a person, not one line a put; and a store that sheds some puts and takes others
is one state, not a change with each of them.
"""

import logging

from shared.ops import Readiness

log = logging.getLogger(__name__)

CONDITION = "s3"

CALM_S = 12.0
"""S3 counts as well again once a put was stored after the last failure, and that failure is so long ago, in seconds.
Longer than the longest backoff: one record that S3 refuses among others that it takes would flap otherwise."""


class StoreHealth:
    """Fed by every put of the process; owns the readiness condition `s3`. `now_s` is monotonic seconds throughout."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._reason: str | None = None  # why S3 does not take objects, as last logged; None while it does
        self._since_s = 0.0  # when that began
        self._failed_s = 0.0  # the last failure
        self._stored_since = False  # whether a put was stored after it

    def failed(self, reason: str, message: str, now_s: float) -> None:
        """A put failed. `reason` is a stable word, `message` what the store said."""
        if self._reason is None:
            self._since_s = now_s
        if self._reason != reason:
            log.warning("S3 does not take objects; trying without end", extra={"reason": reason, "cause": message})
        self._reason = reason
        self._failed_s = now_s
        self._stored_since = False
        self._readiness.fail(CONDITION, f"{reason} for {now_s - self._since_s:.0f} s: {message}")

    def succeeded(self, *, alone: bool = False) -> None:
        """A put was stored. `alone`: no other is under way that may fail, so that S3 is well at once."""
        self._stored_since = True
        if alone:
            self._failed_s = -CALM_S
            self.settle(0.0)
        if self._reason is None:
            self._readiness.hold(CONDITION)

    def settle(self, now_s: float) -> None:
        """Asked now and then: forget a failure that is over."""
        if self._reason is not None and self._stored_since and now_s - self._failed_s >= CALM_S:
            log.info("S3 takes objects again", extra={"reason": self._reason})
            self._reason = None
            self._readiness.hold(CONDITION)
