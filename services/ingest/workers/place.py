"""The place that a serving process has: alone with its own ops port, or one of several, seen by its supervisor.

Owns the worker's end of the channel. Knows nothing of what is served: it is given readiness, metrics, and the way to
drain.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from prometheus_client import CollectorRegistry

from services.ingest.workers.report import DRAIN, REPORT, framed, report
from shared.ops import Readiness, serve_ops

logger = logging.getLogger("spillway.ingest.workers")

_READY_EVERY_S = 0.02
_LISTEN_LOOKS = 250  # 5 s: one that takes another's place and is not ready by then listens, and answers 503
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EXIT_ORPHAN = 1


class Place(Protocol):
    """What a serving process needs to know of where it stands."""

    def seen(
        self, readiness: Readiness, registry: CollectorRegistry, drain: Callable[[], None]
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Be asked how the process is, and told to drain, for as long as the context lasts."""
        ...

    async def may_listen(self, readiness: Readiness) -> bool:
        """Whether to take connections, once it is time to say so; if not, the process is to leave."""
        ...


class Alone:
    """A process that is all there is: it listens at once, and answers on the ops port."""

    def __init__(self, ops: socket.socket) -> None:
        self._ops = ops

    def seen(
        self, readiness: Readiness, registry: CollectorRegistry, drain: Callable[[], None]
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Serve the ops routes; nobody tells it to drain but signals."""
        del drain
        return serve_ops(self._ops, readiness, registry)

    async def may_listen(self, readiness: Readiness) -> bool:
        """At once."""
        del readiness
        return True


class AsWorker:
    """One process of several.

    Args:
        channel: leads to the supervisor. Its end is this process's end.
        joins: others serve already, so it listens only once it is ready.

    """

    def __init__(self, channel: socket.socket, *, joins: bool) -> None:
        channel.set_inheritable(False)
        self._channel = channel
        self._joins = joins
        self._listening = False
        self._draining = False

    @contextlib.asynccontextmanager
    async def seen(
        self, readiness: Readiness, registry: CollectorRegistry, drain: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Answer the supervisor, and obey it."""
        reader, writer = await asyncio.open_connection(sock=self._channel)

        def tell() -> None:
            writer.write(framed(report(readiness, registry, listening=self._listening)))

        orders = asyncio.create_task(self._obey(reader, tell, drain))
        try:
            yield
        finally:
            orders.cancel()
            writer.close()

    async def _obey(self, reader: asyncio.StreamReader, tell: Callable[[], None], drain: Callable[[], None]) -> None:
        try:
            while order := await reader.read(1):
                if order == REPORT:
                    tell()
                elif order == DRAIN:
                    self._draining = True
                    drain()
        except OSError:
            pass
        logger.error("the supervisor has gone: leaving at once")
        os._exit(_EXIT_ORPHAN)

    async def may_listen(self, readiness: Readiness) -> bool:
        """Once it is ready, where others serve meanwhile; but not for ever. Not where the whole has begun to drain: a
        port that clients have seen close would open again.
        """
        for _ in range(_LISTEN_LOOKS if self._joins else 0):
            if readiness.ready or self._draining:
                break
            await asyncio.sleep(_READY_EVERY_S)
        self._listening = not self._draining
        return self._listening


def bind_to(parent_pid: int) -> None:
    """Tie this process to the life of the supervisor, and leave all signals to it.

    The kernel's word reaches a process that is wedged, too; the end of the channel is for systems without it. Deaf by a
    mask, which a later handler does not lift.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(_EXIT_ORPHAN)
