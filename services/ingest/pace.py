"""How many large pieces of work run in one turn of the event loop: a few, first come first served.

Owns fairness between who moves much and who asks little. Fifty clients that send 10 MB each would otherwise all be read
in every turn, and a small request, which takes some turns, would wait for all of them at each.
"""

import asyncio
from collections import deque


class Pace:
    """Turns, `per_turn` in each turn of the loop."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._given = 0  # in this turn of the loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pumping = False
        self._loop = asyncio.get_running_loop()

    async def turn(self) -> None:
        """Wait for a turn: at once where this turn of the loop has one left."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)
        if self._given < self._per_turn and not self._waiting:
            self._given += 1
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        await turn

    def _pump(self) -> None:
        self._given = 0
        while self._waiting and self._given < self._per_turn:
            turn = self._waiting.popleft()
            if not turn.done():  # else who waited is gone
                turn.set_result(None)
                self._given += 1
        self._pumping = self._given > 0
        if self._pumping:
            self._loop.call_soon(self._pump)
