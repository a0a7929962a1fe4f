"""A server of S3's port that answers with the bytes a test gives it, on the test's own loop. Knows HTTP only to read.

For what no well-made server does: half an answer, two of them, one too early. What `FakeS3` can do is its business.
"""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakSet

from tests.harness import connections

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawS3:
    """A listener with the number of connections and requests that came, and the bodies."""

    def __init__(self, handler: Handler | None) -> None:
        self._handler = handler or self.serve
        self.connections = 0
        self.open = 0
        self.requests: list[tuple[bytes, bytes]] = []  # head and body
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()  # one a connection
        self._connections: WeakSet[asyncio.StreamWriter] = WeakSet()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, closed when its handler is done."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        self.connections += 1
        self.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._handler(reader, writer)
        except asyncio.CancelledError:  # `close`; start_server would complain of a cancelled handler
            writer.transport.abort()
        finally:
            self.open -= 1
            writer.close()
            self._tasks.discard(task)

    async def close(self, listener: asyncio.Server) -> None:
        """End the listening, and what is still being handled."""
        await connections.stop_listening(listener)
        await connections.cut(set(self._tasks), self._connections)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """One request; its body."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        self.requests.append((head, body))
        return body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request as S3 does."""
        while True:
            writer.write(stored(await self.read(reader)))
            await writer.drain()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


def stored(body: bytes, more: bytes = b"") -> bytes:
    """The answer to a put that was stored."""
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest().encode()
    return b'HTTP/1.1 200 OK\r\nETag: "%b"\r\n%bContent-Length: 0\r\n\r\n' % (etag, more)


def refused(status: int, code: str, more: bytes = b"") -> bytes:
    """The answer to a put that was not."""
    document = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, more, len(document), document)


@contextlib.asynccontextmanager
async def listening(
    handler: Handler | None = None, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[RawS3]:
    """A server that handles each connection with `handler`; without one it answers as S3 does."""
    server = RawS3(handler)
    opened = socket.create_server(("127.0.0.1", port))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # or a slow reader's kernel would read fast
    server.port = opened.getsockname()[1]
    listener = await asyncio.start_server(server.accept, sock=opened, ssl=context)
    try:
        yield server
    finally:
        await server.close(listener)
