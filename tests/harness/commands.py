"""The operator's commands as an operator runs them: a process, its variables, its exit code, what it printed where."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.harness.processes import ROOT, Process, Processes, inherited


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What `--output json` printed: one document and nothing else."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class Commands:
    """`spillway-uploader …` with these variables."""

    def __init__(self, processes: Processes, environment: Mapping[str, str]) -> None:
        self._processes = processes
        self._environment = dict(environment)

    def run(self, *arguments: str, deadline_s: float = 60, environment: Mapping[str, str] | None = None) -> Ran:
        """Run to its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then; it is killed.

        """
        ended = subprocess.run(
            [sys.executable, "-m", "services.uploader", *arguments],
            env={**inherited(), **self._environment, **(environment or {})},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *arguments: str) -> Process:
        """Start it, and do not wait; it is ended with the test's other processes."""
        return self._processes.python(arguments[0], "services.uploader", *arguments, environment=self._environment)
