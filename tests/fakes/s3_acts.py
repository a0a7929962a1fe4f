"""What an adversary does to a request: answers said in any pieces, too early, without end, or not at all.

Owns the acts that tests share. An act that goes on "until the client has gone" has no other end: the client's bounds
are what is tested.
"""

import asyncio
from enum import Enum, auto

from tests.fakes.s3_adversary import Act, Request, Wire


class Then(Enum):
    """What becomes of the connection."""

    KEEP = auto()
    CLOSE = auto()
    CUT = auto()
    RESET = auto()
    SILENCE = auto()
    """Neither another byte nor an end."""


async def _end(wire: Wire, then: Then) -> None:
    match then:
        case Then.CLOSE:
            wire.close()
        case Then.CUT:
            wire.cut()
        case Then.RESET:
            wire.reset()
        case Then.SILENCE:
            await wire.gone()
            wire.close()


def says(*pieces: bytes, then: Then = Then.KEEP, pause_s: float = 0) -> Act:
    """Read the body, store nothing, and say this; with a pause before each further piece."""

    async def act(wire: Wire, _: Request) -> None:
        await wire.body()
        for number, piece in enumerate(pieces):
            await asyncio.sleep(pause_s if number else 0)
            await wire.send(piece)
        await _end(wire, then)

    return act


def stores(*, before: bytes = b"", after: bytes = b"", then: Then = Then.KEEP, apart: bool = False) -> Act:
    """Store, and give the right answer, with something `before` and `after` it; `apart`: in segments of their own."""

    async def act(wire: Wire, request: Request) -> None:
        right = await wire.store(request)
        for piece in (before, right, after) if apart else (before + right + after,):
            await wire.send(piece)
            await asyncio.sleep(0.02 if apart else 0)
        await _end(wire, then)

    return act


def early(said: bytes, then: Then = Then.KEEP) -> Act:
    """Answer once the head is there, and read no body; KEEP reads it after all."""

    async def act(wire: Wire, _: Request) -> None:
        await wire.send(said)
        await _deaf(wire, then)

    return act


async def _deaf(wire: Wire, then: Then) -> None:
    if then is Then.SILENCE:
        # Not one byte more is read, so only a failed write would tell that the client has gone.
        await asyncio.Event().wait()
    await _end(wire, then)


def unanswered(then: Then, *, read: bool = True, said: bytes = b"") -> Act:
    """End the connection instead of an answer, or in the middle of one; store nothing."""

    async def act(wire: Wire, _: Request) -> None:
        if read:
            await wire.body()
        if said:
            await wire.send(said)
        await _end(wire, then)

    return act


def endless(piece: bytes, *, first: bytes = b"", every_s: float = 0) -> Act:
    """Say `first`, and then `piece` again and again until the client has gone."""

    async def act(wire: Wire, _: Request) -> None:
        await wire.body()
        await wire.send(first)
        while True:
            await wire.send(piece)
            await asyncio.sleep(every_s)

    return act


def together(count: int) -> list[Act]:
    """So many acts of a good server, none of which answers before all requests are there."""
    barrier = asyncio.Barrier(count)

    async def act(wire: Wire, request: Request) -> None:
        right = await wire.store(request)
        await barrier.wait()
        await wire.send(right)

    return [act] * count
