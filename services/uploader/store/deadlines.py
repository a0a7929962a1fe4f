"""The last deadline of each put under way, with one timer for all of them: what `asyncio.timeout` does, for a third of
its CPU. Nearly every put is over long before, and a timer made and cancelled for each is most of what that one costs.

Owns the timer and the set of puts that have a deadline. Does not know what a put is.

Invariant: while any put is under way, the timer is due no later than the earliest deadline of all.
"""

import asyncio
import math
from types import TracebackType
from typing import Any


class Deadline:
    """The deadline of the code inside `with`, in one task: past it the task is cancelled, and TimeoutError is raised
    in place of that cancellation. A cancellation that comes from elsewhere stays one.
    """

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task", "due_s")

    def __init__(self, deadlines: "Deadlines", due_s: float, task: asyncio.Task[Any]) -> None:
        self.due_s = due_s  # of the loop's clock
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()  # requests of others before
        self._expired = False

    def __enter__(self) -> None:
        """Begin."""
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; raises TimeoutError where it was this deadline that ended the task's wait."""
        self._deadlines.end(self)
        if self._expired and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """It has passed."""
        self._expired = True
        self._task.cancel()


class Deadlines:
    """Those of one store. Made and used on one loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._under_way: set[Deadline] = set()
        self._timer_due_s = math.inf  # when the timer is due; infinity: there is none
        self._timer: asyncio.TimerHandle | None = None

    def within(self, timeout_s: float) -> Deadline:
        """A deadline `timeout_s` seconds from now, for `with` in the current task."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine of ours always runs in a task
        return Deadline(self, self._loop.time() + timeout_s, task)

    def begin(self, deadline: Deadline) -> None:
        """Watch it. For `Deadline`."""
        self._under_way.add(deadline)
        if deadline.due_s < self._timer_due_s:
            self._arm(deadline.due_s)

    def end(self, deadline: Deadline) -> None:
        """Watch it no more. For `Deadline`. The timer stays: the next put wants it."""
        self._under_way.discard(deadline)

    def _arm(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = self._loop.call_at(due_s, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_due_s = None, math.inf
        now_s = self._loop.time()
        for deadline in [each for each in self._under_way if each.due_s <= now_s]:
            self._under_way.discard(deadline)
            deadline.expire()
        if self._under_way:
            self._arm(min(deadline.due_s for deadline in self._under_way))
