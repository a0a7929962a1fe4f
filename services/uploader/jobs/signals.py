"""A job that a signal has ended: its exit code, and looks that leave nothing half done."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from shared.signals import on_first_signal

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count: the job was told to stop, and can be resumed."""


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
