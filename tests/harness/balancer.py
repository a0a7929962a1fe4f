"""A TCP balancer as production has one: asks each backend's `/readyz`, and gives connections to those that are ready.

Owns a thread with an event loop. It looks at no byte that passes, repeats nothing and cuts nothing: what a backend does
to a connection, its client sees. Nor does it try another backend where one refuses a connection: kube-proxy does not.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from weakref import WeakSet

from deploy.local.ports import LOOPBACK
from tests.harness import connections

CHECK_EVERY_S = 0.2
"""How often each backend is asked. One bad answer takes it out, one good one brings it back, a slow one is no news:
balancers allow for several, and the machines of tests are busy.
"""

_CHECK_TIMEOUT_S = 1
_CONNECT_TIMEOUT_S = 2
_CHUNK_BYTES = 65_536
_STOP_DEADLINE_S = 10


@dataclass(frozen=True, slots=True)
class Backend:
    """Where one backend takes requests, and where it says whether it wants any. A restart changes neither."""

    port: int
    ops_port: int

    @classmethod
    def of(cls, url: str, ops_url: str) -> Self:
        """The backend that serves at these two addresses."""
        return cls(urlsplit(url).port or 0, urlsplit(ops_url).port or 0)


class Balancer:
    """Listens from `__enter__` to `__exit__`.

    Attributes:
        taken: connections given to each backend so far.
        ready: the backends that get new connections now.
        refused: connections that a backend refused which was ready when last asked; their clients lost them.
        unserved: connections for which no backend was ready; they were closed at once.

    """

    def __init__(self, backends: Sequence[Backend], port: int) -> None:
        self.taken: Counter[Backend] = Counter()
        self.ready: frozenset[Backend] = frozenset()
        self.refused = 0
        self.unserved = 0
        self._backends = tuple(backends)
        self._port = port
        self._turn = 0
        # Tasks of what passes. Nothing else holds them once both transports have read to the end.
        self._passing: set[asyncio.Task[None]] = set()
        self._connections: WeakSet[asyncio.StreamWriter] = WeakSet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="balancer", daemon=True)
        self._listening = threading.Event()
        self._end = asyncio.Event()

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(_STOP_DEADLINE_S), "the balancer does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STOP_DEADLINE_S)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends by cancelling what still passes
            runner.run(self._run())

    async def _run(self) -> None:
        server = await asyncio.start_server(self._accept, LOOPBACK, self._port, backlog=1024)
        checks = [asyncio.create_task(self._check(backend)) for backend in self._backends]
        self._listening.set()
        await self._end.wait()
        await connections.end((server,), self._connections)
        assert all(check.done() for check in checks)

    async def _check(self, backend: Backend) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                if await _says_ready(backend):
                    self.ready |= {backend}
                else:
                    self.ready -= {backend}
            await asyncio.sleep(CHECK_EVERY_S)

    def _accept(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        self._connections.add(client_out)
        task = asyncio.create_task(self._serve(client_in, client_out))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        try:
            backend = await self._connect()
            if backend is None:
                return
            backend_in, backend_out = backend
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(client_in, backend_out))
                    group.create_task(_pump(backend_in, client_out))
            except* OSError:  # one side reset it: so does the other
                client_out.transport.abort()
            finally:
                backend_out.transport.abort()
        except asyncio.CancelledError:  # the balancer ends
            client_out.transport.abort()
        finally:
            client_out.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next backend that is ready; None where there is none, or it refuses."""
        chosen = self._next()
        if chosen is None:
            self.unserved += 1
            return None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                connection = await asyncio.open_connection(LOOPBACK, chosen.port)
        except (OSError, TimeoutError):
            self.refused += 1
            return None
        self.taken[chosen] += 1
        return connection

    def _next(self) -> Backend | None:
        for _ in self._backends:
            self._turn += 1
            backend = self._backends[self._turn % len(self._backends)]
            if backend in self.ready:
                return backend
        return None


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until the source ends; then so does what is sent to the sink."""
    while chunk := await source.read(_CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def _says_ready(backend: Backend) -> bool:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            answer_in, question = await asyncio.open_connection(LOOPBACK, backend.ops_port)
            try:
                question.write(b"GET /readyz HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n")
                line = await answer_in.readline()
            finally:
                question.close()
    except TimeoutError:  # an OSError too
        raise
    except OSError:
        return False
    return line.startswith(b"HTTP/1.1 200 ")
