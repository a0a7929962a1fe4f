"""Spillway's own processes beside the embedded servers: one ingest, two uploaders, and the command that makes topics.

They get environment variables and nothing else, the same ones as in production (DESIGN §5).
"""

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.local.ports import LOOPBACK
from deploy.local.process import ServerProcess, StartError

_CHECKOUT = Path(__file__).resolve().parents[2]
_OURS = ("KAFKA_", "S3_", "AWS_", "INGEST_", "UPLOADER_")
_PROBE_TIMEOUT_S = 2.0
_COMMAND_TIMEOUT_S = 40.0


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment for a child: what a shell may have set for another Kafka or S3 goes, `settings` come."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, **settings}


def no_proxy() -> dict[str, str]:
    """The variables that keep clients of the loopback address from asking a proxy; what they hold already stays."""
    names = dict.fromkeys(part for part in os.environ.get("NO_PROXY", "").split(",") if part)
    value = ",".join([*names, *(host for host in (LOOPBACK, "localhost") if host not in names)])
    return {"NO_PROXY": value, "no_proxy": value}


def make_topics(settings: Mapping[str, str], directory: Path) -> None:
    """Run `spillway-uploader topics`.

    Raises:
        StartError: it failed; its words are in the message.

    """
    process = ServerProcess(
        "spillway-uploader topics",
        [sys.executable, "-m", "services.uploader", "topics"],
        log_file=directory / "topics.log",
        env=clean_environment(settings),
        cwd=_CHECKOUT,
    )
    process.start()
    try:
        code = process.wait(_COMMAND_TIMEOUT_S)
    except TimeoutError as error:
        raise StartError(f"{error}\n{process.log_tail()}") from error
    finally:
        process.kill()
    if code != 0:
        raise StartError(f"spillway-uploader topics ended with exit code {code}:\n{process.log_tail()}")


class Tier:
    """One process of ours and its ops port.

    Args:
        name: what messages and the log file call it.
        arguments: after `python -m`.
        settings: its environment variables.
        ops_port: where its `/readyz` answers.
        directory: gets its log.

    """

    def __init__(
        self, name: str, arguments: list[str], *, settings: Mapping[str, str], ops_port: int, directory: Path
    ) -> None:
        self.ops_url = f"http://{LOOPBACK}:{ops_port}"
        self._ops_port = ops_port
        self._not_ready = "nothing answers"  # what /readyz said last
        self.process = ServerProcess(
            name,
            [sys.executable, "-m", *arguments],
            log_file=directory / f"{name}.log",
            env=clean_environment(settings),
            cwd=_CHECKOUT,
        )

    def wait_ready(self, deadline_s: float) -> None:
        """Wait for its `/readyz`.

        Raises:
            StartError: it died or was not ready in time; its reasons and its log's tail are in the message.

        """
        try:
            self.process.wait_ready(self._ready, deadline_s)
        except StartError as error:
            raise StartError(f"{self.ops_url}/readyz: {self._not_ready}.\n{error}") from error

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels, read from the ops port; 0 if there is none.

        Raises:
            OSError: nobody answers.

        """
        _status, body = self._get("/metrics")
        values = [line.rpartition(" ")[2] for line in body.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(value) for value in values)

    def state(self) -> str:
        """Why it may not do its work, for a person: readiness, its counts that are not 0, the end of its log."""
        try:
            ready = self._get("/readyz")[1]
            lines = [line for line in self._get("/metrics")[1].splitlines() if line.startswith("spillway_")]
        except OSError as error:
            ready, lines = f"{type(error).__name__}: {error}", []
        counts = [line for line in lines if not line.endswith(" 0.0") and "_bucket{" not in line]
        return "\n".join([f"-- {self.process.name}: {ready}", *counts, self.process.log_tail(10)])

    def _ready(self) -> bool:
        status, body = self._get("/readyz")
        if status == http.HTTPStatus.OK:
            return True
        try:
            reasons = json.loads(body)["reasons"]
            self._not_ready = "; ".join(f"{condition}: {reason}" for condition, reason in reasons.items())
        except (ValueError, KeyError, TypeError, AttributeError):
            self._not_ready = f"{status} {body[:200]}"
        return False

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(LOOPBACK, self._ops_port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(f"{self.ops_url}{path}: {type(error).__name__}") from error
        finally:
            connection.close()
