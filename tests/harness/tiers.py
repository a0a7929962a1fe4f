"""The two tiers as black boxes: a process, its variables, its ports. Nothing of theirs is imported."""

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.harness.broker import Topic
from tests.harness.processes import Process, Processes, free_port
from tests.harness.waiting import until

S3_CLIENT_SWITCH = "SPILLWAY_TEST_S3_CLIENT"
"""The variable that names the S3 client of every uploader and job that a test does not give one."""

START_DEADLINE_S = 40
"""A Python process that imports its clients, joins a group and probes a bucket, on two busy cores."""


def s3_client_of_the_run() -> str:
    """What S3_CLIENT is where a test says nothing of it."""
    return os.environ.get(S3_CLIENT_SWITCH, "aiobotocore")


def get(url: str, *, timeout_s: float = 5) -> tuple[int, str]:
    """Status and body of a GET; status 0 when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Tier:
    """A running tier: its process and the address of its ops port."""

    process: Process
    ops_url: str

    def wait_ready(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until `/readyz` says 200.

        Raises:
            AssertionError: it ended, or it is not ready in time; shows its last reasons and the end of its log.

        """
        seen = (0, "")

        def ready() -> bool:
            nonlocal seen
            seen = get(f"{self.ops_url}/readyz")
            if self.process.returncode is not None:
                raise AssertionError(
                    f"{self.process.name} ended, code {self.process.returncode}:\n{self.process.tail()}"
                )
            return seen[0] == 200

        try:
            until(ready, f"{self.process.name} to be ready", deadline_s=deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n/readyz: {seen}\n{self.process.tail()}") from None

    def reasons(self) -> dict[str, str]:
        """Why it is not ready, by condition; empty, too, while nobody answers."""
        status, body = get(f"{self.ops_url}/readyz")
        reasons: dict[str, str] = json.loads(body).get("reasons", {}) if status else {}
        return reasons

    def metric(self, name: str) -> float:
        """Sum over all labels of one metric, 0 where it is absent. `name{label="value"}` asks for one series."""
        return sum(self.series(name).values())

    def series(self, name: str) -> dict[str, float]:
        """Every series of one metric, by its name with its labels; none while nobody answers."""
        status, body = get(f"{self.ops_url}/metrics")
        lines = [line.rsplit(" ", 1) for line in body.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return {series: float(value) for series, value in lines} if status else {}


@dataclass(frozen=True, slots=True)
class IngestTier(Tier):
    """A running ingest."""

    url: str  # of the server, without a path

    @property
    def collections_url(self) -> str:
        """Where collections are posted."""
        return f"{self.url}/v1/collections"


def start_ingest(processes: Processes, topic: Topic, settings: Mapping[str, str] | None = None) -> IngestTier:
    """Start one ingest that writes to the topic. Does not wait; see `wait_ready`."""
    port, ops_port = free_port(), free_port()
    environment = {
        **topic.environment(),
        "INGEST_HOST": "127.0.0.1",
        "INGEST_PORT": str(port),
        "INGEST_OPS_HOST": "127.0.0.1",
        "INGEST_OPS_PORT": str(ops_port),
        "INGEST_DRAIN_DELAY_S": "0",  # no balancer has to notice, and every test ends with a SIGTERM
        **(settings or {}),
    }
    process = processes.python("ingest", "services.ingest", environment=environment)
    return IngestTier(process, f"http://127.0.0.1:{ops_port}", f"http://127.0.0.1:{port}")


def start_uploader(
    processes: Processes,
    topic: Topic,
    s3_environment: Mapping[str, str],
    bucket: str,
    settings: Mapping[str, str] | None = None,
) -> Tier:
    """Start one uploader from the topic to the bucket. Does not wait; see `wait_ready`."""
    ops_port = free_port()
    environment = {
        **topic.environment(),
        **s3_environment,
        "S3_BUCKET": bucket,
        "S3_CLIENT": s3_client_of_the_run(),
        "UPLOADER_OPS_HOST": "127.0.0.1",
        "UPLOADER_OPS_PORT": str(ops_port),
        **(settings or {}),
    }
    process = processes.python("uploader", "services.uploader", "run", environment=environment)
    return Tier(process, f"http://127.0.0.1:{ops_port}")
