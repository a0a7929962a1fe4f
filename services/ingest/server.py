"""The HTTP server, and what SIGTERM means (DESIGN §6 *Drain*).

Owns the process's signals. uvicorn's own handler closes the listeners at once, while the load balancer still sends
here; ours first says "not ready" and serves on for a delay, each answer the last of its connection so that clients move
over; only then it lets uvicorn stop accepting and finish what is in flight. A second signal ends it at once.
"""

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from services.ingest.body import Bodies
from services.ingest.connections import FLUSH_S, Connections
from services.ingest.problems import Code, Problem
from services.ingest.protocol import IngestProtocol
from services.ingest.quick import QuickRoute
from services.ingest.settings import IngestSettings
from shared.ops import Readiness
from shared.signals import on_first_signal

logger = logging.getLogger("spillway.ingest.server")

DRAINING = "draining"  # this module's readiness condition: fails from the first signal on
_BODY_GRACE_S = 1.0  # what a body that is on its way gets once the listener is closed


class IngestServer(uvicorn.Server):
    """A uvicorn server that drains."""

    def __init__(
        self,
        app: ASGIApp,
        quick: QuickRoute,
        settings: IngestSettings,
        *,
        readiness: Readiness,
        connections: Connections,
        bodies: Bodies,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(IngestProtocol, connections, quick),  # type: ignore[arg-type] # uvicorn calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here reads the client's address
                timeout_graceful_shutdown=math.ceil(settings.http_deadline_s + FLUSH_S) + 1,  # `_give_up` comes first
            )
        )
        self._readiness = readiness
        self._connections = connections
        self._bodies = bodies
        self._drain_delay_s = settings.ingest_drain_delay_s
        self._drain_bound_s = settings.http_deadline_s + FLUSH_S  # from the end of the delay on
        self._stopping: asyncio.TimerHandle | None = None  # set by the first signal

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals on the loop for as long as the server runs."""
        with on_first_signal(self.drain):
            yield

    def drain(self) -> None:
        """What the first signal does, also for who owns the signals instead of this process; again: nothing."""
        if self._stopping is not None:
            return
        logger.info("draining", extra={"delay_s": self._drain_delay_s})
        self._readiness.fail(DRAINING, "shutting down")
        self._connections.last_requests = True
        self._stopping = asyncio.get_running_loop().call_later(self._drain_delay_s, self._stop)

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        late = Problem(Code.DRAINING, "this server is shutting down; the body had not come completely")
        loop.call_later(_BODY_GRACE_S, self._bodies.close, late)
        self.should_exit = True
        loop.call_later(self._drain_bound_s, self._give_up)

    def _give_up(self) -> None:
        """Cut what is still not answered: of a request that it has to cancel, uvicorn would say a 500 in plain text."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
