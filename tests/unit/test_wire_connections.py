"""What a server can do to a kept connection of the wire client: which puts are sent again, and what is closed."""

import asyncio

import pytest

from services.uploader.errors import TransientError
from services.uploader.store import clients
from tests.harness.raw_s3 import listening, stored
from tests.harness.waiting import eventually
from tests.harness.wire_stores import opened

pytestmark = pytest.mark.usefixtures("loop_factory", "aws")


async def test_a_connection_is_kept() -> None:
    """Puts one after the other share one."""
    async with listening() as server, opened(server) as store:
        for number in range(5):
            await store.put("key", b"%d" % number, {})
        assert (server.connections, len(server.requests)) == (1, 5)


async def test_a_connection_closed_while_idle_costs_nothing() -> None:
    """S3 closes what is idle; the put that meets it goes out again at once, and the caller sees nothing."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stored(await server.read(reader)))
        await writer.drain()
        await server.read(reader)  # the next request is swallowed, as by a server that has closed already

    async with listening(once) as server, opened(server) as store:
        for number in range(3):
            await store.put("key", b"%d" % number, {})
        assert [body for _, body in server.requests] == [b"0", b"1", b"1", b"2", b"2"]


async def test_a_new_connection_is_not_tried_twice() -> None:
    """Closed without an answer, fresh: an error for the one place that retries."""

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.read(reader)

    async with listening(never) as server, opened(server) as store:
        with pytest.raises(TransientError) as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "connection"
        assert server.connections == len(server.requests) == 1


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\nETag: ", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_answer_that_began_is_not_tried_twice(begun: bytes) -> None:
    """A byte of an answer says that the request was seen."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stored(await server.read(reader)))
        await server.read(reader)
        writer.write(begun)
        await writer.drain()

    async with listening(half) as server, opened(server) as store:
        await store.put("key", b"first", {})
        with pytest.raises(TransientError):
            await store.put("key", b"second", {})
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        stored(b"body", b"Connection: close\r\n"),
        stored(b"body") + stored(b"other"),
        stored(b"body") + b"x",
        stored(b"body").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["close", "two", "more", "old"],
)
async def test_what_may_not_be_used_again_is_not(answer: bytes) -> None:
    """A success counts, its connection is closed, and what came behind it is nobody's answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer)
        await writer.drain()
        await reader.read()  # until the client closes

    async with listening(handle) as server, opened(server) as store:
        for _ in range(3):
            await store.put("key", b"body", {})
        assert server.connections == 3
        await eventually(lambda: server.open == 0, "every connection to be closed")


async def test_an_answer_that_nobody_asked_for_closes_the_connection() -> None:
    """Bytes on an idle connection: the next put goes elsewhere, and never takes them for its own."""
    said = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stored(await server.read(reader)))
        await said.wait()
        writer.write(stored(b"second"))
        await reader.read()

    async with listening(handle) as server, opened(server) as store:
        await store.put("key", b"first", {})
        said.set()
        await eventually(lambda: server.open == 0, "every connection to be closed")
        await store.put("key", b"second", {})
        assert server.connections == 2


async def test_a_cancelled_put_closes_its_connection() -> None:
    """Its answer, should it come, is nobody's."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        if server.connections > 1:
            writer.write(stored(b"second"))
        await reader.read()

    async with listening(handle) as server, opened(server, connections_max=1) as store:
        put = asyncio.create_task(store.put("key", b"first", {}))
        await eventually(lambda: server.requests, "the request")
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await store.put("key", b"second", {})  # the place of the one that was closed
        await eventually(lambda: server.open == 1, "one connection to be left")


async def test_connections_are_bounded() -> None:
    """A put more than there may be connections waits for one, whatever becomes of the others."""
    go_on = asyncio.Event()
    most = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        while True:
            body = await server.read(reader)
            most = max(most, len(connections._all))  # the server's own count lags behind a close
            await go_on.wait()
            if body == b"3":
                return  # closed instead of answered
            writer.write(stored(body))

    async with listening(handle) as server, opened(server, connections_max=2) as store:
        connections = store._client.store._pool  # type: ignore[union-attr]
        puts = [asyncio.create_task(store.put("key", b"%d" % number, {})) for number in range(8)]
        await eventually(lambda: len(server.requests) == 2, "two requests")
        puts[2].cancel()  # one that waits
        go_on.set()
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert most == 2
        assert connections._places == len(connections._all) <= 2
        assert [type(result) for result in results if result is not None] == [asyncio.CancelledError, TransientError]


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a peak are given up after a while."""
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.2)
    async with listening() as server, opened(server) as store:
        await asyncio.gather(*(store.put("key", b"%d" % number, {}) for number in range(5)))
        assert server.open == 5
        await eventually(lambda: server.open == 0, "every connection to be closed")
        await store.put("key", b"body", {})


async def test_the_end_closes_every_connection() -> None:
    """Nothing is left open behind a store."""
    async with listening() as server:
        async with opened(server) as store:
            await asyncio.gather(*(store.put("key", b"%d" % number, {}) for number in range(5)))
        await eventually(lambda: server.open == 0, "every connection to be closed")
