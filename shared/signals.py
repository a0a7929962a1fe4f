"""What SIGTERM and SIGINT mean to a process: the first one ends it cleanly, a second at once.

Owns the handlers on the loop. What a clean end is, its caller says.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

_EXIT_SIGNAL = 128  # and the signal's number, as shells count
_NUMBERS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger("spillway.signals")


@contextlib.contextmanager
def on_first_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM while the context lasts; a second one leaves the process at once."""
    loop = asyncio.get_running_loop()
    told = False

    def tell(number: int) -> None:
        nonlocal told
        if told:
            logger.warning("second signal: leaving at once", extra={"signal": number})
            os._exit(_EXIT_SIGNAL + number)  # every other way out waits, for connections or for a frozen broker
        told = True
        stop()

    for number in _NUMBERS:
        loop.add_signal_handler(number, tell, number)
    try:
        yield
    finally:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
