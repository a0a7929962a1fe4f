"""Ends what takes too long, as `asyncio.timeout` does, with one timer for all instead of one each.

A timer made and cancelled for each put costs more than the put's signature on the wire client. Here a put costs an
entry in a table, and a beat looks over the table: a deadline is met up to one beat late.
"""

import asyncio
from types import TracebackType


class Deadlines:
    """Of one loop. No timer runs while nothing does."""

    def __init__(self, beat_s: float) -> None:
        self._beat_s = beat_s
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def after(self, allowed_s: float) -> "Deadline":
        """A context whose task is cancelled after so many seconds, and that makes a TimeoutError of it."""
        return Deadline(self, asyncio.get_running_loop(), allowed_s)

    def start(self, deadline: "Deadline", loop: asyncio.AbstractEventLoop) -> None:
        """Watch it."""
        self._running.add(deadline)
        if self._timer is None:
            self._timer = loop.call_later(self._beat_s, self._beat, loop)

    def end(self, deadline: "Deadline") -> None:
        """Watch it no longer."""
        self._running.discard(deadline)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for deadline in [one for one in self._running if one.due_s <= now_s]:
            self._running.discard(deadline)
            deadline.expire()
        self._timer = loop.call_later(self._beat_s, self._beat, loop) if self._running else None


class Deadline:
    """One entry; a context for `with`."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_loop", "_task", "due_s")

    def __init__(self, deadlines: Deadlines, loop: asyncio.AbstractEventLoop, allowed_s: float) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline outside a task")
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()  # cancellations of others, that are not ours to take back
        self._expired = False
        self._loop = loop
        self.due_s = loop.time() + allowed_s

    def expire(self) -> None:
        """Cancel what runs inside."""
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        self._deadlines.start(self, self._loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
