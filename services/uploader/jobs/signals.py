"""What Ctrl-C and SIGTERM mean to a job: the first one ends it cleanly, a second at once."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count: the job was told to stop, and can be resumed."""


@contextlib.contextmanager
def on_first_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM while the context lasts; a second one leaves the process at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    told = False

    def tell(number: int) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        stop()

    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Do what leaves nothing half done, a look: its exit code, or EXIT_INTERRUPTED once a signal has cancelled it."""
    task = asyncio.ensure_future(work)
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        task.cancel()

    with on_first_signal(stop):
        try:
            return await task
        except asyncio.CancelledError:
            if not told:
                raise
            return EXIT_INTERRUPTED
