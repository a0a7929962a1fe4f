"""Requests that leave together, at the end of the turn of the loop in which they were made.

A request that finds the other side asleep has to wake it, which costs both sides more than the sending. Between two
requests lies the making of the next one, time enough to fall asleep again; in a row, only the first one wakes anybody.

Owns the order of the connections that have a request to send. Bounded by their number: each has one at most.
"""

import asyncio
from typing import Protocol


class Sender(Protocol):
    """A connection with a request that waits."""

    def send_waiting(self) -> None:
        """Hand it to the transport, if there still is one. Raises nothing."""
        ...


class Outbox:
    """Of the connections of one pool. Lives on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._senders: list[Sender] = []  # in the order of their requests

    def add(self, sender: Sender) -> None:
        """Have its request sent once all that is ready now has run."""
        if not self._senders:
            self._loop.call_soon(self._send)
        self._senders.append(sender)

    def _send(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            sender.send_waiting()
