"""The one way a test waits: a condition with a deadline. Nothing in the test house sleeps for a fixed time."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, *, deadline_s: float, every_s: float = 0.05) -> T:
    """Ask until the answer is true, and give it back.

    Args:
        condition: asked again and again; a true answer ends the wait.
        what: what is waited for, for the message.
        deadline_s: seconds after which it counts as never coming.
        every_s: seconds between two questions.

    Raises:
        AssertionError: the deadline passed; names what was waited for and the last answer.

    """
    end = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise _late(what, deadline_s, answer)
        time.sleep(every_s)


async def eventually(condition: Callable[[], T], what: str, *, deadline_s: float = 20, every_s: float = 0.01) -> T:
    """`until`, for a test whose own event loop makes the condition true.

    Raises:
        AssertionError: the deadline passed; names what was waited for and the last answer.

    """
    end = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise _late(what, deadline_s, answer)
        await asyncio.sleep(every_s)


def _late(what: str, deadline_s: float, answer: object) -> AssertionError:
    return AssertionError(f"waited {deadline_s} s for {what}; the last answer was {answer!r}")


def never(condition: Callable[[], object], what: str, *, for_s: float, every_s: float = 0.1) -> None:
    """Ask for a while; the answer must stay false.

    Raises:
        AssertionError: it was true once.

    """
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert not condition(), f"there was {what}"
        time.sleep(every_s)
