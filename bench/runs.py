"""One measured run of one subject, and what it comes to. Owns the rules of what counts as a run.

A run whose answers held an error, or whose objects are not exactly what was acknowledged, has no figure: it is reported
as failed, with the reason.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.accounting import cpu_s, peak_mib
from bench.processes import BenchError, until
from bench.stand import Load, Stand
from bench.subjects import Subject

_STALL_S = 60


@dataclass(slots=True)
class Run:
    """What was measured.

    Attributes:
        scenario: its name.
        case: the row of it.
        subject: who.
        round: from 0.
        payloads: acknowledged.
        seconds: from the first request to the last object (end to end), or to the last answer.
        cpu_us: of all the subject's processes a payload, what it uses when idle taken off; None: failed.
        role_us: the same by role, and beside it `broker`, `sink` and `load`.
        peaks_mib: the largest resident size by role.
        report: the load generator's.
        other: figures of a scenario's own.
        failed: why there is no figure.

    """

    scenario: str
    case: str
    subject: str
    round: int = 0
    payloads: int = 0
    seconds: float = 0.0
    cpu_us: float | None = None
    role_us: dict[str, float] = field(default_factory=dict)
    peaks_mib: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    other: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def per_s(self) -> float:
        """Payloads a second."""
        return self.payloads / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def by_role(stand: Stand, subject: Subject) -> dict[str, float]:
    """Seconds of CPU so far: of the subject's roles and of what stands beside it."""
    theirs = {role: cpu_s(pids) for role, pids in subject.pids().items()}
    return theirs | {role: cpu_s([pid]) for role, pid in stand.infrastructure().items()}


def drained(stand: Stand, subject: Subject, keys: int) -> None:
    """Wait until the sink has that many distinct keys.

    Raises:
        BenchError: the subject ended, or nothing has come for a minute.

    """
    seen, moved_s = -1, time.monotonic()

    def done() -> bool:
        nonlocal seen, moved_s
        now = stand.stats()["keys"]
        if now != seen:
            seen, moved_s = now, time.monotonic()
        if time.monotonic() - moved_s > _STALL_S:
            raise BenchError(f"{seen} of {keys} objects, and none more for {_STALL_S} s")
        return bool(seen >= keys)

    until(done, f"{keys} objects", 600, watched=subject.all_processes())


def judge(stand: Stand, subject: Subject, load: Load, report: dict[str, Any], records: int) -> str:
    """What is wrong with a run; empty: nothing is. `records`: what the run added to the topic."""
    if report["errors"] or report["payloads"] != load.count:
        return f"{report['payloads']} of {load.count} payloads acknowledged; {report['errors']}"
    if not subject.stores:
        return "" if records == load.count else f"{records} records of {load.count} payloads"
    stats = stand.stats()
    if stats["keys"] != load.count:
        return f"{stats['keys']} objects of {load.count} payloads"
    if stats["changed"]:
        return f"{stats['changed']} keys were written again with another body"
    if subject.keeps_bytes and stats["checksum"] != report["checksum"]:
        return f"the objects' checksum is {stats['checksum']}, the payloads' {report['checksum']}"
    return ""


def measure(stand: Stand, subject: Subject, load: Load, run: Run, idle: float = 0.0) -> Run:
    """Send the load, wait for the last object where the subject stores, and fill the run.

    Args:
        stand: where.
        subject: who.
        load: what.
        run: with its names; gets the figures.
        idle: the share of a core that the subject uses when nothing happens.

    """
    stand.reset()
    held = subject.records()
    before, began_s = by_role(stand, subject), time.monotonic()
    try:
        run.report = stand.post(subject.url, load, counted=subject.counted)
        if subject.stores:
            drained(stand, subject, run.report["payloads"])
        run.seconds = time.monotonic() - began_s
        after = by_role(stand, subject)
        run.failed = judge(stand, subject, load, run.report, subject.records() - held)
    except BenchError as error:
        run.failed = str(error)
        return run
    run.payloads = run.report["payloads"]
    run.peaks_mib = {
        role: max(peak_mib(pid) for pid in pids) for role, pids in (subject.pids() | _beside(stand)).items()
    }
    fill(run, subject, before, after, idle)
    run.role_us["load"] = 1e6 * run.report["cpu_s"] / max(run.payloads, 1)
    return run


def _beside(stand: Stand) -> dict[str, list[int]]:
    return {role: [pid] for role, pid in stand.infrastructure().items()}


def fill(run: Run, subject: Subject, before: dict[str, float], after: dict[str, float], idle: float) -> None:
    """Microseconds a payload, by role and of the subject; a failed run keeps the roles' and has no figure."""
    if not run.payloads:
        return
    run.role_us = {role: 1e6 * (after[role] - before[role]) / run.payloads for role in after}
    if run.failed:
        return
    own = sum(run.role_us[role] for role in subject.processes)
    run.cpu_us = own - 1e6 * idle * run.seconds / run.payloads
