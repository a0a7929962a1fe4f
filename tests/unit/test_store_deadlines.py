"""One timer for many deadlines, and each of them as `asyncio.timeout` would keep it."""

import asyncio

import pytest

from services.uploader.store.deadlines import Deadlines

DEADLINE_S = 30
SHORT_S = 0.02
LONG_S = 1e6


async def hang(deadlines: Deadlines, timeout_s: float, log: list[str], name: str = "") -> None:
    """Wait for ever, within a deadline."""
    try:
        with deadlines.within(timeout_s):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        log.append(f"{name}timed out")
    except asyncio.CancelledError:
        log.append(f"{name}cancelled")
        raise


async def test_what_hangs_is_ended_and_what_is_over_is_left_alone() -> None:
    """TimeoutError for the one; the task of the other goes on, past the deadline of its `with`, uncancelled."""
    deadlines, log = Deadlines(), list[str]()
    async with asyncio.timeout(DEADLINE_S):
        with deadlines.within(SHORT_S):
            await asyncio.sleep(0)
        await asyncio.create_task(hang(deadlines, SHORT_S, log))
    task = asyncio.current_task()
    assert task is not None
    assert (log, task.cancelling()) == (["timed out"], 0)


async def test_a_later_put_may_have_the_earlier_deadline() -> None:
    """A large body has longer; the small one behind it does not wait for that, and ends nobody but itself."""
    deadlines, log = Deadlines(), list[str]()
    async with asyncio.timeout(DEADLINE_S):
        large = asyncio.create_task(hang(deadlines, LONG_S, log, "large "))
        await asyncio.sleep(0)
        await asyncio.create_task(hang(deadlines, SHORT_S, log, "small "))
        assert log == ["small timed out"]
        again = asyncio.create_task(hang(deadlines, SHORT_S, log, "again "))
        await again
    large.cancel()
    await asyncio.wait({large})
    assert log == ["small timed out", "again timed out", "large cancelled"]


async def test_each_of_many_at_different_times() -> None:
    """The timer moves on to the next deadline, until none is left."""
    deadlines, log = Deadlines(), list[str]()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(hang(deadlines, 0.001 * number, log) for number in range(1, 30)))
    assert log == ["timed out"] * 29


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Before the deadline, and also at the same moment as it: whoever cancels a put must not be told of a time-out."""
    deadlines, log = Deadlines(), list[str]()
    before = asyncio.create_task(hang(deadlines, LONG_S, log))
    await asyncio.sleep(0)
    before.cancel()
    await asyncio.wait({before})
    assert before.cancelled()

    async def both() -> None:
        deadline = deadlines.within(LONG_S)
        with deadline:
            asyncio.get_running_loop().call_soon(deadline.expire)
            asyncio.get_running_loop().call_soon(at_once.cancel)
            await asyncio.get_running_loop().create_future()

    at_once = asyncio.create_task(both())
    await asyncio.wait({at_once})
    assert at_once.cancelled()


async def test_another_error_at_the_deadline_is_its_own() -> None:
    """What failed by itself as the deadline passed is told as what it is, and the task is not left half cancelled."""
    deadlines = Deadlines()

    async def fail() -> int:
        deadline = deadlines.within(LONG_S)

        async def inside() -> None:
            with deadline:
                deadline.expire()
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    raise KeyError from None

        with pytest.raises(KeyError):
            await inside()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await asyncio.create_task(fail()) == 0
