"""How many puts a process may have under way: the adaptive limit, as a state object that is told how each put ended.

The rules are TCP's (RFC 5681: slow start, additive increase, multiplicative decrease), with a put for a segment:
- A put belongs to the *epoch* it started in; every decrease begins a new one. What ends in an older epoch says nothing:
  one overload is answered once, however many puts it fails.
- A *round* is as many stored puts as the limit allowed at its beginning: about one round trip of all of them. It ends
  with one step up, if the limit was what held the puts back.
- An *outage* is as many failures as the limit with no put stored since the last decrease. It takes the limit to its
  least and leaves the threshold of slow start where the first overload put it: healing takes a few round trips.
- *Rising latency* is tried, not believed: the limit goes down by one step, and if the puts do not become faster, their
  load was not the cause. Then the old limit comes back, and the new latency is the normal one.

Pure: no clock, no chance, no I/O; constant work a put. docs/decisions/0008 says why, with the figures.
"""

import math
from dataclasses import dataclass

from services.uploader.errors import TransientError

OVERLOAD = frozenset({"slow_down", "timeout", "connection", "server_error"})
"""Reasons that a store with too much to do gives. Every other error is about the request or the environment."""

LIMIT_MIN = 4
"""Never fewer: one put that hangs must not be the only one that could tell that the store is back."""

LIMIT_START = 16
"""Where slow start begins: five doublings below 512, and too little to harm a store."""

DECREASE = 0.8
"""What an overload leaves. Half, as in TCP, would leave a quarter of the store unused on average; nine tenths would
take 22 round trips down to a tenth of the limit instead of 10."""

TOLERATED_SHARE = 0.05
"""Overload errors a round, as a share of the limit, that are answered by a retry alone (below 20 puts: none). Errors
that come by chance and not by load would otherwise hold the limit down: at 23 puts with one error in a hundred."""

ROUNDS_A_STEP = 8
"""The step up is one put a round, and one more after each 8 rounds without a decrease. A store that sheds is met by
the smallest steps; what an error storm took comes back in the square root of the time (from 4 to 512 in 90 rounds)."""

LATENCY_FACTOR = 2.0
LATENCY_ALLOWANCE_S = 0.05
"""A round is slow when its fastest put took over twice the normal and 50 ms: half of that time is waiting in a queue,
and differences below 50 ms are the network's and the disk's own."""

SLOW_ROUNDS = 3
"""Slow rounds in a row that start a trial: chance makes one, a queue makes many; and the first after slow start is not
of one load yet. A trial that helped needs no such patience for the next one."""

TRIAL_GAIN = 0.9
"""A trial that takes a fifth of the puts from a queue takes a fifth of the latency; less than half of that is none."""

TIMED_BYTES_MAX = 64 * 1024
"""Larger bodies are not timed: their latency is their transfer, and would tell of sizes instead of load."""

TIMED_MIN = 4
"""Timed puts without which a round says nothing of latency."""

NORMAL_WEIGHT = 0.25
"""How far a faster round moves the normal latency: one lucky round must not make all others slow."""


def means_overload(error: Exception) -> bool:
    """Whether a failed put says that the store has too much to do."""
    return isinstance(error, TransientError) and error.reason in OVERLOAD


@dataclass(frozen=True, slots=True)
class Trial:
    """A decrease for latency that is not yet judged: what to go back to, and the latency (s) that began it."""

    limit: int
    latency_s: float


