"""How many bytes may be in flight, all requests together. Pure: the caller brings the time.

Owns one number and its bound. A request reserves its body's bytes before it reads them and gives them back with its
answer; where they do not fit it is refused at once, since a queue in front of the queue would only make every client
wait for its time-out.
"""

import math

RETRY_AFTER_MAX_S = 30
_RATE_WINDOW_S = 5.0


class Admission:
    """Bounded bytes in flight, and how fast they drain."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.in_flight_bytes = 0  # reserved and not yet released
        self._rate = 0.0  # bytes released a second, smoothed over _RATE_WINDOW_S
        self._released_bytes = 0  # since `_sampled_at`
        self._sampled_at: float | None = None

    def reserve(self, body_bytes: int) -> bool:
        """Take `body_bytes` if they fit; False, and nothing taken, where they do not."""
        if self.in_flight_bytes + body_bytes > self.bytes_max:
            return False
        self.in_flight_bytes += body_bytes
        return True

    def release(self, body_bytes: int) -> None:
        """Give back what was reserved.

        Raises:
            ValueError: more than is in flight; the books are wrong.

        """
        if body_bytes > self.in_flight_bytes:
            raise ValueError(f"released {body_bytes} bytes of {self.in_flight_bytes} in flight")
        self.in_flight_bytes -= body_bytes
        self._released_bytes += body_bytes

    def sample(self, now_s: float) -> None:
        """Fold what was released since the last sample into the rate. To be called about once a second."""
        if self._sampled_at is not None and now_s > self._sampled_at:
            elapsed_s = now_s - self._sampled_at
            weight = min(1.0, elapsed_s / _RATE_WINDOW_S)
            self._rate += weight * (self._released_bytes / elapsed_s - self._rate)
        self._sampled_at = now_s
        self._released_bytes = 0

    def retry_after_s(self) -> int:
        """Whole seconds until what is in flight has drained at the present rate: 1 to RETRY_AFTER_MAX_S."""
        if self.in_flight_bytes == 0:
            return 1
        if self._rate <= 0:
            return RETRY_AFTER_MAX_S if self._sampled_at is not None else 1
        return max(1, min(RETRY_AFTER_MAX_S, math.ceil(self.in_flight_bytes / self._rate)))
