"""The addresses of one host: all of them used in turn, a dead one passed over for a while. Knows no connection.

Pure but for `resolve`, that asks the system without holding the loop. `now_s` is monotonic seconds.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

FRESH_S = 5.0
"""How long an answer of DNS is used: S3's own live for seconds, and a name is asked for only with a new connection."""

DEAD_S = 30.0
"""How long an address that did not take a connection is passed over while there are others."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect."""

    family: int
    socket_address: tuple[Any, ...]


class Addresses:
    """Of one host and port."""

    def __init__(self) -> None:
        self.known: tuple[Address, ...] = ()  # as DNS last said
        self._known_s = 0.0
        self._dead: dict[Address, float] = {}  # since when; of known ones only
        self._turn = 0

    def stale(self, now_s: float) -> bool:
        """Whether DNS is to be asked."""
        return not self.known or now_s - self._known_s > FRESH_S

    def learn(self, found: tuple[Address, ...], now_s: float) -> None:
        """What DNS has said, or what is known as long as it says nothing; what it no longer says is forgotten."""
        self.known, self._known_s = found, now_s
        self._dead = {address: since_s for address, since_s in self._dead.items() if address in found}

    def in_turn(self, now_s: float) -> list[Address]:
        """Every known one, in the order in which to try them: the dead last, the longest dead of those first."""
        self._turn += 1
        turn = self._turn % max(1, len(self.known))
        rotated = self.known[turn:] + self.known[:turn]
        dead = {address for address, since_s in self._dead.items() if now_s - since_s < DEAD_S}
        living = [address for address in rotated if address not in dead]
        return living + sorted(dead, key=self._dead.__getitem__)

    def died(self, address: Address, now_s: float) -> None:
        """It took no connection."""
        if address in self.known:
            self._dead[address] = now_s

    def lives(self, address: Address) -> None:
        """It took one."""
        self._dead.pop(address, None)


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """What the system says of a host, in its order.

    Raises:
        OSError: nothing.

    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(Address(family, address) for family, _, _, _, address in found))
