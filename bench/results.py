"""The result of a benchmark as a value, and as JSON: the machine, the versions, every run. Measures nothing."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.runs import Run

_PACKAGES = ("aiokafka", "aiobotocore", "botocore", "aiohttp", "uvicorn", "fastapi", "msgspec", "httptools", "uvloop")


@dataclass(slots=True)
class Result:
    """Everything that one benchmark found. `skipped`: reasons by subject."""

    machine: dict[str, Any]
    versions: dict[str, str]
    runs: list[Run] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """As JSON, one run a line: a diff shows which moved."""
        head = {"machine": self.machine, "versions": self.versions, "skipped": self.skipped}
        text = json.dumps(head | {"seconds": round(self.seconds)}, indent=1)[:-2]
        runs = ",\n".join(json.dumps(_rounded(run.document())) for run in self.runs)
        path.write_text(f'{text},\n "runs": [\n{runs}\n]}}\n', encoding="utf-8")


def read(path: Path) -> Result:
    """What `write` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    runs = [Run(**run) for run in found["runs"]]
    return Result(found["machine"], found["versions"], runs, found["skipped"], found["seconds"])


def merged(before: Sequence[Run], now: Sequence[Run]) -> list[Run]:
    """Runs of scenarios that were not run again stay; each keeps company with its own scenario's only."""
    again = {run.scenario for run in now}
    return [*(run for run in before if run.scenario not in again), *now]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return value


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what is measured and of what measures."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    found["go"] = _said(["go", "env", "GOVERSION"])
    found["commit"] = _said(["git", "describe", "--always", "--dirty"])
    return found


def _said(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip()
