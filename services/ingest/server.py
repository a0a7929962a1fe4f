"""The HTTP server, and what SIGTERM means (DESIGN §6 *Drain*).

Owns the process's signals. uvicorn's own handler closes the listeners at once, while the load balancer still sends
here; ours first says "not ready", serves on for a delay, and only then lets uvicorn stop accepting and finish what is
in flight. A second signal ends it at once.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from shared.ops import Readiness

logger = logging.getLogger("spillway.ingest.server")

DRAINING = "draining"  # this module's readiness condition: fails from the first signal on
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_BEYOND_DEADLINE_S = 2.0
_KEEP_ALIVE_S = 75  # above the 60 s of most load balancers, or they reuse a connection that we are closing


class IngestServer(uvicorn.Server):
    """A uvicorn server that drains."""

    def __init__(self, app: ASGIApp, *, readiness: Readiness, drain_delay_s: float, deadline_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here reads the client's address
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(deadline_s + _GRACE_BEYOND_DEADLINE_S),
            )
        )
        self._readiness = readiness
        self._drain_delay_s = drain_delay_s
        self._stopping: asyncio.TimerHandle | None = None  # set by the first signal
        self.killed_by: int | None = None  # the second signal: leave at once

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals on the loop for as long as the server runs."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        if self._stopping is not None:
            logger.warning("second signal: leaving at once", extra={"signal": number})
            self.killed_by = number
            self.force_exit = self.should_exit = True
            return
        logger.info("draining", extra={"signal": number, "delay_s": self._drain_delay_s})
        self._readiness.fail(DRAINING, "shutting down")
        self._stopping = asyncio.get_running_loop().call_later(self._drain_delay_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True
