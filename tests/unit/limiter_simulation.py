"""A store and its workers without a clock: a discrete-event simulation of the limit, the backoff and a store's ways.

Time is a number that jumps from event to event, and chance is seeded: a run is the same on every machine. The gate here
is the simplest one that keeps the limit, first come first served; the real one has its own tests.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from services.uploader.errors import StoreError, TransientError
from services.uploader.limiter import Limiter
from services.uploader.retry import decide

BODY_BYTES = 1000


@dataclass(frozen=True)
class Ending:
    """How a put that starts now will end: after `after_s`, with `error` or stored."""

    after_s: float
    error: StoreError | None = None


class SimulatedStore(Protocol):
    """Told the start of each put, in order of time."""

    def put(self, now_s: float) -> Ending: ...


SLOW_DOWN = TransientError("slow_down", "503")
HANG = Ending(10.0, TransientError("timeout", "no answer in 10 s"))  # the read time-out of the S3 clients


@dataclass
class Shedding:
    """Takes `capacity` puts a second, `burst_s` of it saved up at most; answers 503 to the others."""

    capacity: Callable[[float], float]
    latency_s: float
    burst_s: float = 0.05
    chance: random.Random = field(default_factory=lambda: random.Random(2))  # noqa: S311 - a simulation
    _tokens: float = math.inf  # full at the start
    _at_s: float = 0.0

    def put(self, now_s: float) -> Ending:
        rate = self.capacity(now_s)
        self._tokens = min(max(1.0, rate * self.burst_s), self._tokens + rate * (now_s - self._at_s))
        self._at_s = now_s
        # a quarter more or less: puts of one exact latency would come back in lockstep, all at once
        latency_s = self.latency_s * self.chance.uniform(0.75, 1.25)
        if self._tokens < 1:
            return Ending(latency_s, SLOW_DOWN)
        self._tokens -= 1
        return Ending(latency_s)


@dataclass
class Queueing:
    """Serves one put after another at `capacity` a second, each `latency_s` away; sheds nothing, ever."""

    capacity: float
    latency_s: float
    _free_s: float = 0.0

    def put(self, now_s: float) -> Ending:
        self._free_s = max(now_s, self._free_s) + 1 / self.capacity
        return Ending(self._free_s - now_s + self.latency_s)


@dataclass
class Unbounded:
    """Takes whatever comes, each in its own time: latency that no load changes. `ends` gets time and chance."""

    ends: Callable[[float, random.Random], Ending]
    chance: random.Random = field(default_factory=lambda: random.Random(2))  # noqa: S311 - a simulation

    def put(self, now_s: float) -> Ending:
        return self.ends(now_s, self.chance)


@dataclass
class Sample:
    """What happened in one slice of time."""

    stored: int = 0
    failed: int = 0
    limits: list[int] = field(default_factory=list)


class Simulation:
    """`workers` that always have a record to put, as the uploader's have: slot, put, backoff by `retry.decide`."""

    def __init__(self, store: SimulatedStore, *, workers: int = 512, maximum: int = 512, slice_s: float = 0.25) -> None:
        self.limiter = Limiter(maximum)
        self.slices: list[Sample] = []
        self._slice_s = slice_s
        self._store = store
        self._chance = random.Random(1)  # noqa: S311 - a simulation
        self._in_flight = 0
        self._attempts = [0] * workers
        self._waiting: deque[int] = deque(range(workers))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0  # keeps events of one time in their order
        self._now_s = 0.0

    def run(self, until_s: float) -> "Simulation":
        """Go on to that time."""
        self._start_waiting()
        while self._events and self._events[0][0] <= until_s:
            self._now_s, _, event = heapq.heappop(self._events)
            event()
            self._start_waiting()
        self._sample(until_s)
        return self

    def rate(self, from_s: float, to_s: float) -> float:
        """Puts stored a second."""
        return sum(one.stored for one in self._between(from_s, to_s)) / (to_s - from_s)

    def shed_share(self, from_s: float, to_s: float) -> float:
        """Failed puts among all."""
        failed = sum(one.failed for one in self._between(from_s, to_s))
        return failed / (failed + self.rate(from_s, to_s) * (to_s - from_s))

    def limits(self, from_s: float, to_s: float) -> list[int]:
        """Every value that the limit had, in order of time."""
        return [limit for one in self._between(from_s, to_s) for limit in one.limits]

    def _between(self, from_s: float, to_s: float) -> list[Sample]:
        return self.slices[round(from_s / self._slice_s) : round(to_s / self._slice_s)]

    def _sample(self, at_s: float) -> Sample:
        while len(self.slices) <= at_s / self._slice_s:
            self.slices.append(Sample(limits=[self.limiter.limit]))
        return self.slices[-1]

    def _after(self, delay_s: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self._now_s + delay_s, self._serial, event))

    def _start_waiting(self) -> None:
        while self._waiting and self._in_flight < self.limiter.limit:
            worker = self._waiting.popleft()
            self._in_flight += 1
            self._attempts[worker] += 1
            epoch = self.limiter.epoch
            ending = self._store.put(self._now_s)
            self._after(
                ending.after_s, lambda worker=worker, epoch=epoch, ending=ending: self._end(worker, epoch, ending)
            )

    def _end(self, worker: int, epoch: int, ending: Ending) -> None:
        sample = self._sample(self._now_s)
        if ending.error is None:
            sample.stored += 1
            self._attempts[worker] = 0
            reached = self._in_flight >= self.limiter.limit
            self.limiter.stored(epoch, ending.after_s, BODY_BYTES, limit_reached=reached)
            self._waiting.append(worker)
        else:
            sample.failed += 1
            self.limiter.failed(epoch, ending.error)
            delay_s = decide(ending.error, self._attempts[worker], self._chance.random()).delay_s
            self._after(delay_s, lambda: self._waiting.append(worker))
        sample.limits.append(self.limiter.limit)
        self._in_flight -= 1
