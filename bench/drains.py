"""Runs without a load generator: a backlog that is drained, and a store on its own. Owns how their window is cut.

A drain is measured between two shares of the backlog, a twentieth and nineteen twentieths as a rule, so that starting
and joining the group are left out: CPU and objects of the same window. It goes on to the last record, and what then
lies in the sink has to be the backlog, byte for byte.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.accounting import peak_mib
from bench.processes import ROOT, BenchError, environment
from bench.runs import Run, by_role, drained, fill, misstored
from bench.stand import Load, Stand
from bench.subjects import Skipped, Subject, start, supports
from tests.harness.broker import Topic

_SIZE_BYTES = 1024
_A_REQUEST = 20
_TAIL = 0.05
_STORE_DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Backlog:
    """A topic that waits to be drained: how many records, and the sum of their fingerprints."""

    topic: Topic
    count: int
    checksum: str


def backlog(stand: Stand, count: int) -> Backlog:
    """A topic with that many payloads, written by an ingest of ours.

    Raises:
        BenchError: not all of them were acknowledged.

    """
    topic = stand.topic("backlog")
    ingest = start(stand, "ours-ingest", topic)
    try:
        report = stand.post(ingest.url, Load(count // _A_REQUEST, _A_REQUEST, _SIZE_BYTES), counted=True)
        if report["payloads"] != count:
            raise BenchError(f"{report['payloads']} of {count} payloads written: {report['errors']}")
    finally:
        stand.children.stop(ingest.all_processes())
    return Backlog(topic, count, report["checksum"])


def checksum_of(checksums: list[str]) -> str:
    """Of several loads together: their sum, as the sink adds, modulo 2^64."""
    return f"{sum(int(one, 16) for one in checksums) % 2**64:x}"


def _started(stand: Stand, topic: Topic, name: str, job: str) -> Subject:
    """The subject that drains: an uploader of ours, `run` (the default one), or `replay`."""
    client = "wire" if supports("wire") else "aiobotocore"
    if name in ("run", "replay"):
        settings = {**topic.environment(), **stand.s3_environment(), "S3_CLIENT": client, "KAFKA_GROUP_ID": job}
        arguments = ["run"] if name == "run" else ["replay", "--from", "beginning", "--job", job]
        settings |= {"UPLOADER_OPS_HOST": "127.0.0.1", "UPLOADER_OPS_PORT": "0"}
        process = stand.children.start(name, [sys.executable, "-m", "services.uploader", *arguments], settings)
        return Subject(name, "", counted=False, keeps_bytes=True, stores=True, processes={"uploader": [process]})
    return start(stand, name, topic, {"KAFKA_GROUP_ID": job})


def drain(stand: Stand, waiting: Backlog, name: str, run: Run, warm: float = _TAIL) -> Run:
    """Drain the whole backlog, measured between the two shares of it.

    Args:
        stand: where.
        waiting: the backlog.
        name: who drains.
        run: gets the figures; `whole_s` counts from the subject's start to the last object.
        warm: the share of the backlog after which the window begins.

    Raises:
        Skipped: there is no such subject.

    """
    stand.reset()
    began_s = time.monotonic()
    subject = _started(stand, waiting.topic, name, f"{name}-{run.round}-{int(time.time() * 1000)}")
    try:
        before, after = _window(stand, subject, run, waiting.count, warm)
        drained(stand, subject, waiting.count)
        run.other["whole_s"] = time.monotonic() - began_s
        stand.children.stop(subject.all_processes())  # what it still has in hand is counted, too
        run.failed = misstored(stand.stats(), waiting.count, waiting.checksum)
        fill(run, subject, before, after)
    except BenchError as error:
        run.failed = str(error)
    finally:
        stand.children.stop(subject.all_processes())
    return run


def _window(
    stand: Stand, subject: Subject, run: Run, count: int, warm: float
) -> tuple[dict[str, float], dict[str, float]]:
    drained(stand, subject, int(warm * count))
    before, first, began_s = by_role(stand, subject), stand.stats()["keys"], time.monotonic()
    drained(stand, subject, int((1 - _TAIL) * count))
    after, last = by_role(stand, subject), stand.stats()["keys"]
    run.seconds, run.payloads = time.monotonic() - began_s, last - first
    run.peaks_mib = {role: max(peak_mib(pid) for pid in pids) for role, pids in subject.pids().items()}
    return before, after


def put(stand: Stand, client: str, tls: bool, run: Run, seconds: float) -> Run:
    """One store's PUTs, 64 in flight."""
    return _store(stand, "bench.put", client, run, seconds, stand.s3_environment(tls=tls))


def in_flight(stand: Stand, client: str, tls: bool, run: Run, _seconds: float) -> Run:
    """512 puts in flight at 150 ms, through the uploader's own partitions."""
    stand.reset(latency_ms=150)
    try:
        return _store(stand, "bench.in_flight", client, run, 0, stand.s3_environment(tls=tls))
    finally:
        stand.reset()


def _store(stand: Stand, module: str, client: str, run: Run, seconds: float, settings: Mapping[str, str]) -> Run:
    """A module's own measurement, one JSON line of it: puts, seconds, cpu_us, little.

    Raises:
        Skipped: this version has no such client.

    """
    if client != "sleep" and not supports(client):
        raise Skipped(f"S3_CLIENT={client} is not known to this version")
    done = subprocess.run(
        [sys.executable, "-m", module, "--client", client, "--seconds", str(seconds), "--json"],
        env=environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_STORE_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        run.failed = (done.stderr.strip().splitlines() or ["no word why"])[-1]
        return run
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    run.payloads, run.seconds, run.cpu_us = found.pop("puts"), found.pop("seconds"), found.pop("cpu_us")
    run.other = found
    if found.get("failed_puts"):
        run.failed = f"{found['failed_puts']:.0f} puts failed"
    elif client != "sleep" and stand.stats()["keys"] < run.payloads:
        run.failed = f"{stand.stats()['keys']} keys at the sink of {run.payloads} puts"
    return run
