"""The gate before every put of a process: no more are under way than the limiter allows, first come first served.

Owns the count of puts under way and the queue of those that wait; the limit itself is the limiter's. Does not know what
a put is, and never retries one.

Invariants:
- Somebody waits only while the limit is reached: whatever frees a place or raises the limit lets waiters in at once.
- A place is granted by the one who leaves, not taken by the one who wakes: a newcomer cannot overtake.
- A waiter that is cancelled after its grant passes the place on. An abandoned waiter is skipped.
"""

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Self

from services.uploader.limiter import Limiter
from shared.telemetry import UploaderMetrics


class Slot:
    """One request's place: `async with` waits for it and gives it back. To be used once. The puts of the partitions,
    of which there are thousands a second, do the same without an object: `enter`, `begin`, `leave`.

    Attributes:
        error: what the put failed with, set by the caller before the place is given back; None: it was stored.

    """

    __slots__ = ("_body_bytes", "_epoch", "_gate", "_started_s", "error")

    def __init__(self, gate: "UploadLimit", body_bytes: int) -> None:
        self.error: Exception | None = None
        self._gate = gate
        self._body_bytes = body_bytes
        self._epoch = 0  # the limiter's, at the start
        self._started_s = 0.0  # monotonic

    async def __aenter__(self) -> Self:
        """Wait for the place."""
        gate = self._gate
        if not gate.enter():
            await gate.wait()
        self._started_s = time.monotonic()
        self._epoch = gate.begin(self._started_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back, and tell the limiter how the put ended; a cancelled put tells nothing."""
        self._gate.leave(self._epoch, self._started_s, time.monotonic(), self._body_bytes, error or self.error)


class UploadLimit:
    """The gate of one process; all its partitions put through it. Lives on the event loop's thread."""

    def __init__(self, limiter: Limiter, metrics: UploaderMetrics) -> None:
        self.limiter = limiter
        self.in_flight = 0  # puts under way, granted places included
        self.moved_s = 0.0  # when a put last ended, or began while no other was under way; monotonic
        self._waiting: deque[asyncio.Future[None]] = deque()  # in order; one that is done was abandoned by its put
        # Asked at each scrape: setting two gauges a put would cost more than all the rest here.
        metrics.in_flight.set_function(lambda: self.in_flight)
        metrics.in_flight_limit.set_function(lambda: self.limiter.limit)

    @property
    def limit(self) -> int:
        """Puts that may be under way now."""
        return self.limiter.limit

    def silent_s(self, now_s: float) -> float:
        """For how many seconds no put has ended, nor a first one begun. `now_s` is monotonic."""
        return max(0.0, now_s - self.moved_s)

    def slot(self, body_bytes: int = 0) -> Slot:
        """A place for one put of `body_bytes`, for `async with`."""
        return Slot(self, body_bytes)

    def enter(self) -> bool:
        """Take a place, if one is free; else `wait` for it."""
        if self.in_flight >= self.limiter.limit:  # if not, then nobody waits, by the first invariant
            return False
        self.in_flight += 1
        return True

    def begin(self, now_s: float) -> int:
        """A put starts in its place, at `now_s` of the monotonic clock; returns its epoch. Every place is left."""
        if self.in_flight == 1:
            self.moved_s = now_s
        return self.limiter.epoch

    def leave(
        self, epoch: int, started_s: float, now_s: float, body_bytes: int, error: BaseException | None = None
    ) -> None:
        """Give the place back, and tell the limiter how the put ended; one that was cancelled tells nothing.

        Args:
            epoch: what `begin` returned.
            started_s: when that was.
            now_s: the time now.
            body_bytes: what the put carried.
            error: what it failed with; None: it was stored.

        """
        self.moved_s = now_s
        limiter = self.limiter
        if error is None:
            limiter.stored(epoch, now_s - started_s, body_bytes, limit_reached=self.in_flight >= limiter.limit)
        elif isinstance(error, Exception):
            limiter.failed(epoch, error)
        self.in_flight -= 1
        if self._waiting:
            self._let_in()

    async def wait(self) -> None:
        """Wait until a place is granted: after `enter` has found none."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                self.in_flight -= 1
                self._let_in()
            raise

    def _let_in(self) -> None:
        """Grant places to those that wait, as far as the limit goes."""
        while self._waiting and self.in_flight < self.limiter.limit:
            granted = self._waiting.popleft()
            if not granted.done():
                self.in_flight += 1
                granted.set_result(None)
