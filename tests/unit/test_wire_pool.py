"""The pool of the wire client by itself: who waits for a connection gets one or an error, whatever happens then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.uploader.errors import TransientError
from services.uploader.store.connections.pool import Pool
from tests.harness.raw_s3 import listening

pytestmark = pytest.mark.usefixtures("loop_factory")

BOUND_S = 10


@asynccontextmanager
async def of_one() -> AsyncIterator[Pool]:
    """A pool of a single connection."""
    async with listening() as server, asyncio.timeout(BOUND_S):
        pool = Pool("127.0.0.1", server.port, None, 1)
        try:
            yield pool
        finally:
            await pool.close()


@pytest.mark.parametrize("usable", [True, False], ids=["a connection", "a place"])
async def test_what_comes_as_its_waiter_is_cancelled_goes_to_the_next(usable: bool) -> None:
    """A revoke cancels a put in the very turn in which it is given its connection, or the place to make one."""
    async with of_one() as pool:
        connection = await pool.connect()
        first, second = (asyncio.create_task(pool.connect()) for _ in range(2))
        await asyncio.sleep(0)
        if not usable:
            connection.abort()
        pool.give_back(connection)
        first.cancel()
        await asyncio.wait({first})
        assert first.cancelled()
        assert ((await second) is connection) == usable


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_connection_that_is_lost_on_its_way_to_a_waiter(fresh: bool) -> None:
    """Its place is the waiter's to make another in: nobody else would wake it."""
    async with of_one() as pool:
        connection = await pool.connect()
        waiter = asyncio.create_task(pool.connect(fresh=fresh))
        await asyncio.sleep(0)
        pool.give_back(connection)
        connection.connection_lost(None)
        assert (await waiter).usable


async def test_a_making_that_is_cancelled_frees_its_place() -> None:
    """Or a pool would have a connection less for each."""
    async with of_one() as pool:
        making = asyncio.create_task(pool.connect())
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.wait({making})
        assert (await pool.connect()).usable


async def test_the_end_of_a_pool_is_an_error_for_who_waits() -> None:
    """And no cancellation, that nobody asked for: a task would end by it without a word."""
    async with of_one() as pool:
        await pool.connect()
        waiting = [asyncio.create_task(pool.connect()) for _ in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(pool.close())
        asyncio.get_running_loop().call_soon(waiting[0].cancel)  # as its error is on the way: it stays cancelled
        await asyncio.wait([closing, *waiting])
        assert waiting[0].cancelled()
        assert all(type(waiter.exception()) is TransientError for waiter in waiting[1:])
