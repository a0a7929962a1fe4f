"""Promises of `make run`: the whole system in one command, over real processes, stopped without a trace."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from deploy.local.jars import kafka_jars
from tests.harness.waiting import until

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0  # two busy cores; alone it is ready in 8 s


class Run(NamedTuple):
    """One `make run` and what it has said so far."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def ready(self) -> str:
        """Wait until it is, and return the URL that it printed."""

        def url() -> str | None:
            assert self.process.poll() is None, self.said()
            found = re.search(r"^ready in .*(http://\S+/v1/collections)$", self.said(), re.MULTILINE)
            return found.group(1) if found and "Ctrl-C" in self.said() else None

        return str(until(url, "ready", deadline_s=READY_S))

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


class Runs:
    """Starts runs in one directory and ends what a failed test left running."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "run"
        self._tmp_path = tmp_path
        self._started: list[Run] = []

    def start(self) -> Run:
        output = self._tmp_path / f"output-{len(self._started)}"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local", "--directory", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "KAFKA_SECURITY_PROTOCOL": "SSL", "AWS_PROFILE": "none"},  # of another system
                start_new_session=True,
            )
        run = Run(process, output)
        self._started.append(run)
        return run

    def end(self) -> None:
        for run in self._started:
            if run.process.poll() is None:
                run.process.kill()  # the kernel ends its children
                run.process.wait()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    kafka_jars()
    runs = Runs(tmp_path)
    yield runs
    runs.end()


def gone(family: list[psutil.Process]) -> bool:
    return not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)


def post(url: str, body: bytes) -> bytes:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=15)
    try:
        connection.request("POST", f"/{path}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


def stored(directory: Path, key: str = "") -> bytes:
    """What a person gets who sources the environment file in a shell that has nothing of ours."""
    script = '. "$1" && spillway-uploader --help >&2 && python -m deploy.local.stored'
    done = subprocess.run(
        ["/bin/sh", "-c", f"{script} {key}", "sh", str(directory / "env")],
        env={"PATH": os.defpath, "AWS_PROFILE": "none"},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"usage: spillway-uploader" in done.stderr
    return done.stdout


def test_a_run_serves_until_ctrl_c_and_leaves_nothing(runs: Runs) -> None:
    """A posted payload is read back byte for byte by the printed means; a second run is refused; Ctrl-C ends with 0."""
    run = runs.start()
    url = run.ready()
    family = run.family()
    said = run.said()
    for promised in ('"kind": "load"', "/docs", "s3://spillway", "curl -sS http", "/readyz"):
        assert promised in said

    payload_id = post(url, b'{"version":"1","token":"","data":[ {"n":1e400,"n":-0.0} ]}').decode().split('"')[-2]

    def key() -> str | None:
        found = re.search(rf"^(\S+/{payload_id}) ", stored(runs.directory).decode(), re.MULTILINE)
        return found.group(1) if found else None

    assert stored(runs.directory, until(key, "the object", deadline_s=15) or "") == b'{"n":1e400,"n":-0.0}'

    second = runs.start()
    assert second.process.wait(20) == 1
    assert re.search(rf"error: `make run` is running already, pid {run.process.pid}, in \S+: stop it", second.said())

    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(40) == 0, run.said()
    assert gone(family)
    assert "stored in this run: 9 objects" in run.said()
    assert list(runs.directory.rglob("*.pid")) == []


def test_a_run_starts_after_a_kill_and_ends_when_a_part_dies(runs: Runs) -> None:
    """SIGKILL of a run leaves no process and hinders no next one; a run ends with 1 and names the part that died."""
    first = runs.start()
    first.ready()
    family = first.family()
    first.process.kill()
    first.process.wait()
    until(lambda: gone(family), "the end of all processes", deadline_s=5)

    second = runs.start()
    second.ready()
    family = second.family()
    uploader = next(member for member in family if "services.uploader" in member.cmdline())
    uploader.kill()
    assert second.process.wait(40) == 1
    assert re.search(
        r"error: uploader-\d was killed by SIGKILL; stopping everything\. The end of its log", second.said()
    )
    assert gone(family)


def test_a_folder_of_somebody_else_is_not_emptied(runs: Runs) -> None:
    """Pointed at a folder with other files, the command refuses and touches nothing."""
    runs.directory.mkdir()
    (runs.directory / "thesis.txt").touch()
    run = runs.start()
    assert run.process.wait(20) == 2
    assert "not ours" in run.said()
    assert [entry.name for entry in runs.directory.iterdir()] == ["thesis.txt"]
