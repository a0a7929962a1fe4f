"""Deadlines with one timer for all: each ends its own task, and takes no other cancellation for its own."""

import asyncio

import pytest

from services.uploader.store.deadlines import Deadlines


async def test_what_takes_too_long_is_ended() -> None:
    """With a TimeoutError, and the task goes on."""
    deadlines = Deadlines(0.001)
    async with asyncio.timeout(5):
        for _ in range(3):
            with pytest.raises(TimeoutError), deadlines.after(0.005):
                await asyncio.Event().wait()
        await asyncio.sleep(0)  # no cancellation is left behind
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_what_is_in_time_is_let_be() -> None:
    """The others go on while one is ended; the timer stops with the last."""
    deadlines = Deadlines(0.001)
    go_on = asyncio.Event()

    async def wait(allowed_s: float) -> str:
        with deadlines.after(allowed_s):
            await go_on.wait()
        return "in time"

    async with asyncio.timeout(5):
        slow = asyncio.create_task(wait(60))
        with pytest.raises(TimeoutError):
            await wait(0.005)
        go_on.set()
        assert await slow == "in time"
        assert not deadlines._running
        while True:
            if deadlines._timer is None:
                return
            await asyncio.sleep(0.001)


async def test_a_cancellation_of_others_stays_one() -> None:
    """Also where it comes in the same turn as the deadline's own."""
    for expired in (False, True):
        deadlines = Deadlines(60)
        entered = asyncio.Event()

        async def wait(deadlines: Deadlines = deadlines, entered: asyncio.Event = entered) -> None:
            with deadlines.after(60):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await entered.wait()
        if expired:
            next(iter(deadlines._running)).expire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not deadlines._running
        assert deadlines._timer is not None
        deadlines._timer.cancel()


async def test_another_error_passes() -> None:
    """What is raised inside comes out as it is."""
    deadlines = Deadlines(0.001)
    with pytest.raises(LookupError), deadlines.after(60):
        raise LookupError
    assert not deadlines._running
