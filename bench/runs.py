"""One measured run of one subject, and what it comes to. Owns the rules of what counts as a run.

A run whose answers held an error, or whose objects are not exactly what was acknowledged, has no figure: it is reported
as failed, with the reason.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.accounting import cpu_s, peak_mib
from bench.processes import BenchError, until
from bench.ratios import spread
from bench.stand import Load, Stand
from bench.subjects import Subject

_STALL_S = 60
_REPEATED_MAX = 0.01  # of the puts: at least once allows a repetition after a fault, and there is none here


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
        cpu_us: of all the subject's processes a payload; None: failed.
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


def latencies(runs: Sequence[Run]) -> dict[str, float]:
    """Medians of the percentiles of open loops; a closed loop's, which cannot see a stall, are left out."""
    reports = [run.report["latency_ms"] for run in runs if run.report.get("rate")]
    if not reports:
        return {}
    return {name: spread([report[name] for report in reports]).median for name in ("p50", "p99", "p99.9")}


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
        if seen < keys and time.monotonic() - moved_s > _STALL_S:
            raise BenchError(f"{seen} of {keys} objects, and none more for {_STALL_S} s")
        return seen >= keys

    until(done, f"{keys} objects", 600, watched=subject.all_processes())


def judge(stand: Stand, subject: Subject, load: Load, report: dict[str, Any]) -> str:
    """What is wrong with a run; empty: nothing is."""
    if report["errors"] or report["payloads"] != load.count:
        return f"{report['payloads']} of {load.count} payloads acknowledged; {report['errors']}"
    if not subject.stores:
        return ""
    return misstored(stand.stats(), load.count, report["checksum"] if subject.keeps_bytes else None)


def misstored(stats: Mapping[str, Any], count: int, checksum: str | None) -> str:
    """What is wrong with the objects; empty: each payload is one, and no byte of it differs.

    Args:
        stats: the sink's.
        count: payloads that were acknowledged, or records of a backlog.
        checksum: of their bytes; None: the subject writes its payloads anew.

    """
    if stats["keys"] != count:
        return f"{stats['keys']} objects of {count} payloads"
    if stats["changed"]:
        return f"{stats['changed']} keys were written again with another body"
    if checksum is not None and stats["checksum"] != checksum:
        return f"the objects' checksum is {stats['checksum']}, the payloads' {checksum}"
    if stats["puts"] > count * (1 + _REPEATED_MAX):
        return f"{stats['puts']} puts for {count} payloads"
    return ""


def miswritten(records: int, count: int) -> str:
    """What is wrong with the records of a subject that stores nothing; empty: each payload is one."""
    return "" if count <= records <= count * (1 + _REPEATED_MAX) else f"{records} records of {count} payloads"


def _records(subject: Subject) -> int:
    return sum(subject.topic.ends().values()) if subject.topic and not subject.stores else 0


def measure(stand: Stand, subject: Subject, load: Load, run: Run) -> Run:
    """Send the load, wait for the last object where the subject stores, and fill the run.

    Args:
        stand: where.
        subject: who.
        load: what.
        run: with its names; gets the figures.

    """
    stand.reset()
    records = _records(subject)
    before, began_s = by_role(stand, subject), time.monotonic()
    try:
        run.report = stand.post(subject.url, load, counted=subject.counted)
        if subject.stores:
            drained(stand, subject, run.report["payloads"])
        run.seconds = time.monotonic() - began_s
        after = by_role(stand, subject)
        run.failed = judge(stand, subject, load, run.report)
        if not run.failed and not subject.stores:
            run.failed = miswritten(_records(subject) - records, load.count)
    except BenchError as error:
        run.failed = str(error)
        return run
    run.payloads = run.report["payloads"]
    run.peaks_mib = {
        role: max(peak_mib(pid) for pid in pids) for role, pids in (subject.pids() | _beside(stand)).items()
    }
    fill(run, subject, before, after)
    run.role_us["load"] = 1e6 * run.report["cpu_s"] / max(run.payloads, 1)
    return run


def _beside(stand: Stand) -> dict[str, list[int]]:
    return {role: [pid] for role, pid in stand.infrastructure().items()}


def fill(run: Run, subject: Subject, before: dict[str, float], after: dict[str, float]) -> None:
    """Microseconds a payload, by role and of the subject; a failed run keeps the roles' and has no figure."""
    if not run.payloads:
        return
    run.role_us = {role: 1e6 * (after[role] - before[role]) / run.payloads for role in after}
    if run.failed:
        return
    run.cpu_us = sum(run.role_us[role] for role in subject.processes)
