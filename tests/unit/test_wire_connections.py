"""What a server can do to a connection of the wire client, and what becomes of the put."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from services.uploader.errors import ClientSetupError, PoisonRecord, StoreError, TransientError
from services.uploader.store import clients, wire
from services.uploader.store.connections import addresses, pool
from services.uploader.store.connections.addresses import Address, Addresses
from services.uploader.store.connections.answer_reader import ANSWER_BYTES_MAX
from services.uploader.store.options import StoreOptions
from services.uploader.store.renewing import RenewingStore
from services.uploader.store.signing.request_head import Template
from shared.telemetry import UploaderMetrics
from tests.harness.raw_s3 import RawS3, listening, refused, stored

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"], autouse=True)
def loop_factory(request: pytest.FixtureRequest) -> object:
    """Both loops: the uploader runs on uvloop, whose transports are of another make."""
    return request.param


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@contextlib.asynccontextmanager
async def opened(server: RawS3, connections_max: int = 8, **more: object) -> AsyncIterator[RenewingStore]:
    options = StoreOptions(
        bucket="bucket",
        endpoint_url=server.endpoint_url,
        path_style=True,
        connections_max=connections_max,
        **more,  # type: ignore[arg-type]
    )
    async with (
        asyncio.timeout(20),
        wire.open_store(options, UploaderMetrics(CollectorRegistry()).store_restarts) as store,
    ):
        yield store


async def until(question: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while True:
            if question():
                return
            await asyncio.sleep(0.001)


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
        await until(lambda: server.open == 0)


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
        await until(lambda: server.open == 0)
        await store.put("key", b"second", {})
        assert server.connections == 2


async def test_informational_answers_are_passed_over() -> None:
    """1xx before the answer, as HTTP allows; but not without end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await server.read(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * (100 if body == b"many" else 3) + stored(body))
        await writer.drain()
        await reader.read()

    async with listening(handle) as server, opened(server) as store:
        await store.put("key", b"body", {})
    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(TransientError, match="1xx"):
            await store.put("key", b"many", {})


async def test_a_chunked_error_is_read() -> None:
    """S3 sends its errors in chunks."""
    document = b"<Error><Code>SlowDown</Code><Message>a &lt;b&gt;</Message></Error>"
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(document[at : at + 7]), document[at : at + 7]) for at in range(0, 70, 7))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces.replace(b"0\r\n\r\n", b""))
        writer.write(b"0\r\n\r\n")
        await server.read(reader)
        writer.write(stored(b"body"))
        await reader.read()

    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(TransientError, match="a <b>") as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "slow_down"
        await store.put("key", b"body", {})
        assert server.connections == 1  # an error is a whole answer: the connection is kept


@pytest.mark.parametrize("length", [b"", b"Connection: close\r\n"])
async def test_an_error_that_ends_with_its_connection_is_read(length: bytes) -> None:
    """No Content-Length and no chunks: the end of the stream is the end of the answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 400 X\r\n" + length + b"\r\n<Error><Code>EntityTooLarge</Code></Error>")

    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(PoisonRecord):
            await store.put("key", b"body", {})


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * ANSWER_BYTES_MAX,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (ANSWER_BYTES_MAX // 6),
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (ANSWER_BYTES_MAX // 6),
        b"HTTP/1.1 500 X\r\nContent-Length: 99999999\r\n\r\n" + b"x" * ANSWER_BYTES_MAX,
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ],
    ids=["header", "headers", "chunks", "body", "ssh", "upgrade", "lengths"],
)
async def test_what_is_no_answer_of_s3_ends_the_put(answer: bytes) -> None:
    """Without end, or without sense: an error, the connection is closed, the next put is served."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await server.read(reader)
        writer.write(stored(body) if body == b"good" else answer)
        await writer.drain()
        await reader.read()

    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(TransientError) as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "unexpected_answer"
        await until(lambda: server.open == 0)
        await store.put("key", b"good", {})


@pytest.mark.parametrize(("status", "said"), [(403, "AccessDenied"), (200, "before it had the whole request")])
async def test_an_answer_before_the_body_ends_the_put(status: int, said: str) -> None:
    """A server need not read what it refuses, but cannot keep it either; the connection is not used again."""
    body = b"x" * 8 * 1024 * 1024

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stored(body) if status == 200 else refused(status, "AccessDenied"))
        await writer.drain()
        await closed.wait()

    closed = asyncio.Event()
    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(StoreError, match=said):
            await store.put("key", body, {})
        closed.set()
        await until(lambda: server.open == 0)
        assert server.connections == 1


@pytest.mark.parametrize("reads", [True, False])
async def test_no_byte_for_the_read_time_out_ends_a_put(reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server that does not answer nor one that does not read holds a put."""
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.4)

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        if reads:
            await server.read(reader)
        await closed.wait()

    closed = asyncio.Event()
    async with listening(handle) as server, opened(server) as store:
        with pytest.raises(TransientError, match="has not answered" if reads else "has not taken") as caught:
            await store.put("key", b"x" * 16 * 1024 * 1024, {})
        assert caught.value.reason == "timeout"
        closed.set()


async def test_a_slow_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as bytes move, a large body may take many times the read time-out."""
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.4)
    body = b"x" * 6 * 1024 * 1024

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left:
            left -= len(await reader.read(256 * 1024))
            await asyncio.sleep(0.05)  # what is tested: a server's own pace
        writer.write(stored(body))
        await reader.read()

    async with listening(handle) as server, opened(server) as store:
        await store.put("key", body, {})


async def test_a_cancelled_put_closes_its_connection() -> None:
    """Its answer, should it come, is nobody's."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        if server.connections > 1:
            writer.write(stored(b"second"))
        await reader.read()

    async with listening(handle) as server, opened(server, connections_max=1) as store:
        put = asyncio.create_task(store.put("key", b"first", {}))
        await until(lambda: server.requests)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await store.put("key", b"second", {})  # the place of the one that was closed
        await until(lambda: server.open == 1)


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
        await until(lambda: len(server.requests) == 2)
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
        await until(lambda: server.open == 0)
        await store.put("key", b"body", {})


async def test_the_end_closes_every_connection() -> None:
    """Nothing is left open behind a store."""
    async with listening() as server:
        async with opened(server) as store:
            await asyncio.gather(*(store.put("key", b"%d" % number, {}) for number in range(5)))
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("again", [False, True])
async def test_a_307_is_followed_once_and_signed_anew(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rule allows it, the same put goes to the other host, under that host's name; never to a third."""

    async def away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await second.read(reader)
        writer.write(refused(307, "TemporaryRedirect", b"Location: /bucket/key\r\n"))
        await reader.read()

    def follow(template: Template, *_: str) -> Template:
        return replace(template, port=second.port, host_header=f"127.0.0.1:{second.port}")

    monkeypatch.setattr(wire, "followed", follow)
    async with listening(away if again else None) as second, listening(away) as first:
        async with opened(first) as store:
            if again:
                with pytest.raises(ClientSetupError):
                    await store.put("key", b"body", {})
            else:
                await store.put("key", b"body", {})
        assert len(second.requests) == 2
        assert any(b"Host: 127.0.0.1:%d\r\n" % second.port in head for head, _ in second.requests)
        await until(lambda: first.open + second.open == 0)


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
