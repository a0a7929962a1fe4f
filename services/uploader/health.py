"""What the puts of a process say about S3: readiness with a reason in words, a gauge, one log line a change of state.

A storm of failing puts is one event for a person, not one line a put; and a store that sheds some puts and takes others
is one state, not a change with each of them. Its beginning is kept: "since when" is the first question in an outage.
"""

import logging
from datetime import UTC, datetime

from services.uploader.errors import StoreFault
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

CONDITION = "s3"

CALM_S = 12.0
"""S3 counts as well again once a put was stored after the last failure, and that failure is so long ago, in seconds.
Longer than the longest backoff: one record that S3 refuses among others that it takes would flap otherwise."""

NOBODY_TRIES_S = 90.0
"""With nothing stored and nothing failed for so long, in seconds, nobody puts: another member has the partitions.
Longer than the longest put and the longest backoff after it."""

TELL_CHANGES_S = 10.0
"""How often a change of the reason is told at most, in seconds: an outage shows as time-outs and 503s in turn."""


class StoreHealth:
    """Fed by every put of the process; owns the readiness condition `s3`. `now_s` is seconds since 1970 throughout."""

    def __init__(self, readiness: Readiness, metrics: UploaderMetrics) -> None:
        self._readiness = readiness
        self._since_gauge = metrics.s3_failing_since
        self._reason: str | None = None  # why S3 does not take objects, as last logged; None while it does
        self._message = ""  # what the store said at the last failure
        self._mend = False  # whether a person must mend it
        self._since_s = 0.0  # when that began, whatever its reason was then
        self._told_s = 0.0  # when the reason was last logged
        self._failed_s = 0.0  # the last failure
        self._stored_since = False  # whether a put was stored after it
        self._stored = False  # whether a put was stored since `settle` was asked last
        self._stored_s: float | None = None  # when an object was last seen to be stored during this failure

    @property
    def fault(self) -> StoreFault | None:
        """What is wrong with S3; None while it takes objects, as far as anybody knows."""
        if self._reason is None:
            return None
        return StoreFault(
            self._reason, self._message, self._since_s, self._mend, self._failed_s, self._stored_s, self._stored_since
        )

    def failed(self, reason: str, message: str, now_s: float, *, mend: bool = False) -> None:
        """A put failed. `reason` is a stable word, `message` what the store said; `mend`: it takes a person."""
        new = self._reason is None
        if new:
            self._since_s, self._stored, self._stored_s = now_s, False, None
        if new or (self._reason != reason and now_s - self._told_s >= TELL_CHANGES_S):
            self._reason = reason
            self._told_s = now_s
            log.warning(
                "S3 does not take objects; trying without end",
                extra={"reason": reason, "since": _iso(self._since_s), "cause": message},
            )
            self._since_gauge.clear()
            self._since_gauge.labels(reason=reason).set(self._since_s)
        self._failed_s = now_s
        self._message, self._mend = message, mend
        self._stored_since = False
        lasted_s = max(0.0, now_s - self._since_s)
        self._readiness.fail(CONDITION, f"{reason} since {_iso(self._since_s)} ({lasted_s:.0f} s): {message}")

    def succeeded(self, *, alone: bool = False) -> None:
        """A put was stored. `alone`: no other is under way that may fail, so that S3 is well at once."""
        self._stored_since = self._stored = True
        if alone:
            self._over()
        elif self._reason is None:
            self._readiness.hold(CONDITION)

    def settle(self, now_s: float) -> None:
        """Asked now and then: forget a failure that is over."""
        quiet_s = now_s - self._failed_s
        if self._reason is None:
            return
        if self._stored:
            self._stored, self._stored_s = False, now_s
        if self._stored_since and quiet_s >= CALM_S:
            self._over()
        elif not self._stored_since and quiet_s >= NOBODY_TRIES_S:
            log.info("nobody puts any more; whether S3 takes objects is not known", extra={"reason": self._reason})
            self._forget()

    def _over(self) -> None:
        if self._reason is not None:
            log.info("S3 takes objects again", extra={"reason": self._reason, "since": _iso(self._since_s)})
        self._forget()

    def _forget(self) -> None:
        self._reason = None
        self._since_gauge.clear()
        self._readiness.hold(CONDITION)


def _iso(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
