"""Promises of `ServerProcess` and of the ports: clear failures, and nothing left behind however we end."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from deploy.local.ports import LOOPBACK, free_port, is_free
from deploy.local.process import ServerProcess, StartError, end_leftover
from tests.harness.waiting import until

ROOT = Path(__file__).resolve().parents[2]

WAITS = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); [signal.pause() for _ in 'ab']"


def python(tmp_path: Path, code: str) -> ServerProcess:
    return ServerProcess("child", [sys.executable, "-c", code], log_file=tmp_path / "child.log")


def is_up(process: ServerProcess) -> bool:
    return "up" in process.log_tail()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_death_while_starting_shows_the_log(tmp_path: Path) -> None:
    """A process that dies while starting raises at once, with its exit code and its own last words."""
    process = python(tmp_path, "import sys; print('no such disk'); sys.exit(7)")
    process.start()
    with pytest.raises(StartError, match=r"(?s)exit code 7.*child\.log.*no such disk"):
        process.wait_ready(lambda: False, 30)


def test_missed_deadline_shows_the_log_and_ends_the_process(tmp_path: Path) -> None:
    """A process that is not ready in time is ended, and the error carries its log."""
    process = python(tmp_path, WAITS)
    process.start()
    until(lambda: is_up(process), "the child's first words", deadline_s=10)
    with pytest.raises(StartError, match=r"(?s)not ready within 0.1 s.*up"):
        process.wait_ready(lambda: False, 0.1)
    assert not process.running
    assert process.exit_code == -signal.SIGKILL
    assert not process.pid_file.exists()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The error of a missing program names it."""
    process = ServerProcess("child", ["/no/such/program"], log_file=tmp_path / "child.log")
    process.start()
    with pytest.raises(StartError, match="cannot run /no/such/program"):
        process.wait_ready(lambda: False, 10)


def test_stop_asks_first_and_then_insists(tmp_path: Path) -> None:
    """SIGTERM ends a process that heeds it; one that does not is killed after the time-out, so is a frozen one."""
    for code, freeze, expected in (
        (WAITS, False, -signal.SIGTERM),
        (WAITS, True, -signal.SIGTERM),
        (STUBBORN, False, -signal.SIGKILL),
    ):
        process = python(tmp_path, code)
        process.start()
        process.wait_ready(lambda process=process: is_up(process), 10)  # type: ignore[misc]
        if freeze:
            process.freeze()
        process.stop(timeout_s=0.5)
        assert process.exit_code == expected


PARENT = """
    import signal, sys, threading
    from pathlib import Path
    from deploy.local.process import ServerProcess
    child = ServerProcess("child", [sys.executable, "-c", sys.argv[2]], log_file=Path(sys.argv[1]) / "child.log")
    if sys.argv[3] == "main":
        child.start()
    else:
        starter = threading.Thread(target=child.start); starter.start(); starter.join()
    child.wait_ready(lambda: "up" in child.log_tail(), 10)
    print(child.pid, flush=True)
    signal.pause()
"""


def parent(tmp_path: Path, thread: str) -> tuple["subprocess.Popen[bytes]", int]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), WAITS, thread],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    child_pid = int(process.stdout.readline())
    process.stdout.close()
    return process, child_pid


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    """SIGKILL of the process that started a server ends the server too."""
    process, child_pid = parent(tmp_path, "main")
    assert alive(child_pid)
    process.kill()
    process.wait()
    until(lambda: not alive(child_pid), "the child's end", deadline_s=5)


def test_ctrl_c_does_not_reach_the_child(tmp_path: Path) -> None:
    """A terminal's SIGINT goes to our process group, and a server is in none of ours: we end it in our own order."""
    process, child_pid = parent(tmp_path, "main")
    try:
        assert os.getpgid(child_pid) == child_pid
        assert os.getsid(child_pid) == child_pid
        assert os.getpgid(process.pid) != child_pid
    finally:
        process.kill()
        process.wait()


def test_the_next_start_ends_a_leftover(tmp_path: Path) -> None:
    """A server that outlived its parent, as one started by a thread does, ends at the next start."""
    process, child_pid = parent(tmp_path, "other")
    process.kill()
    process.wait()
    assert alive(child_pid)
    successor = python(tmp_path, WAITS)
    successor.start()
    try:
        assert not alive(child_pid)
        assert successor.running
    finally:
        successor.kill()


@pytest.mark.parametrize(
    ("field", "wrong"), [("started_at_s", 1_000_000.0), ("argv", ["some", "other", "program"]), ("pid", "x")]
)
def test_a_pid_that_is_anothers_by_now_is_left_alone(tmp_path: Path, field: str, wrong: object) -> None:
    """A pid file ends nothing unless id, start time and command are all the same: the number may be another's."""
    process = python(tmp_path, WAITS)
    process.start()
    try:
        process.wait_ready(lambda: is_up(process), 10)
        noted = json.loads(process.pid_file.read_text())
        process.pid_file.write_text(json.dumps({**noted, field: wrong}))
        assert not end_leftover(process.pid_file)
        assert process.running
        assert not process.pid_file.exists()
    finally:
        process.kill()


def test_a_taken_port_moves_aside() -> None:
    """The preferred port is taken if it is free; else another one, which is free."""
    preferred = free_port()
    assert free_port(preferred) == preferred
    with socket.create_server((LOOPBACK, preferred)):
        moved = free_port(preferred)
        assert moved != preferred
        assert is_free(moved)
    with socket.create_server(("", preferred)):  # on all addresses
        assert not is_free(preferred)
