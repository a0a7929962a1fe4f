"""The processes of a test: started with nothing but an environment, ended by their own ids, their logs kept.

Owns every child that a test starts. Knows nothing of what the children do; `tiers` does.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.local.ports import is_free
from tests.harness.waiting import until

ROOT = Path(__file__).resolve().parents[2]
_OURS = (
    "KAFKA_",
    "S3_",
    "AWS_",
    "INGEST_",
    "UPLOADER_",
    "MAX_",
    "LOG_",
    "DRAIN_",
    "COMMIT_",
    "BUFFER_",
    "HTTP_DEADLINE_S",
    "BODY_DEADLINE_S",
    "SPILLWAY_",
)
_TAIL_BYTES = 6_000
_FIRST_PORT, _PORTS_A_WORKER = 11_000, 1_000
_given_ports: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that nobody else is about to take.

    Below the range of outgoing connections (32768 and up), any of which could take it before its process does; below
    the embedded servers' own range too; and each worker of pytest-xdist has a thousand of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker % 8 * _PORTS_A_WORKER
    for port in random.sample(range(first, first + _PORTS_A_WORKER), _PORTS_A_WORKER):
        if port not in _given_ports and is_free(port):
            _given_ports.add(port)
            return port
    raise AssertionError(f"no free port from {first} to {first + _PORTS_A_WORKER - 1}")


def inherited() -> dict[str, str]:
    """The tester's own variables, without any setting of ours."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}


class Process:
    """One child with its log. `name` is for messages."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as sink:
            self._popen = subprocess.Popen(
                argv,
                env={**inherited(), "PYTHONUNBUFFERED": "1", **environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal of the tests is the tests' to handle: they end their children one by one.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._popen.poll()

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            self._popen.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has taken it away."""
        self.send(signal.SIGKILL)
        self._popen.wait(10)

    def terminate(self, *, deadline_s: float = 30) -> int:
        """SIGTERM; its exit code.

        Raises:
            AssertionError: it is still there after the deadline.

        """
        self.send(signal.SIGTERM)
        return self.wait(deadline_s=deadline_s)

    def wait(self, *, deadline_s: float) -> int:
        """Its exit code, once it has ended by itself.

        Raises:
            AssertionError: it is still there after the deadline.

        """
        try:
            return self._popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} (pid {self.pid}) has not ended within {deadline_s} s") from None

    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """The end of its log."""
        data = self.log.read_bytes()
        cut = "" if len(data) <= _TAIL_BYTES else f"[… {len(data) - _TAIL_BYTES} bytes before]\n"
        return cut + data[-_TAIL_BYTES:].decode(errors="replace")


class Processes:
    """All children of one test. `end_all` ends each by its id, however the test ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Process] = []
        self._at_end: list[Callable[[], None]] = []

    def at_end(self, stop: Callable[[], None]) -> None:
        """Call `stop` before the children are ended: what watches them ends first."""
        self._at_end.append(stop)

    def python(self, name: str, module: str, *arguments: str, environment: Mapping[str, str]) -> Process:
        """Start `python -m module arguments…` with these variables and none of the tester's own settings."""
        number = sum(process.name.startswith(name) for process in self._all)
        name = f"{name}-{number}" if number else name
        # The leash: where the tests themselves are killed, their children die with them.
        leash = [sys.executable, "-I", "-S", str(ROOT / "deploy/local/leash.py"), str(os.getpid())]
        argv = [*leash, sys.executable, "-m", module, *arguments]
        process = Process(name, argv, environment, self._directory / f"{name}.log")
        self._all.append(process)
        return process

    def end_all(self) -> None:
        """SIGTERM to all that run, SIGKILL to those that are deaf to it."""
        for stop in self._at_end:
            stop()
        for process in self._all:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        try:
            until(lambda: all(process.returncode is not None for process in self._all), "children to end", deadline_s=3)
        except AssertionError:
            for process in self._all:
                process.kill()

    def report(self) -> list[tuple[str, str]]:
        """Title and end of the log of each child, for the report of a failed test."""
        return [
            (f"{process.name} (pid {process.pid}, exit code {process.returncode})", process.tail())
            for process in self._all
        ]