class Limiter:
    """The limit of one process. A caller reads `limit` before a put, keeps the `epoch` of its start, and tells its end.

    Never above `maximum`, never below LIMIT_MIN (or `maximum`, if that is less).
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.minimum = min(LIMIT_MIN, maximum)
        self.limit = min(LIMIT_START, maximum)
        self.epoch = 0  # decreases so far
        self._threshold = maximum  # below it: slow start, a put more for each stored one; above: a step a round
        self._stored_in_epoch = False  # while False, failures tell of an outage
        self._clean_rounds = 0  # in this epoch, with a step up
        # the round
        self._round_puts = self.limit  # stored puts that end it
        self._stored = 0
        self._held_back = 0  # of them, those that ended while the limit was reached
        self._failed = 0  # by overload; until a put is stored, all of the epoch
        self._timed = 0
        self._fastest_s = math.inf  # of the timed ones
        # latency
        self._normal_s: float | None = None  # None until a round was timed
        self._slow_rounds = 0  # in a row
        self._trial: Trial | None = None

    def stored(self, epoch: int, duration_s: float, body_bytes: int, *, limit_reached: bool) -> None:
        """A put was stored.

        Args:
            epoch: the value of `epoch` when it started.
            duration_s: how long it took.
            body_bytes: what it carried.
            limit_reached: whether as many puts were under way as the limit allows, this one counted.

        """
        if epoch != self.epoch:
            return
        self._stored_in_epoch = True
        self._stored += 1
        if limit_reached:
            self._held_back += 1
            if self.limit < self._threshold:
                self.limit += 1
        if body_bytes <= TIMED_BYTES_MAX:
            self._timed += 1
            if duration_s < self._fastest_s:  # noqa: PLR1730 - `min` costs three times as much, a put
                self._fastest_s = duration_s
        if self._stored >= self._round_puts:
            self._end_round()

    def failed(self, epoch: int, error: Exception) -> None:
        """A put failed; `epoch` as for `stored`. Never raises the limit."""
        if epoch != self.epoch or not means_overload(error):
            return
        self._failed += 1
        if self._stored_in_epoch:
            if self._failed <= TOLERATED_SHARE * self.limit:
                return
            self._threshold = self.limit = self._decreased()
        else:
            if self._failed < self.limit:
                return
            self.limit = self.minimum
        self._trial = None
        self._slow_rounds = 0
        self._begin_epoch()

    def _decreased(self) -> int:
        return max(self.minimum, int(self.limit * DECREASE))

    def _begin_epoch(self) -> None:
        self.epoch += 1
        self._stored_in_epoch = False
        self._clean_rounds = 0
        self._begin_round()

    def _begin_round(self) -> None:
        self._round_puts = self.limit
        self._stored = self._held_back = self._failed = self._timed = 0
        self._fastest_s = math.inf

    def _end_round(self) -> None:
        used = self._held_back * 2 >= self._stored
        slow = self._timed >= min(TIMED_MIN, self._round_puts) and self._is_slow(self._fastest_s, used=used)
        self._slow_rounds = self._slow_rounds + 1 if slow else 0
        if self._slow_rounds >= SLOW_ROUNDS:
            self._trial = Trial(self.limit, self._fastest_s)
            self._threshold = self.limit = self._decreased()
            self._begin_epoch()
            return
        if used and not slow and self._threshold <= self.limit < self.maximum:
            self._clean_rounds += 1
            self.limit = min(self.maximum, self.limit + 1 + self._clean_rounds // ROUNDS_A_STEP)
        self._begin_round()

    def _is_slow(self, fastest_s: float, *, used: bool) -> bool:
        """Judge the round's latency; ends the trial, and keeps the normal latency."""
        trial, self._trial = self._trial, None
        normal_s = self._normal_s
        if normal_s is None:
            self._normal_s = fastest_s
            return False
        if fastest_s <= normal_s:
            self._normal_s = normal_s + NORMAL_WEIGHT * (fastest_s - normal_s)
            return False
        if fastest_s <= LATENCY_FACTOR * normal_s + LATENCY_ALLOWANCE_S or self.limit < self._threshold:
            return False  # in slow start a round's puts are not of one load: the fastest is the earliest
        if trial is not None and fastest_s > TRIAL_GAIN * trial.latency_s:
            self._normal_s = fastest_s
            self._threshold = self.limit = max(self.limit, trial.limit)
            return False
        if not used or self.limit == self.minimum:  # fewer puts cannot be tried, or would not be fewer
            self._normal_s = fastest_s
            return False
        return True
