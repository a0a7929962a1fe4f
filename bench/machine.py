"""What a benchmark ran on: the machine, how fast its interpreter is, the versions."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

_PACKAGES = ("aiokafka", "aiobotocore", "botocore", "aiohttp", "uvicorn", "fastapi", "msgspec", "httptools", "uvloop")


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
        "interpreter_ms": interpreter_ms(),
    }


def interpreter_ms() -> float:
    """CPU of a fixed piece of Python, best of five rounds: what two interpreters are compared by.

    One version differs by a third with how it was compiled; `--enable-optimizations` is what distributions and the
    official images have, and version managers often have not.
    """
    rounds_ns = []
    for _ in range(5):
        started_ns = time.process_time_ns()
        held: dict[int, tuple[int, str]] = {}
        for number in range(200_000):
            held[number % 1000] = (number, str(number))
        rounds_ns.append(time.process_time_ns() - started_ns)
    return round(min(rounds_ns) / 1e6, 1)


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
