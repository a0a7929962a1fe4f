"""An S3 server that speaks HTTP by hand, so that it can speak it wrongly: one script a connection, one a request.

Owns listeners on addresses of loopback, plain or TLS, and a thread with an event loop; tests drive it from their own
thread. It keeps what it was told to store. What is done to a request is an `Act`; those that tests share are in
`s3_acts`. It checks nothing of a request: `FakeS3` does.
"""

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote
from weakref import WeakSet

from tests.fakes.script import Shelf
from tests.harness import connections

BUCKET = "bucket"
_HEAD_BYTES_MAX = 64 * 1024
_PIECE_BYTES = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    key: str
    headers: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return int(self.headers.get("content-length", "0"))


class Wire:
    """One connection, seen from the server. What is written to a client that has gone goes nowhere."""

    def __init__(self, server: "Adversary", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.requests = 0  # heads read
        self.closed = False  # by us
        self._reader = reader
        self._writer = writer
        self._unread = 0  # of the body of the request at hand
        self._body = b""  # what of it has been read

    async def head(self) -> Request | None:
        """The next request's head, once what is left of the body before is read; None when the client has closed."""
        await self.body()
        try:
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        request = Request(method, unquote(target.partition("?")[0]).removeprefix(f"/{BUCKET}/"), headers)
        self.requests += 1
        self._unread, self._body = request.size, b""
        return request

    async def body(self) -> bytes:
        """The whole body of the request at hand."""
        while self._unread:
            piece = await self._reader.read(min(self._unread, _PIECE_BYTES))
            if not piece:
                raise ConnectionResetError
            self._body += piece
            self._unread -= len(piece)
        return self._body

    async def store(self, request: Request) -> bytes:
        """Read the body and keep the object; the right answer."""
        body = await self.body()
        self.server.shelf.store(request.key, body, {}, request.headers.get("content-type", ""), request.headers)
        return proof_of(body)

    async def send(self, data: bytes) -> None:
        """Send, at the pace that the client reads."""
        self._writer.write(data)
        self.server.sent_bytes += len(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed, reading nothing into memory."""
        while await self._reader.read(_PIECE_BYTES):
            pass

    def close(self) -> None:
        """Close as one should: what was sent arrives, and over TLS a close_notify."""
        self.closed = True
        self._writer.close()

    def cut(self) -> None:
        """Close the socket under whatever runs over it: over TLS without close_notify."""
        self.closed = True
        self._writer.transport.abort()

    def reset(self) -> None:
        """A reset (RST)."""
        found: socket.socket = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.cut()


Act = Callable[[Wire, Request], Awaitable[None]]
"""What is done once the head of a request is read. The body is read by whoever wants it."""


def proof_of(body: bytes) -> bytes:
    """The answer that says: these bytes are kept."""
    return answer(200, ETag=f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer with its length."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def refusal(status: int, code: str, **headers: str) -> bytes:
    """An error of S3."""
    return answer(status, document(code), **headers)


def document(code: str) -> bytes:
    """The body of an error."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by script</Message></Error>".encode()


async def stored(wire: Wire, request: Request) -> None:
    """What a good server does."""
    await wire.send(await wire.store(request))


class Adversary:
    """A context manager: listening from `__enter__` to `__exit__`, on the same port of each host.

    Attributes:
        shelf: what was stored.
        acts: one for each of the next requests, whichever connection they come on; a good server's after these.
        always: the act of every request that has none in `acts`.
        on_accept: one for each of the next connections, before it is read (over TLS: after the handshake).
        keys: of the requests whose heads were read, in their order.
        accepted: connections so far, by host.
        alive: connections that are open now.
        sent_bytes: to all clients.

    """

    def __init__(self, *hosts: str, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.shelf = Shelf()
        self.acts: deque[Act] = deque()
        self.always: Act = stored
        self.on_accept: deque[Callable[[Wire], Awaitable[None]]] = deque()
        self.keys: list[str] = []
        self.accepted: Counter[str] = Counter()
        self.alive: set[Wire] = set()
        self.sent_bytes = 0
        self.hosts = hosts or ("127.0.0.1",)
        self.port = port
        self._tls = tls
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: WeakSet[asyncio.StreamWriter] = WeakSet()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="adversary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for host in self.hosts:
            self.listen(host)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(connections.end(self._servers.values(), self._connections))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def endpoint_url(self) -> str:
        """Its first address."""
        return self.url(self.hosts[0])

    def url(self, host: str) -> str:
        """An endpoint of this server, under any name that leads here."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables that point an S3 client here, as `FakeS3` has them."""
        return {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> Shelf:
        """The one bucket is there."""
        assert name == BUCKET
        return self.shelf

    def then(self, *acts: Act) -> None:
        """These for the next requests."""
        self.acts.extend(acts)

    def bodies(self, key: str) -> list[bytes]:
        """Of every version of one object."""
        return [version.body for version in self.shelf.versions().get(key, ())]

    def listen(self, host: str) -> None:
        """Listen on this address, too, or again."""
        self._run(self._listen(host))

    def refuse(self, host: str) -> None:
        """Refuse further connections on this address, and end all that there are, on any."""
        self._run(self._refuse(host))

    def reset_all(self) -> None:
        """Reset every connection."""
        self._run(self._reset_all())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, host: str) -> None:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections.add(writer)
            task = self._loop.create_task(self._serve(host, reader, writer))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

        server = await asyncio.start_server(connected, host, self.port, ssl=self._tls, limit=_HEAD_BYTES_MAX)
        self.port = server.sockets[0].getsockname()[1]
        self._servers[host] = server

    async def _refuse(self, host: str) -> None:
        self._servers.pop(host).close()
        await self._reset_all()

    async def _reset_all(self) -> None:
        for wire in list(self.alive):
            wire.reset()

    async def _serve(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted[host] += 1
        wire = Wire(self, reader, writer)
        self.alive.add(wire)
        try:
            with contextlib.suppress(OSError):
                await self._script(wire)
        finally:
            self.alive.discard(wire)
            if not wire.closed:
                writer.close()

    async def _script(self, wire: Wire) -> None:
        if self.on_accept:
            await self.on_accept.popleft()(wire)
        while not wire.closed and (request := await wire.head()) is not None:
            self.keys.append(request.key)
            act = self.acts.popleft() if self.acts else self.always
            await act(wire, request)


def server_context(certificates: Sequence[str]) -> ssl.SSLContext:
    """For `Adversary(tls=…)`: the paths of a certificate and its key. Loading others into it renews them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates)
    return context
