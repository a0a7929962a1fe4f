"""Flame graphs of both tiers under load, as SVG. Needs py-spy (`make bench` brings it); says so where there is none."""

import shutil
import subprocess
from pathlib import Path

from bench.processes import ROOT, BenchError
from bench.progress import Reporter
from bench.stand import Load, Stand
from bench.subjects import Skipped, Subject, start, supports

SECONDS = 8
_SAMPLES_PER_S = 150
_WARM = Load(2000, 1, 1024)


def py_spy() -> str | None:
    """Where it is."""
    beside = ROOT / ".venv-bench" / "bin" / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def record(stand: Stand, reporter: Reporter, output: Path) -> None:
    """Both tiers at one payload a request, saturated."""
    program = py_spy()
    if program is None:
        reporter.skipped("flame", "flame", "no py-spy")
        return
    name = "ours" if supports("wire") else "ours-aiobotocore"
    try:
        subject = start(stand, name)
    except (Skipped, BenchError) as reason:
        reporter.skipped("flame", name, str(reason))
        return
    try:
        _record(stand, subject, program, output)
    except (BenchError, subprocess.SubprocessError) as error:
        reporter.skipped("flame", name, str(error))
    finally:
        stand.children.stop(subject.all_processes())


def _record(stand: Stand, subject: Subject, program: str, output: Path) -> None:
    warm = stand.post(subject.url, _WARM, counted=True)
    enough = Load(int(warm["requests_per_s"] * SECONDS * 4), 1, 1024)
    with stand.posting(subject.url, enough, counted=True):
        recorders = []
        for role, processes in subject.processes.items():
            argv = [program, "record", "--pid", str(processes[0].pid), "--duration", str(SECONDS), "--nonblocking"]
            argv += [
                "--rate",
                str(_SAMPLES_PER_S),
                "--output",
                str(output / f"flame-{role}.svg"),
                "--format",
                "flamegraph",
            ]
            recorders.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        for recorder in recorders:
            _, err = recorder.communicate(timeout=SECONDS + 60)
            if recorder.returncode != 0:
                raise BenchError(f"py-spy: {err.strip()[-500:]}")
