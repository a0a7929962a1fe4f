"""S3 answers with errors, late, or sheds what is over its capacity: the uploader waits, and is back by itself."""

import threading
import time

from tests.fakes.script import INTERNAL_ERROR, SLOW_DOWN, Answer, Delay, Fault
from tests.harness.durations import Durations
from tests.harness.pipeline import Pipeline
from tests.harness.trial import Trial
from tests.harness.waiting import until

FAULTS: dict[str, Fault] = {
    "503 SlowDown for all": SLOW_DOWN,
    "500s": INTERNAL_ERROR,
    "429": Answer(429, "TooManyRequests"),
    "200 with an error document": Answer(200, "InternalError"),
    "2 s of latency": Delay(2.0),
}

COLLECTIONS_PER_S, ITEMS = 12, 5
CAPACITY_PER_S = 100  # puts; far below what an uploader can do on a busy machine: only the store is scarce


def test_errors_for_a_while(s3_pipeline: Pipeline, durations: Durations) -> None:
    """While S3 refuses, ingest goes on answering 200; when it ends, all of it is stored within 30 s, fault by fault."""
    trial = Trial(s3_pipeline)
    for name, fault in FAULTS.items():
        with trial.under_load(name) as load:
            injection = s3_pipeline.s3.script.inject(fault)
            trial.endure(load, durations.fault_s, injection)
            injection.heal()


class Capacity:
    """A rate over which S3 sheds. Called once a put, in the server's thread."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_s = time.monotonic()
        self._lock = threading.Lock()

    def exceeded(self, _: str) -> bool:
        """Whether this put is one too many."""
        with self._lock:
            now_s = time.monotonic()
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
            if self._left < 1:
                return True
            self._left -= 1
            return False


def test_a_store_that_sheds_above_a_rate(s3_pipeline: Pipeline, durations: Durations) -> None:
    """A backlog meets a store that takes 100 a second and not one more: it drains under load, at what the store takes.

    The store never heals: whoever needs it to be well, or is driven out of it by its 503s, never catches up.
    """
    trial = Trial(s3_pipeline)
    script = s3_pipeline.s3.script
    coming_per_s = COLLECTIONS_PER_S * ITEMS
    with trial.under_load("a store with a capacity", per_s=COLLECTIONS_PER_S) as load:
        away = script.inject(SLOW_DOWN)
        trial.endure(load, durations.fault_s, away)
        backlog = load.accepted - s3_pipeline.shelf.writes
        over = script.inject(SLOW_DOWN, key=Capacity(CAPACITY_PER_S, burst=20).exceeded)
        away.heal()
        until(
            lambda: load.accepted - s3_pipeline.shelf.writes < coming_per_s,
            f"a backlog of {backlog} to drain at {CAPACITY_PER_S} a second, {coming_per_s} coming in",
            deadline_s=30 + backlog / (CAPACITY_PER_S - coming_per_s),
        )
    assert over.hits > 0, "the store never shed"
