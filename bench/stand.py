"""What every scenario stands on: a real broker, the sink, the load generator. Owns them; knows no subject.

One broker and one sink live through the whole benchmark. A run has its own topic, and the sink forgets what it counted
before each run.
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.building import Tools
from bench.processes import BenchError, Children, environment, get, until
from deploy.local.kafka import EmbeddedKafka
from deploy.local.process import ServerProcess
from tests.harness.broker import Topic

PARTITIONS = 12
BUCKET = "bench"
_LOAD_DEADLINE_S = 120
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run sends. `rate`: requests a second, 0 is a closed loop."""

    requests: int
    payloads: int
    size_bytes: int
    rate: float = 0.0
    connections: int = 64
    deadline_s: float = _LOAD_DEADLINE_S

    @property
    def count(self) -> int:
        """Payloads in all."""
        return self.requests * self.payloads


class Stand:
    """The parts, running."""

    def __init__(self, children: Children, tools: Tools, kafka: EmbeddedKafka, sink: ServerProcess) -> None:
        self.children = children
        self.kafka = kafka
        self.sink = sink
        self._tools = tools
        self._topics = 0
        line = sink.log_file.read_text(encoding="utf-8").splitlines()[0]
        self._ports: dict[str, Any] = json.loads(line)
        self.sink_url = f"http://127.0.0.1:{self._ports['port']}"

    def topic(self, name: str) -> Topic:
        """A new topic of 12 partitions."""
        self._topics += 1
        made = Topic(self.kafka.bootstrap_servers, f"{name}-{self._topics}", PARTITIONS)
        made.create()
        return made

    def s3_endpoint(self, *, tls: bool = False) -> str:
        """Where the sink takes PUTs."""
        return f"https://127.0.0.1:{self._ports['tls_port']}" if tls else self.sink_url

    def s3_environment(self, *, tls: bool = False) -> dict[str, str]:
        """The variables that point an uploader of ours at the sink."""
        authority = {"AWS_CA_BUNDLE": str(self._ports["ca_file"])} if tls else {}
        return {**CREDENTIALS, **authority, "S3_ENDPOINT_URL": self.s3_endpoint(tls=tls), "S3_BUCKET": BUCKET}

    def stats(self) -> dict[str, Any]:
        """What the sink has counted.

        Raises:
            BenchError: it does not answer.

        """
        body = get(f"{self.sink_url}/stats")
        if body is None:
            raise BenchError("the sink does not answer")
        found: dict[str, Any] = json.loads(body)
        return found

    def reset(self, *, latency_ms: int = 0) -> None:
        """Make the sink forget."""
        get(f"{self.sink_url}/reset?latency_ms={latency_ms}", method="POST")

    def infrastructure(self) -> dict[str, int]:
        """Process ids of what is measured beside the subject, by role."""
        return {"broker": self.kafka.process.pid, "sink": self.sink.pid}

    @contextlib.contextmanager
    def posting(self, url: str, load: Load, *, counted: bool) -> Iterator["subprocess.Popen[str]"]:
        """The load generator at work; ended with the context. `report_of` has its answer."""
        argv = [
            *(str(self._tools.load), "-url", url, "-requests", str(load.requests), "-payloads", str(load.payloads)),
            *("-bytes", str(load.size_bytes), "-connections", str(load.connections), "-rate", str(load.rate)),
            *("-deadline", f"{load.deadline_s}s", f"-counted={str(counted).lower()}"),
        ]
        with subprocess.Popen(
            argv, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def post(self, url: str, load: Load, *, counted: bool) -> dict[str, Any]:
        """Post it all, and the generator's report."""
        with self.posting(url, load, counted=counted) as process:
            return report_of(process, load)


def report_of(process: "subprocess.Popen[str]", load: Load) -> dict[str, Any]:
    """The generator's report, once it has ended.

    Raises:
        BenchError: it failed.

    """
    out, err = process.communicate(timeout=load.deadline_s + 30)
    if process.returncode != 0:
        raise BenchError(f"the load generator failed: {err.strip()}")
    report: dict[str, Any] = json.loads(out)
    return report


@contextlib.contextmanager
def stand(tools: Tools, properties: Mapping[str, str] | None = None) -> Iterator[Stand]:
    """Broker and sink; everything that was started ends with it."""
    with tempfile.TemporaryDirectory(prefix="spillway-bench-") as name:
        directory = Path(name)
        children = Children(directory)
        kafka = EmbeddedKafka(directory / "kafka", properties=properties)
        try:
            kafka.start()
            argv = [str(tools.sink), "-directory", name]
            sink = children.start("sink", argv, {})
            until(lambda: "\n" in sink.log_file.read_text(encoding="utf-8"), "the sink", 10, watched=(sink,))
            yield Stand(children, tools, kafka, sink)
        finally:
            children.stop_all()
            kafka.stop()
