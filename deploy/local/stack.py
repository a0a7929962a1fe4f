"""The whole system as `make run` has it: Kafka, S3, one ingest, two uploaders; started and stopped in the right order.

Every run begins empty. moto forgets its objects when it stops, so a topic kept from an earlier run, its offsets
committed, would claim that payloads are stored which are nowhere. Fresh Kafka data beside the fresh S3 is the honest
pair.
"""

import contextlib
import json
import shlex
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.jars import kafka_jars
from deploy.local.kafka import EmbeddedKafka
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.process import ServerProcess, StartError, end_leftover
from deploy.local.s3 import EmbeddedS3, StoredObject
from deploy.local.show import Screen
from deploy.local.tiers import Tier, make_topics, no_proxy

BUCKET = "spillway"
TOPIC = "payloads"
LOCK = "lock"
_INTERNAL = ".spillway/"  # the uploaders' start check writes there
_ELSEWHERE = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "KAFKA_SECURITY_PROTOCOL")
"""Variables that a shell may hold for another system, and that would turn ours away."""
_TIER_READY_S = 30.0
_STORED_S = 30.0
_CATCH_UP_S = 10.0
_POST_TIMEOUT_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on the loopback address."""

    kafka: int
    s3: int
    ingest: int
    ingest_ops: int
    uploaders_ops: tuple[int, int]


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended by itself with exit code {exit_code}"


class Crashed(Exception):  # noqa: N818 - the event is what it names
    """A process of the system ended by itself; the message says which and ends with its log's tail."""


def choose_ports(screen: Screen) -> Ports:
    """The usual ports, or others where somebody has them already, and a line for each that moved."""

    def choose(what: str, preferred: int) -> int:
        port = free_port(preferred)
        if port != preferred:
            screen.say(f"    port {preferred} is taken: {what} moves to {port}")
        return port

    return Ports(
        kafka=choose("Kafka", 9092),
        s3=choose("S3", 9000),
        ingest=choose("ingest", 8080),
        ingest_ops=choose("ingest's ops port", 8082),
        uploaders_ops=(choose("an uploader's ops port", 8081), choose("an uploader's ops port", 8083)),
    )


def clear(directory: Path) -> int:
    """End what an earlier run left behind, then forget its data. Returns how many processes were ended."""
    ended = sum(end_leftover(pid_file) for pid_file in sorted(directory.rglob("*.pid")))
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
    return ended


