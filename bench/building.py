"""Builds what is compiled, into .cache/bench: the sink, the load generator, the peers. Says why where it cannot."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT, BenchError, environment

CACHE = ROOT / ".cache" / "bench"
SKIPPED = 77
_BUILD_DEADLINE_S = 600


@dataclass(frozen=True, slots=True)
class Tools:
    """Our own compiled programs."""

    sink: Path
    load: Path


def build_tools() -> Tools:
    """Build both.

    Raises:
        BenchError: there is no Go, or it does not build.

    """
    if shutil.which("go") is None:
        raise BenchError("no Go compiler: the sink and the load generator need one (Debian: apt-get install golang-go)")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("sink", "load"):
        _run(["go", "build", "-o", str(CACHE / name), f"./{name}"], ROOT / "bench", {"GOFLAGS": "-mod=readonly"})
    return Tools(CACHE / "sink", CACHE / "load")


def build_peer(folder: Path) -> Path | str:
    """The folder that it was built into, or why it is skipped."""
    target = CACHE / "peers" / folder.name
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(folder / "build")],
        cwd=folder,
        env=environment({"BUILD_DIR": str(target), "PYTHON": sys.executable}),
        capture_output=True,
        text=True,
        timeout=_BUILD_DEADLINE_S,
        check=False,
    )
    if done.returncode == 0:
        return target
    last = (done.stderr.strip().splitlines() or ["no word why"])[-1]
    return last if done.returncode == SKIPPED else f"does not build: {last}"


def _run(argv: list[str], folder: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}:\n{done.stderr}")
