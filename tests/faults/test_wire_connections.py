"""Connections end when they should not, inside one process: which puts are tried again, where, and how often."""

import asyncio

import pytest

from services.uploader.errors import TransientError
from services.uploader.store import Store
from tests.fakes.s3_acts import Then, says, stores, together, unanswered
from tests.fakes.s3_adversary import Request, Wire, proof_of, stored
from tests.harness.adverse import BODY, Adverse
from tests.harness.waiting import eventually

ENDS = [Then.CLOSE, Then.CUT, Then.RESET]
HALVES = {
    "half a status line": b"HTTP/1.",
    "half a head": b"HTTP/1.1 200 OK\r\nETag: ",
    "a head without its end": proof_of(BODY)[:-2],
    "a 100 and no more": b"HTTP/1.1 100 Continue\r\n\r\n",
    "one byte": b"H",
}


@pytest.mark.parametrize("puts", [1, 3])
@pytest.mark.parametrize("then", ENDS)
async def test_a_connection_closed_while_idle_is_no_error(adverse: Adverse, puts: int, then: Then) -> None:
    """A server that closes after every n puts, without a word: each put is stored, once."""
    adverse.server.then(*[*[stored] * (puts - 1), stores(then=then)] * 4)
    async with adverse.open() as store:
        for number in range(4 * puts + 1):
            await adverse.put(store, f"key-{number}")
            assert len(adverse.server.bodies(f"key-{number}")) == 1


@pytest.mark.parametrize("read", [True, False], ids=["body read", "body unread"])
@pytest.mark.parametrize("then", ENDS)
async def test_closed_in_the_moment_of_the_next_put(adverse: Adverse, then: Then, read: bool) -> None:
    """A kept connection ends as the request is written: it is sent again at once, on a fresh one, and no error told."""
    async with adverse.open() as store:
        await adverse.put(store, "before")
        adverse.server.then(unanswered(then, read=read))
        await adverse.put(store, "key")
    assert adverse.server.bodies("key") == [BODY]
    assert adverse.server.keys.count("key") == 2


@pytest.mark.parametrize("then", ENDS)
async def test_the_second_try_has_no_third(wire: Adverse, then: Then) -> None:
    """Only a connection that was kept may have been closed while idle; what a fresh one does is told."""
    async with wire.open() as store:
        await wire.put(store, "before")
        error = await wire.fails(store, unanswered(then), unanswered(then))
        assert (type(error), error.reason) == (TransientError, "connection")
        assert wire.server.keys.count("unlucky") == 2


@pytest.mark.parametrize("then", ENDS)
async def test_a_fresh_connection_is_tried_once(wire: Adverse, then: Then) -> None:
    """The put's place for retries is the uploader's: it backs off, and it is counted there."""
    async with wire.open() as store:
        error = await wire.fails(store, unanswered(then))
        assert (type(error), error.reason) == (TransientError, "connection")
        assert wire.server.keys.count("unlucky") == 1


@pytest.mark.parametrize("half", HALVES)
async def test_what_was_answered_in_part_is_not_sent_again(wire: Adverse, half: str) -> None:
    """With one byte of an answer the request was taken: a kept connection, too, ends as an error."""
    async with wire.open() as store:
        await wire.put(store, "before")
        error = await wire.fails(store, unanswered(Then.CLOSE, said=HALVES[half]))
        assert type(error) is TransientError
        assert wire.server.keys.count("unlucky") == 1


async def test_all_kept_connections_die_at_once(wire: Adverse) -> None:
    """A server that restarts: as many puts as there are connections, and none is tried on another dead one."""
    count = 24
    async with wire.open(connections_max=count) as store:
        await _hold_all(wire, store, count)
        kept = len(wire.server.alive)
        assert kept == count
        wire.server.then(*[unanswered(Then.RESET)] * count)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(wire.put(store, f"again-{number}"))
    assert all(len(wire.server.bodies(f"again-{number}")) == 1 for number in range(count))


@pytest.mark.parametrize("then", ENDS)
async def test_closed_under_a_put_that_waited_for_a_place(wire: Adverse, then: Then) -> None:
    """Handed a connection that another put has just used, and that is closed, it has a fresh one to go, however many
    wait: never a second used one.
    """

    async def once(connection: Wire, request: Request) -> None:
        await (stores(apart=True) if connection.requests == 1 else unanswered(then))(connection, request)

    wire.server.always = once
    async with wire.open(connections_max=2) as store, asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(wire.put(store, f"key-{number}"))
    assert all(len(wire.server.bodies(f"key-{number}")) == 1 for number in range(12))


async def test_connections_are_bounded(adverse: Adverse) -> None:
    """However many puts there are, there are never more connections than were asked for, and all get their turn."""
    async with adverse.open(connections_max=4) as store:
        adverse.server.then(*[stores(apart=True)] * 40)
        seen = 0
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(adverse.put(store, f"key-{number}"))
            while any(not adverse.server.bodies(f"key-{number}") for number in range(40)):
                seen = max(seen, len(adverse.server.alive))
                await asyncio.sleep(0.005)
    assert 1 < seen <= 4


async def test_cancelled_puts_leave_nothing_behind(adverse: Adverse) -> None:
    """A revoke cancels puts under way: their connections are not used again, their places are free at once."""
    async with adverse.open(connections_max=4) as store:
        for _ in range(5):
            adverse.server.then(*[says(then=Then.SILENCE)] * 4)
            asked = len(adverse.server.keys)
            puts = [asyncio.create_task(store.put("cancelled", BODY, {})) for _ in range(4)]
            await eventually(lambda asked=asked: len(adverse.server.keys) == asked + 4, "4 requests")
            for put in puts:
                put.cancel()
            await asyncio.gather(*puts, return_exceptions=True)
            assert all(put.cancelled() for put in puts)
            await eventually(
                lambda: not adverse.server.alive, "the connections of cancelled puts to be closed", deadline_s=5
            )
        await adverse.serves(store)
    assert adverse.server.bodies("cancelled") == []


async def test_a_put_that_waits_for_a_place_can_be_cancelled(adverse: Adverse) -> None:
    """Puts beyond the connections wait; cancelled, they leave, and none of them takes a place with it."""
    async with adverse.open(connections_max=1) as store:
        adverse.server.then(says(then=Then.SILENCE))
        holder = asyncio.create_task(store.put("holder", BODY, {}))
        await eventually(lambda: adverse.server.keys == ["holder"], "the one connection to be taken")
        waiting = [asyncio.create_task(store.put("waiting", BODY, {})) for _ in range(8)]
        await asyncio.sleep(0)
        for put in [*waiting, holder]:
            put.cancel()
        await asyncio.gather(*waiting, holder, return_exceptions=True)
        await adverse.serves(store)
    assert "waiting" not in adverse.server.keys


async def test_a_closed_store_closes_its_connections(adverse: Adverse) -> None:
    """With the store's context its sockets end; nothing waits for a server's idle time-out."""
    async with adverse.open() as store:
        await _hold_all(adverse, store, 8)
    await eventually(lambda: not adverse.server.alive, "all connections to be closed")


async def _hold_all(adverse: Adverse, store: Store, count: int) -> None:
    """Put at once on so many connections, all of which are kept."""
    adverse.server.then(*together(count))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(adverse.put(store, f"held-{number}"))
