"""Pace: so many turns in a turn of the loop, in the order of asking, and none is lost."""

import asyncio

from services.ingest.pace import Pace


async def test_so_many_in_a_turn_of_the_loop_and_in_order() -> None:
    """Twelve ask at once: three go in each turn, the first first."""
    pace = Pace(3)
    turns: list[tuple[int, int]] = []
    turn_of_loop = 0

    async def ask(number: int) -> None:
        await pace.turn()
        turns.append((number, turn_of_loop))

    tasks = [asyncio.create_task(ask(number)) for number in range(12)]
    while not all(task.done() for task in tasks):
        turn_of_loop += 1
        await asyncio.sleep(0)
    assert [number for number, _ in turns] == list(range(12))
    seen = [turn for _, turn in turns]
    assert max(seen.count(turn) for turn in seen) == 3


async def test_who_goes_away_costs_nobody_a_turn() -> None:
    """A cancelled wait is skipped, and later ones still come."""
    pace = Pace(1)
    tasks = [asyncio.create_task(pace.turn()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    async with asyncio.timeout(5):
        await asyncio.wait(tasks)
        await pace.turn()
    assert [task.cancelled() for task in tasks] == [False, False, True, False, False]


async def test_alone_nobody_waits() -> None:
    """One after the other, with the loop's turns between them: each at once."""
    pace = Pace(1)
    for _ in range(3):
        turn = pace.turn()
        try:
            turn.send(None)
        except StopIteration:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        else:
            raise AssertionError("had to wait")
