"""How many bytes may be in flight, all requests together, and whose they are. Pure: the caller brings the time.

Owns the sum and its bound. A request reserves what it holds in memory before it holds it, and gives it back with its
answer; where it does not fit it is refused at once, since a queue in front of the queue would only make every client
wait for its time-out.

Shares are fair by a dynamic threshold (Choudhury and Hahne, *Dynamic queue length thresholds in shared-memory packet
switches*, 1998): a token may hold OWNER_SHARE times what is still free. One alone gets eight ninths of the budget, two
get eight seventeenths each, and there is always room left for one that has not come yet.
"""

import math

RETRY_AFTER_MAX_S = 10
OWNER_SHARE = 8
_RATE_WINDOW_S = 5.0


class Admission:
    """Bounded bytes in flight, and how fast they drain."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.in_flight_bytes = 0  # reserved and not yet released
        self._held: dict[str, int] = {}  # of these, by owner; no owner without bytes
        self._rate = 0.0  # bytes acknowledged a second, smoothed over _RATE_WINDOW_S
        self._acked_bytes = 0  # since `_sampled_at`
        self._sampled_at: float | None = None

    def open(self, owner: str | None = None) -> "Reservation":
        """A reservation of nothing yet.

        Args:
            owner: whose it is, by the token's name. None: of nobody in particular, bounded by the sum only.

        """
        return Reservation(self, owner)

    def fits(self, size_bytes: int, owner: str | None = None) -> bool:
        """Whether so many bytes could be reserved now."""
        free = self.bytes_max - self.in_flight_bytes - size_bytes
        if free < 0:
            return False
        return owner is None or self._held.get(owner, 0) + size_bytes <= OWNER_SHARE * free

    def held_bytes(self, owner: str) -> int:
        """What the owner holds."""
        return self._held.get(owner, 0)

    def acked(self, size_bytes: int) -> None:
        """So many of the bytes in flight have been acknowledged: what is refused or given up drains nothing."""
        self._acked_bytes += size_bytes

    def sample(self, now_s: float) -> None:
        """Fold what was acknowledged since the last sample into the rate. To be called about once a second."""
        if self._sampled_at is not None and now_s > self._sampled_at:
            elapsed_s = now_s - self._sampled_at
            weight = min(1.0, elapsed_s / _RATE_WINDOW_S)
            self._rate += weight * (self._acked_bytes / elapsed_s - self._rate)
        self._sampled_at = now_s
        self._acked_bytes = 0

    def retry_after_s(self) -> int:
        """Whole seconds until what is in flight has drained at the present rate: 1 to RETRY_AFTER_MAX_S."""
        if self.in_flight_bytes == 0:
            return 1
        if self._rate <= 0:
            return RETRY_AFTER_MAX_S if self._sampled_at is not None else 1
        return max(1, min(RETRY_AFTER_MAX_S, math.ceil(self.in_flight_bytes / self._rate)))

    def _add(self, owner: str | None, size_bytes: int) -> None:
        self.in_flight_bytes += size_bytes
        if owner is not None:
            self._own(owner, size_bytes)

    def _remove(self, owner: str | None, size_bytes: int) -> None:
        self.in_flight_bytes -= size_bytes
        if owner is not None:
            self._own(owner, -size_bytes)

    def _own(self, owner: str, size_bytes: int) -> None:
        held = self._held.get(owner, 0) + size_bytes
        if held:
            self._held[owner] = held
        else:
            self._held.pop(owner, None)


class Reservation:
    """What one request has reserved. Made by `Admission.open`; to be released at the end, a second time is nothing."""

    __slots__ = ("_admission", "_owner", "bytes")

    def __init__(self, admission: Admission, owner: str | None) -> None:
        self._admission = admission
        self._owner = owner
        self.bytes = 0

    def fits(self, size_bytes: int) -> bool:
        """Whether so many bytes more could be reserved now.

        Who is alone gets what it asks for: a collection that is larger in memory than the whole budget is late at
        worst, and never refused for ever.
        """
        admission = self._admission
        return admission.fits(size_bytes, self._owner) or admission.in_flight_bytes == self.bytes

    def take(self, size_bytes: int) -> bool:
        """Reserve so many bytes more; False, and nothing reserved, where they do not fit."""
        if not self.fits(size_bytes):
            return False
        self._admission._add(self._owner, size_bytes)  # noqa: SLF001 - the two are one thing
        self.bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Release a part.

        Raises:
            ValueError: more than is reserved; the books are wrong.

        """
        if size_bytes > self.bytes:
            raise ValueError(f"released {size_bytes} bytes of {self.bytes} reserved")
        self._admission._remove(self._owner, size_bytes)  # noqa: SLF001
        self.bytes -= size_bytes

    def release(self) -> None:
        """Give everything back."""
        self.give_back(self.bytes)

    def belongs_to(self, owner: str) -> None:
        """The owner is known now: what is held counts as theirs from here on."""
        admission = self._admission
        if self._owner is not None:
            admission._own(self._owner, -self.bytes)  # noqa: SLF001
        admission._own(owner, self.bytes)  # noqa: SLF001
        self._owner = owner
