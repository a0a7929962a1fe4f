"""What a server can answer the wire client, and when: what becomes of the put, and of its connection."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from services.uploader.errors import ClientSetupError, PoisonRecord, StoreError, TransientError
from services.uploader.store import clients, wire
from services.uploader.store.checksum import Checksum
from services.uploader.store.connections.answer_reader import ANSWER_BYTES_MAX
from services.uploader.store.signing.request_head import Template
from tests.harness.raw_s3 import listening, refused, stored
from tests.harness.waiting import eventually
from tests.harness.wire_stores import opened

pytestmark = pytest.mark.usefixtures("loop_factory", "aws")


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


@pytest.mark.parametrize("checksum", [Checksum.MD5, Checksum.CRC32])
async def test_white_space_behind_a_header_is_no_part_of_it(checksum: Checksum) -> None:
    """HTTP allows it: the proof of these bytes stays one, and that of others is not taken for none."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = await server.read(reader)
            kept = b"other" if body == b"lost" else body
            etag = hashlib.md5(kept, usedforsecurity=False).hexdigest()
            proof = f'ETag: "{etag}" \t\r\nx-amz-checksum-crc32: {Checksum.CRC32.of(kept)} \t\r\n'
            writer.write(f"HTTP/1.1 200 OK\r\n{proof}Content-Length: 0\r\n\r\n".encode())

    async with listening(handle) as server, opened(server, checksum=checksum) as store:
        await store.put("key", b"kept", {})
        with pytest.raises(TransientError) as caught:
            await store.put("key", b"lost", {})
        assert caught.value.reason == "checksum_mismatch"


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
        await eventually(lambda: server.open == 0, "every connection to be closed")
        await store.put("key", b"good", {})


@pytest.mark.parametrize("body_bytes", [1024 * 1024, 8 * 1024 * 1024], ids=["in the kernel", "beyond it"])
@pytest.mark.parametrize(("status", "said"), [(403, "AccessDenied"), (200, "before it had the whole request")])
async def test_an_answer_before_the_body_ends_the_put(status: int, said: str, body_bytes: int) -> None:
    """A server need not read what it refuses, but cannot keep it either; the connection is not used again."""
    body = b"x" * body_bytes

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
        await eventually(lambda: server.open == 0, "every connection to be closed")
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
        await eventually(lambda: first.open + second.open == 0, "every connection to be closed")
