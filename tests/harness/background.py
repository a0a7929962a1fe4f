"""Clients that run beside a test: a thread with an event loop of its own, so that the test is free to break things."""

import asyncio
import threading
from types import TracebackType
from typing import Self


class Background:
    """Runs `run` from `__enter__` on. Subclasses end it by themselves once `stopping` is set."""

    def __init__(self, name: str, *, stop_deadline_s: float) -> None:
        self.stopping = threading.Event()
        self._stop_deadline_s = stop_deadline_s
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    async def run(self) -> None:
        """What is done."""
        raise AssertionError(f"{type(self).__name__} has nothing to do")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._thread.join(self._stop_deadline_s)

    def check(self) -> None:
        """Raise what has ended it early.

        Raises:
            BaseException: as it was raised in the thread.

        """
        if self._failure is not None:
            raise self._failure

    def ended(self) -> bool:
        """Tell it to stop, and wait; whether it has ended in time.

        Raises:
            BaseException: what ended it early.

        """
        self.stopping.set()
        self._thread.join(self._stop_deadline_s)
        self.check()
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            asyncio.run(self.run())
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread by `check`
            self._failure = error
