"""Runs without a load generator: a backlog that is drained, and a store on its own. Owns how their window is cut.

A drain is measured from the moment that a twentieth of the backlog is stored, so that starting and joining the group
are left out, to nineteen twentieths or the end of its time: CPU and objects of the same window.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.accounting import peak_mib
from bench.processes import ROOT, BenchError, environment, until
from bench.runs import Run, by_role, fill
from bench.stand import Load, Stand
from bench.subjects import Skipped, Subject, start, supports
from tests.harness.broker import Topic

BACKLOG = 40_000
_SIZE_BYTES = 1024
_A_REQUEST = 20
_ENDS = 0.05
_FIRST_S = 120
_STORE_DEADLINE_S = 60


def fill_topic(stand: Stand, count: int = BACKLOG) -> Topic:
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
    return topic


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


def drain(
    stand: Stand, topic: Topic, name: str, run: Run, seconds: float, *, count: int = BACKLOG, whole: bool = False
) -> Run:
    """Drain the topic, or as much of it as the time allows.

    Args:
        stand: where.
        topic: the backlog.
        name: who drains.
        run: gets the figures.
        seconds: at most, from the window's begin.
        count: records of the backlog.
        whole: all of it must be stored, else the run has failed.

    Raises:
        Skipped: there is no such subject.

    """
    stand.reset()
    began_s = time.monotonic()
    subject = _started(stand, topic, name, f"{name}-{run.round}-{int(time.time() * 1000)}")
    processes = subject.all_processes()
    try:
        _window(stand, subject, run, seconds, count)
        if whole:
            until(lambda: stand.stats()["keys"] >= count, f"{count} objects", seconds, watched=processes)
            run.other["whole_s"] = time.monotonic() - began_s
    except BenchError as error:
        run.failed = str(error)
    finally:
        stand.children.stop(processes)
    return run


def _window(stand: Stand, subject: Subject, run: Run, seconds: float, count: int) -> None:
    processes = subject.all_processes()
    until(lambda: stand.stats()["keys"] >= _ENDS * count, "its first objects", _FIRST_S, watched=processes)
    before, first, began_s = by_role(stand, subject), stand.stats()["keys"], time.monotonic()
    until(
        lambda: stand.stats()["keys"] >= (1 - _ENDS) * count or time.monotonic() - began_s > seconds,
        "most of the backlog",
        seconds + _FIRST_S,
        watched=processes,
    )
    after, last = by_role(stand, subject), stand.stats()["keys"]
    run.seconds, run.payloads = time.monotonic() - began_s, last - first
    run.peaks_mib = {role: max(peak_mib(pid) for pid in pids) for role, pids in subject.pids().items()}
    fill(run, subject, before, after, 0.0)


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
    if client != "sleep" and stand.stats()["keys"] < run.payloads:
        run.failed = f"{stand.stats()['keys']} keys at the sink of {run.payloads} puts"
    return run