class Stack:
    """Everything that `make run` starts.

    Args:
        directory: gets data, logs and the environment file; must be empty but for the lock.
        ports: where to listen.
        screen: told of every step.

    """

    def __init__(self, directory: Path, ports: Ports, screen: Screen) -> None:
        self.directory = directory
        self.ports = ports
        self._screen = screen
        self.kafka = EmbeddedKafka(directory / "kafka", port=ports.kafka)
        self.s3 = EmbeddedS3(directory / "s3", port=ports.s3)
        self.settings = self._settings()
        logs = directory / "logs"
        self.ingest = Tier(
            "ingest", ["services.ingest"], settings=self.settings, ops_port=ports.ingest_ops, directory=logs
        )
        self.uploaders = [
            Tier(
                f"uploader-{number}",
                ["services.uploader", "run"],
                settings={**self.settings, "UPLOADER_OPS_PORT": str(port)},
                ops_port=port,
                directory=logs,
            )
            for number, port in enumerate(ports.uploaders_ops, start=1)
        ]

    @property
    def collections_url(self) -> str:
        """Where collections are posted."""
        return f"http://{LOOPBACK}:{self.ports.ingest}/v1/collections"

    def _settings(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_TOPIC": TOPIC,
            "KAFKA_DEAD_TOPIC": f"{TOPIC}.dead",
            "KAFKA_GROUP_ID": "spillway-uploader",
            "KAFKA_MIN_INSYNC": "1",  # one broker
            "S3_BUCKET": BUCKET,
            **self.s3.environment(),
            "INGEST_HOST": LOOPBACK,
            "INGEST_PORT": str(self.ports.ingest),
            "INGEST_OPS_HOST": LOOPBACK,
            "INGEST_OPS_PORT": str(self.ports.ingest_ops),
            "UPLOADER_OPS_HOST": LOOPBACK,
            "UPLOADER_OPS_PORT": str(self.ports.uploaders_ops[0]),
            **no_proxy(),
        }

    def start(self) -> None:
        """Start everything, in order, until all of it is ready.

        Raises:
            StartError: something died or was not ready in time.
            FetchError: Kafka cannot be had.

        """
        step = self._screen.step
        with step("Apache Kafka's files"):  # minutes on a slow line, nothing the next time
            kafka_jars(lambda line: self._screen.say(f"    {line}"))
        with step(f"S3 (moto) at {self.s3.endpoint_url}, bucket {BUCKET}"):
            self.s3.start()
            self.s3.create_bucket(BUCKET)
        with step(f"Kafka at {self.kafka.bootstrap_servers}"):
            self.kafka.start()
        with step(f"topics {TOPIC} and {TOPIC}.dead (spillway-uploader topics)"):
            make_topics(self.settings, self.directory / "logs")
        with step("one ingest and two uploaders"):
            tiers = [self.ingest, *self.uploaders]
            for tier in tiers:
                tier.process.start()
            for tier in tiers:
                tier.wait_ready(_TIER_READY_S)
        self._write_environment()

    def post(self, body: Mapping[str, Any]) -> list[str]:
        """Post one collection and return the ids of its payloads.

        Raises:
            StartError: the answer is not 200.

        """
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.collections_url,
            data=json.dumps(body).encode("utf-8"),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_POST_TIMEOUT_S) as answer:
                ids: list[str] = json.load(answer)["ids"]
                return ids
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read().decode("utf-8", "replace")
            raise StartError(f"POST {self.collections_url} answered {error.code}: {detail}") from None
        except OSError as error:
            raise StartError(f"POST {self.collections_url}: {error}\n{self.ingest.process.log_tail()}") from error

    def wait_stored(self, ids: list[str]) -> list[StoredObject]:
        """Wait until the bucket has an object for each id, and return those objects in the order of the ids.

        Raises:
            StartError: it has not in time.
            Crashed: a process died meanwhile.

        """
        give_up = time.monotonic() + _STORED_S
        while True:
            self.check()
            found = {one.key.rpartition("/")[2]: one for one in self.s3.objects(BUCKET)}
            missing = [payload_id for payload_id in ids if payload_id not in found]
            if not missing:
                return [found[payload_id] for payload_id in ids]
            if time.monotonic() > give_up:
                shown = "\n".join(tier.state() for tier in (self.ingest, *self.uploaders))
                raise StartError(f"{len(missing)} of {len(ids)} payloads not in S3 after {_STORED_S:g} s.\n{shown}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """See that every process lives.

        Raises:
            Crashed: one does not.

        """
        for process in self._processes():
            if not process.running:
                raise Crashed(
                    f"{process.name} {_how_it_ended(process.exit_code)}; stopping everything. "
                    f"The end of its log, {process.log_file}:\n{process.log_tail()}"
                )

    def _processes(self) -> list[ServerProcess]:
        tiers = [tier.process for tier in (self.ingest, *self.uploaders)]
        return [self.s3.process, self.kafka.process, *tiers]

    def drain(self) -> tuple[int, int, int]:
        """Stop ingest, let the uploaders catch up for a while, stop them.

        Returns:
            Objects stored, their bytes, and records that are in Kafka only.

        """
        self.ingest.process.stop(30)
        waiting = 0
        with contextlib.suppress(OSError):
            give_up = time.monotonic() + _CATCH_UP_S
            while waiting := self._lag_records():
                if time.monotonic() > give_up:
                    break
                time.sleep(_POLL_S)
        for uploader in self.uploaders:
            uploader.process.stop(20)
        objects = [one for one in self.s3.objects(BUCKET) if not one.key.startswith(_INTERNAL)]
        return len(objects), sum(one.size_bytes for one in objects), waiting

    def _lag_records(self) -> int:
        return int(sum(tier.metric("spillway_uploader_lag_records") for tier in self.uploaders))

    def stop(self) -> None:
        """Stop whatever runs, upstream first. Never raises for what is not there."""
        for tier in (self.ingest, *self.uploaders):
            tier.process.stop()
        self.kafka.stop()
        self.s3.stop()

    def _write_environment(self) -> None:
        lines = [
            "# The settings of the system that `make run` started last; in the checkout: . .run/env",
            "# Another process of your own needs ports of its own: UPLOADER_OPS_PORT=0 spillway-uploader run, say.",
            f"unset {' '.join(_ELSEWHERE)}",
            *(f"export {name}={shlex.quote(value)}" for name, value in self.settings.items()),
            f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
        ]
        part = self.directory / "env.part"
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(self.directory / "env")
