"""Whose cancellation is it? aiokafka cancels tasks of its own and awaits them, and so raises CancelledError at us.

Taken for ours, it would end the process, or aiokafka's coordination task inside a rebalance callback, without a word.
"""

import asyncio


def cancelled_from_outside() -> bool:
    """Whether a CancelledError that was just caught is meant for the current task: then it must be raised again."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def first_cause(error: BaseException) -> BaseException:
    """The first cause inside exception groups; what is no group, as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
