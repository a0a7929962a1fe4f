"""The addresses of a host, dead ones among them, and the name that they are found by."""

import asyncio
import socket

import pytest

from services.uploader.errors import TransientError
from services.uploader.store.connections import addresses, pool
from services.uploader.store.connections.addresses import Address, Addresses
from tests.harness.raw_s3 import listening
from tests.harness.wire_stores import opened

pytestmark = pytest.mark.usefixtures("loop_factory", "aws")


FIRST, SECOND, THIRD = (Address(socket.AF_INET, (f"127.0.0.{number}", 1)) for number in (1, 2, 3))


def test_addresses_are_used_in_turn() -> None:
    """Each one is the first to be tried in its turn, and all are tried."""
    known = Addresses()
    known.learn((FIRST, SECOND, THIRD), 0)
    turns = [known.in_turn(0) for _ in range(3)]
    assert {turn[0] for turn in turns} == {FIRST, SECOND, THIRD}
    assert all(set(turn) == {FIRST, SECOND, THIRD} for turn in turns)


def test_a_dead_address_is_passed_over_for_a_while() -> None:
    """Last of all while it is dead, tried again after 30 s, or as soon as it takes a connection; DNS may forget it."""
    known = Addresses()
    known.learn((FIRST, SECOND), 0)
    known.died(FIRST, 10)
    assert [known.in_turn(now_s)[0] for now_s in (10, 20, 39.9)] == [SECOND] * 3
    assert {known.in_turn(40)[0] for _ in range(2)} == {FIRST, SECOND}
    known.died(SECOND, 41)
    known.died(FIRST, 42)
    assert known.in_turn(43) == [SECOND, FIRST]  # all dead: the longest dead first
    known.lives(FIRST)
    assert known.in_turn(43) == [FIRST, SECOND]
    known.learn((SECOND, THIRD), 44)
    assert known.in_turn(44)[0] == THIRD
    assert not known.stale(49)
    assert known.stale(49.1)


async def test_a_dead_address_costs_no_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with an address that refuses: every put is stored by the other, and DNS may be away later on."""
    away = False

    async def resolve(_: str, port: int) -> tuple[Address, ...]:
        if away:
            raise socket.gaierror("no DNS")
        return tuple(Address(socket.AF_INET, (host, port)) for host in ("127.0.0.2", "127.0.0.1"))

    monkeypatch.setattr(pool, "resolve", resolve)
    monkeypatch.setattr(addresses, "FRESH_S", -1)
    async with listening() as server, opened(server) as store:
        await asyncio.gather(*(store.put("key", b"%d" % number, {}) for number in range(6)))
        away = True
        await asyncio.gather(*(store.put("key", b"%d" % number, {}) for number in range(8)))


async def test_a_name_that_is_not_found_is_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS comes back; and a connection that could not be made holds no place, or the third put would wait for ever."""

    async def resolve(_: str, __: int) -> tuple[Address, ...]:
        raise socket.gaierror("no DNS")

    monkeypatch.setattr(pool, "resolve", resolve)
    async with listening() as server, opened(server, connections_max=2) as store:
        for _ in range(4):
            with pytest.raises(TransientError) as caught:
                await store.put("key", b"body", {})
            assert caught.value.reason == "connection"


async def test_a_dead_address_is_tried_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by each new connection: one that is silent would cost each of them a second."""
    tries = []

    async def resolve(_: str, port: int) -> tuple[Address, ...]:
        return tuple(Address(socket.AF_INET, (host, port)) for host in ("127.0.0.2", "127.0.0.1"))

    class Watched(Addresses):
        def died(self, address: Address, now_s: float) -> None:
            tries.append(address)
            super().died(address, now_s)

    monkeypatch.setattr(pool, "resolve", resolve)
    monkeypatch.setattr(pool, "Addresses", Watched)
    async with listening() as server:
        connections = pool.Pool("any", server.port, None, 8)
        for _ in range(8):
            await connections.connect()
        await connections.close()
    assert len(tries) == 1


async def test_what_is_known_is_used_while_dns_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer is the usual outage of one: new connections are made all the same."""
    asked = 0

    async def resolve(_: str, port: int) -> tuple[Address, ...]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.get_running_loop().create_future()
        return (Address(socket.AF_INET, ("127.0.0.1", port)),)

    monkeypatch.setattr(pool, "resolve", resolve)
    async with listening() as server, asyncio.timeout(20):
        connections = pool.Pool("any", server.port, None, 8)
        await connections.connect()
        known = connections._addresses
        known.learn(known.known, asyncio.get_running_loop().time() - 2 * addresses.FRESH_S)
        await asyncio.gather(*(connections.connect() for _ in range(7)))
        await connections.close()
    assert asked == 2  # not again by each, that would wait for each other
