"""When an S3 client is made anew: a pure decision over how its puts end. Knows no client and no clock.

A client reads credentials, region and certificates once; some it refreshes by itself, others never (static keys in a
file). And a client may be wedged: its puts outlive its own deadlines. Both are mended by a new one, never by waiting.
"""

from dataclasses import dataclass

from services.uploader.errors import ClientSetupError

RENEW_EVERY_S = 5.0
"""Least time between two renewals, in seconds: a metadata service is asked no more often while credentials are bad, and
with the longest backoff (10 s) renewed ones are in use well within the 30 s of DESIGN §9."""

REFUSED_IN_A_ROW = 3
"""Refusals with no put stored between. A policy that denies one folder fails some puts and not the others; a client
that is out of date fails all, and reaches three within the first backoffs even with one worker."""

HUNG_IN_A_ROW = 3
"""Puts past the last deadline with no put stored between. One can be an accident; a wedged client has no others."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Make the client anew. `first`: none was made anew since the last stored put, so it is worth a line in the log."""

    reason: str
    first: bool


class Renewal:
    """Told how each put of the *current* client ended. `now_s` is monotonic seconds."""

    def __init__(self) -> None:
        self._refused = 0  # since the last stored put
        self._hung = 0  # likewise
        self._renewed_s: float | None = None  # when a client was last made anew
        self._fruitless = 0  # renewals since the last stored put

    def stored(self) -> None:
        """A put was stored: the client is well."""
        self._refused = self._hung = self._fruitless = 0

    def failed(self, error: Exception, now_s: float) -> Renew | None:
        """A put failed with an error of the store's own."""
        if not isinstance(error, ClientSetupError):
            return None
        self._refused += 1
        return self._decide(error.reason, now_s) if self._refused >= REFUSED_IN_A_ROW else None

    def hung(self, now_s: float) -> Renew | None:
        """A put was ended by the last deadline, that no client should ever reach."""
        self._hung += 1
        return self._decide("wedged", now_s) if self._hung >= HUNG_IN_A_ROW else None

    def _decide(self, reason: str, now_s: float) -> Renew | None:
        if self._renewed_s is not None and now_s - self._renewed_s < RENEW_EVERY_S:
            return None
        self._renewed_s = now_s
        self._hung = 0  # the next client is not to blame for this one; refusals may well be those of the next, too
        self._fruitless += 1
        return Renew(reason, first=self._fruitless == 1)
