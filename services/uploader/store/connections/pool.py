"""The connections to one host: bounded in number, in idleness and in the time of their making. Sends nothing itself.

The last one used is the next one used, so that those of a peak fall idle and are closed. All waiting is bounded: for a
connection by the puts under way (each ends), for its making by `CONNECT_TIMEOUT_S`, for an answer by the beat.
"""

import asyncio
import ssl
from collections import deque

from services.uploader.errors import ClientSetupError, StoreError, TransientError
from services.uploader.store import clients
from services.uploader.store.connections.addresses import Address, Addresses, resolve
from services.uploader.store.connections.connection import Connection
from services.uploader.store.connections.outbox import Outbox

BEATS = 20
"""Sweeps within one read time-out: what ends at 10 s may end at 10.5."""

IDLE_BEATS = 24
"""Sweeps until an idle connection is closed: 12 s, below what S3 and the load balancers before its like keep."""

_SHARES = 3
"""Each of several addresses has this share of the time of connecting, so that a silent one leaves time for another; and
so has DNS, once it has answered."""


class Pool:
    """Of one host. Made and used on one loop; `close` ends it."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, connections_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._context = context
        self._connections_max = connections_max
        self._addresses = Addresses()
        self._outbox = Outbox(self._loop)
        self._resolving = asyncio.Lock()  # one question to DNS at a time
        self._all: set[Connection] = set()  # open ones
        self._idle: list[Connection] = []  # of those; the last used at the end
        self._places = 0  # connections that are open or being made
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()  # None: a place to make one
        self._closed = False
        self._beat_s = clients.READ_TIMEOUT_S / BEATS
        self._timer = self._loop.call_later(self._beat_s, self._sweep)

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        """The request on it is over, whatever became of it."""
        if not connection.usable:
            self._drop(connection)
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    async def connect(self, *, fresh: bool = False) -> Connection:
        """A connection, most often a new one: where there may be no more, the next that is free.

        Args:
            fresh: never one that has been used, which then makes room for a new one.

        Raises:
            TransientError: none could be made.
            ClientSetupError: the server's certificate is not trusted.

        """
        while self._places >= self._connections_max:
            connection = await self._wait()
            if connection is None:
                break
            if not connection.usable:  # closed on the way here, with its place
                continue
            if not fresh:
                return connection
            self._all.remove(connection)  # first: so its place stays, and is ours
            connection.abort()
            break
        else:
            self._places += 1
        try:
            return await self._make()
        except BaseException:
            self._free_place()
            raise

    async def close(self) -> None:
        """Close every connection, with or without its request."""
        self._closed = True
        self._timer.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(_closed())
        self._waiting.clear()
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()
        for _ in range(2):  # a transport closes in the next turn of the loop
            await asyncio.sleep(0)

    async def _wait(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:  # it came just as the put was cancelled
                connection = waiter.result()
                if connection is None:
                    self._free_place()
                else:
                    self.give_back(connection)
            raise

    async def _make(self) -> Connection:
        if self._closed:
            raise _closed()
        try:
            async with asyncio.timeout(clients.CONNECT_TIMEOUT_S):
                connection = await self._make_at_any()
        except TimeoutError as error:
            message = f"no connection to {self._host}:{self._port} within {clients.CONNECT_TIMEOUT_S:g} s"
            raise TransientError("timeout", message) from error
        if self._closed or not connection.usable:
            connection.abort()
            raise TransientError("connection", f"the connection to {self._host}:{self._port} was closed at once")
        self._all.add(connection)
        return connection

    async def _make_at_any(self) -> Connection:
        await self._resolve()
        failure: StoreError | None = None
        addresses = self._addresses.in_turn(self._loop.time())
        share_s = _share_s() if len(addresses) > 1 else clients.CONNECT_TIMEOUT_S
        for address in addresses:
            try:
                connection = await self._make_at(address, share_s)
            except StoreError as error:
                self._addresses.died(address, self._loop.time())
                failure = error
            else:
                self._addresses.lives(address)
                return connection
        raise failure or TransientError("connection", f"{self._host} has no address")

    async def _make_at(self, address: Address, share_s: float) -> Connection:
        where = f"{self._host}:{self._port} ({address.socket_address[0]})"
        try:
            async with asyncio.timeout(share_s):
                # No socket of ours: uvloop 0.23 closes it, and leaves the number in the object, when the other side
                # resets within the handshake. Once collected, it would close whatever has that number by then.
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self._outbox, self._drop),
                    *address.socket_address[:2],
                    family=address.family,
                    ssl=self._context,
                    server_hostname=self._host if self._context is not None else None,
                )
        except TimeoutError as error:
            raise TransientError("timeout", f"{where} took no connection within {share_s:g} s") from error
        except OSError as error:
            raise _of_connecting(error, where) from error
        return connection

    async def _resolve(self) -> None:
        async with self._resolving:
            if not self._addresses.stale(self._loop.time()):
                return
            try:
                # What is known already is used on when DNS is silent, and leaves time to connect to it.
                async with asyncio.timeout(_share_s() if self._addresses.known else None):
                    found = await resolve(self._host, self._port)
            except OSError as error:  # TimeoutError is one
                if not self._addresses.known:
                    raise TransientError("connection", f"{self._host} is not found: {error}") from error
                found = self._addresses.known
            self._addresses.learn(found, self._loop.time())

    def _drop(self, connection: Connection) -> None:
        """It is gone, or is to be."""
        if connection in self._all:
            self._all.remove(connection)
            connection.abort()
            self._free_place()

    def _free_place(self) -> None:
        """A place is free: whoever waits longest has it, else nobody."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places -= 1

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(self._beat_s, self._sweep)
        for connection in list(self._all):
            connection.sweep(BEATS)
        kept = []
        for connection in self._idle:
            if connection.usable and connection.beats <= IDLE_BEATS:
                kept.append(connection)
            else:
                self._drop(connection)
        self._idle[:] = kept


def _share_s() -> float:
    return clients.CONNECT_TIMEOUT_S / _SHARES


def _closed() -> TransientError:
    return TransientError("connection", "this S3 client is closed")


def _of_connecting(error: OSError, where: str) -> StoreError:
    """What connecting raised. A closed connection within a handshake is weather, all else of TLS is not."""
    message = f"{where}: {type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ClientSetupError("tls", f"{message} (AWS_CA_BUNDLE?)")
    return TransientError("timeout" if isinstance(error, TimeoutError) else "connection", message)
