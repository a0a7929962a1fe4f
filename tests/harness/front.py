"""The HTTP side of ingest on a real socket with nothing behind it: what a collection is told is the test's to say.

Everything from the socket to the submission is the product's own; only Kafka's part is the test's. For what is told
when Kafka is there or away, start the process (`tiers.start_ingest`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from services.ingest.access import Access
from services.ingest.admission import Admission
from services.ingest.app import IngestApp
from services.ingest.batching import Submission
from services.ingest.body import Bodies
from services.ingest.connections import Connections
from services.ingest.endpoint import CollectionsEndpoint
from services.ingest.intake import Intake
from services.ingest.problems import Problem
from services.ingest.quick import QuickRoute
from services.ingest.quota import Quotas
from services.ingest.refusals import Refusals
from services.ingest.server import IngestServer
from services.ingest.settings import IngestSettings
from services.ingest.tokens import Tokens
from shared.ops import Readiness, listen
from shared.telemetry import IngestMetrics
from tests.harness.raw_http import RawClient


@dataclass
class Front:
    """A serving front. `submitted` holds every collection that came through, in its order."""

    port: int
    admission: Admission
    server: IngestServer
    registry: CollectorRegistry
    connections: Connections
    submitted: list[Submission] = field(default_factory=list)
    clients: list[RawClient] = field(default_factory=list)  # closed at the end

    async def connect(self) -> RawClient:
        """A new connection."""
        client = await RawClient.connect(self.port)
        self.clients.append(client)
        return client

    def metric(self, name: str, **labels: str) -> float:
        """One series, 0 where it is absent."""
        return self.registry.get_sample_value(name, labels) or 0.0


def accept(submission: Submission) -> Problem | None:
    """Acknowledged at once."""
    submission.settle(None)
    return None


@contextlib.asynccontextmanager
async def front(
    settings: Mapping[str, object] | None = None,
    *,
    submit: Callable[[Submission], Problem | None] = accept,
    refusal: Callable[[], Problem | None] = lambda: None,
    tokens: Callable[[], Tokens] | None = None,
) -> AsyncIterator[Front]:
    """Serve on a free port until the context ends; then drain, as after SIGTERM, with a deadline."""
    values = {"ingest_host": "127.0.0.1", "ingest_drain_delay_s": 0, **(settings or {})}
    chosen = IngestSettings.model_validate(values)
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry)
    admission = Admission(chosen.max_in_flight_bytes)
    refusals = Refusals(metrics)
    connections = Connections(chosen, admission=admission, refusals=refusals, metrics=metrics)
    bodies = Bodies(chosen, admission)
    seen: list[Submission] = []

    def record(submission: Submission) -> Problem | None:
        seen.append(submission)
        return submit(submission)

    intake = Intake(
        chosen,
        access=Access(tokens, Quotas(chosen.token_burst_s)),
        bodies=bodies,
        submit=record,
        refusal=refusal,
        refusals=refusals,
        metrics=metrics,
    )
    app = IngestApp(CollectionsEndpoint(chosen, intake, bodies))
    quick = QuickRoute(intake, bodies)
    server = IngestServer(app, quick, chosen, readiness=Readiness(), connections=connections, bodies=bodies)
    sock = listen("127.0.0.1", 0, "INGEST_PORT")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        sweeping = group.create_task(connections.run())
        serving = group.create_task(server.serve(sockets=[sock]))
        served = Front(sock.getsockname()[1], admission, server, registry, connections, seen)
        try:
            yield served
        finally:
            for client in served.clients:
                client.writer.close()
            server.should_exit = True
            await asyncio.wait({serving})
            sweeping.cancel()
