"""One ingest of several, behind a balancer: its process changes with every restart, its ports never do.

Owns what every restart promises, and asks it of each: not ready from the first signal on, alive to the end, serving new
connections for the delay, gone in time with code 0.
"""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from tests.harness.balancer import Backend
from tests.harness.http_client import request
from tests.harness.processes import free_port
from tests.harness.tiers import IngestTier, get
from tests.harness.waiting import until

Start = Callable[[Mapping[str, str]], IngestTier]

DRAIN_DELAY_S = 3
"""Its INGEST_DRAIN_DELAY_S: fifteen looks of the balancer, and time for ours on a busy machine."""

HTTP_DEADLINE_S = 10
"""As it is by default."""

EXIT_SLACK_S = 5
"""Beyond both, for answers to be taken and the producer to be closed: docs/operations/rolling-restart.md."""


@dataclass(slots=True)
class Replica:
    """`tier` is the process that runs now, or ran last."""

    start: Start
    port: int
    ops_port: int
    tier: IngestTier

    @classmethod
    def begin(cls, start: Start) -> Self:
        """Start it for the first time; does not wait."""
        port, ops_port = free_port(), free_port()
        return cls(start, port, ops_port, _start(start, port, ops_port))

    @property
    def backend(self) -> Backend:
        """As a balancer knows it."""
        return Backend(self.port, self.ops_port)

    def stop(self) -> None:
        """SIGTERM, and all that it promises.

        Raises:
            AssertionError: a promise was broken.

        """
        tier, livez, readyz = self.tier, f"{self.tier.ops_url}/livez", f"{self.tier.ops_url}/readyz"
        tier.process.send(signal.SIGTERM)
        until(lambda: "draining" in tier.reasons(), "readiness to go", deadline_s=DRAIN_DELAY_S)
        assert get(livez)[0] == 200
        late = request(tier.collections_url, b"no balancer has noticed yet")
        assert (late.status, late.headers.get("connection")) == (400, "close")

        def gone() -> bool:
            told = get(readyz)[0], get(livez)[0]
            assert told in {(503, 200), (503, 0), (0, 0)}, f"/readyz and /livez of one that drains: {told}"
            return tier.process.returncode is not None

        until(gone, "it to leave", deadline_s=DRAIN_DELAY_S + HTTP_DEADLINE_S + EXIT_SLACK_S)
        assert tier.process.returncode == 0, tier.process.tail()

    def again(self) -> None:
        """Start it anew, and wait until it is ready."""
        self.tier = _start(self.start, self.port, self.ops_port)
        self.tier.wait_ready()


def _start(start: Start, port: int, ops_port: int) -> IngestTier:
    ours = {"INGEST_PORT": str(port), "INGEST_OPS_PORT": str(ops_port), "INGEST_DRAIN_DELAY_S": str(DRAIN_DELAY_S)}
    return replace(start(ours), url=f"http://127.0.0.1:{port}", ops_url=f"http://127.0.0.1:{ops_port}")
