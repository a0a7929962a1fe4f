"""Every process that the benchmark starts: with its log, a deadline, and an end by its own id, also on Ctrl-C.

Owns starting and stopping. What a process is for is `stand`'s and `subjects`' business.
"""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.local.ports import free_port
from deploy.local.process import ServerProcess, StartError

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("KAFKA_", "S3_", "AWS_", "INGEST_", "UPLOADER_", "MAX_", "LOG_", "SPILLWAY_", "DRAIN_", "COMMIT_", "BUFFER_")
_POLL_S = 0.05


class BenchError(Exception):
    """A run that gives no figure, and why."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The tester's variables without any setting of ours, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **settings}


def get(url: str, *, timeout_s: float = 5, method: str = "GET") -> bytes | None:
    """The body of a 200; None for any other answer and for none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout_s) as answer:  # noqa: S310 - our own, loopback
            body: bytes = answer.read()
            return body if answer.status == 200 else None  # noqa: PLR2004 - HTTP's
    except (OSError, urllib.error.URLError):
        return None


class Children:
    """All processes of one benchmark."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._all: list[ServerProcess] = []

    def start(self, name: str, argv: Sequence[str], settings: Mapping[str, str]) -> ServerProcess:
        """Start one; its log is in our directory."""
        log = self.directory / f"{len(self._all):03d}-{name}.log"
        process = ServerProcess(name, argv, log_file=log, env=environment(settings), cwd=ROOT)
        self._all.append(process)
        process.start()
        return process

    def stop(self, processes: Sequence[ServerProcess]) -> None:
        """End these: SIGTERM to all, then SIGKILL to the deaf."""
        for process in processes:
            process.stop(10)

    def stop_all(self) -> None:
        """End all that still run, the youngest first."""
        self.stop([process for process in reversed(self._all) if process.running])


def wait_ready(process: ServerProcess, url: str, deadline_s: float = 60) -> None:
    """Wait until the URL answers 200.

    Raises:
        BenchError: it ended, or never did.

    """
    until(lambda: get(url, timeout_s=1) is not None, f"{process.name} at {url}", deadline_s, watched=(process,))


def until(
    condition: Callable[[], bool], what: str, deadline_s: float, *, watched: Sequence[ServerProcess] = ()
) -> None:
    """Wait for a condition.

    Raises:
        BenchError: the deadline passed, or a watched process ended; the end of its log is in the message.

    """
    end_s = time.monotonic() + deadline_s
    while not condition():
        for process in watched:
            if not process.running:
                raise BenchError(f"{process.name} ended, code {process.exit_code}:\n{process.log_tail()[-2000:]}")
        if time.monotonic() > end_s:
            tails = "\n".join(process.log_tail()[-2000:] for process in watched)
            raise BenchError(f"waited {deadline_s:.0f} s for {what}\n{tails}")
        time.sleep(_POLL_S)


__all__ = ["ROOT", "BenchError", "Children", "StartError", "environment", "free_port", "get", "until", "wait_ready"]
