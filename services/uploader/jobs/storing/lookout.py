"""What a person sees of a run, and the clock that ends one that does not get on. Stores and commits nothing."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from services.uploader.health import StoreHealth
from services.uploader.jobs.display import Display, Speed, View
from services.uploader.jobs.storing.state import PartitionState
from services.uploader.jobs.storing.tally import Tally
from shared.ops import Readiness

LOOK_EVERY_S = 0.25


class Lookout:
    """The lookout of one run.

    Attributes:
        trouble: what is wrong with Kafka, as the run last met it; empty while nothing is.

    """

    def __init__(
        self,
        states: Mapping[int, PartitionState],
        tally: Tally,
        health: StoreHealth,
        readiness: Readiness,
        display: Display,
        *,
        give_up_after_s: float,
    ) -> None:
        """Begin; its clock runs from now on.

        Args:
            states: what is to be done, by partition.
            tally: what has been.
            health: is asked now and then to forget a failure of S3 that is over.
            readiness: in which `s3` tells why puts fail.
            display: where it shows.
            give_up_after_s: without a record settled for so long, the run is to end.

        """
        self.trouble = ""
        self._states = states
        self._tally = tally
        self._health = health
        self._readiness = readiness
        self._display = display
        self._give_up_after_s = give_up_after_s
        self._speed = Speed()
        self._stored = {partition: state.settled for partition, state in states.items()}  # all below is
        self._counted = 0  # records settled, at the last look
        self._moved_s = time.monotonic()  # when anything was last settled

    def stored_to(self, partition: int, offset: int) -> None:
        """Everything of the partition below the offset is stored, or needs no object."""
        if offset > self._stored[partition]:
            self._stored[partition] = offset
            self._moved_s = time.monotonic()

    async def run(self, give_up: Callable[[str], None]) -> None:
        """Show the run until cancelled. `give_up` is called, with the reason, while nothing moves for too long."""
        while True:
            now_s = time.monotonic()
            if self._tally.settled != self._counted:
                self._counted, self._moved_s = self._tally.settled, now_s
            self._health.settle(time.time())
            with contextlib.suppress(OSError):  # who looked is gone; the clock goes on
                self._display.show(self._view(now_s))
            if now_s - self._moved_s > self._give_up_after_s:
                why = self._why() or "nothing was settled"
                give_up(f"gave up after {self._give_up_after_s:g} s without a record settled: {why}")
            await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """The run is over: show how it ended."""
        with contextlib.suppress(OSError):
            self._display.show(self._view(time.monotonic()))
            self._display.close()

    def _why(self) -> str:
        return "; ".join(each for each in (self._readiness.reasons.get("s3", ""), self.trouble) if each)

    def _view(self, now_s: float) -> View:
        rate = self._speed.of(self._tally.settled, now_s)
        partitions = {
            number: (min(self._stored[number], state.end) - state.begin, state.end - state.begin)
            for number, state in self._states.items()
        }
        left = sum(size - done for done, size in partitions.values())
        return View(
            partitions=partitions,
            records=self._tally.settled,
            bytes=self._tally.stored_bytes,
            errors=self._tally.errors,
            rate=rate,
            seconds_left=left / rate if rate > 0 else None,
            trouble=self._why(),
        )
