"""CPU and memory of processes by the kernel's own accounting. Owns no process and knows nothing of what they do.

CPU is that of a process, of its living descendants, and of those that it has waited for: a tier of several processes
and a peer behind a shell script count as one.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty where it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU, user and system, of these processes and theirs."""
    seconds = 0.0
    for pid in pids:
        for process in family(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def peak_mib(pid: int) -> float:
    """The largest resident size that each process of the family ever had, added up."""
    return sum(_peak_kib(process.pid) for process in family(pid)) / 1024


def _peak_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0
