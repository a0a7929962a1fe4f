"""One child process: started with a deadline, watched, ended by its own id. Knows nothing of what the child does.

Three nets hold a child, because each has a hole. It lives in its own session, so a Ctrl-C reaches only us and we end
the children in the right order. On Linux the kernel kills it when we die, even by SIGKILL (`leash.py`; only for
children started by the main thread: the kernel counts the *thread* as the parent). And a pid file beside the log,
with start time and command, lets the next start find and end what was left all the same.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_POLL_S = 0.03
_TAIL_BYTES = 16_384
_STOPPED_WITHIN_S = 5.0
_CLOCK_SLACK_S = 5.0
"""A process's start time is derived from the boot time, which moves when the clock is set."""
_LEASH = str(Path(__file__).with_name("leash.py"))


class StartError(Exception):
    """A process that died or missed its deadline while starting. The message ends with the tail of its own log."""


class ServerProcess:
    """A child process and its log file. Not for use from several threads at once.

    Args:
        name: what messages call it.
        argv: program and arguments.
        log_file: gets standard output and error; emptied by the first start, kept by a restart.
        env: its whole environment; None inherits ours.
        cwd: its working directory; None inherits ours.

    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_file: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_file = log_file
        self.pid_file = log_file.with_suffix(".pid")
        self.env = None if env is None else dict(env)
        self.cwd = cwd
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended. A frozen process runs."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last run, negative for a signal; None while it runs or before the first start."""
        return None if self._popen is None else self._popen.poll()

    @property
    def pid(self) -> int:
        """Process id of the last run.

        Raises:
            RuntimeError: it was never started.

        """
        if self._popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._popen.pid

    def start(self) -> None:
        """Start it, after ending what an earlier run of ours left behind. Returns at once; `wait_ready` waits.

        Raises:
            RuntimeError: it is running.

        """
        if self.running:
            raise RuntimeError(f"{self.name} is running, pid {self.pid}")
        end_leftover(self.pid_file)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        tied = threading.current_thread() is threading.main_thread()
        leash = [sys.executable, "-I", "-S", _LEASH, str(os.getpid())] if tied else []
        with self.log_file.open("wb" if self._popen is None else "ab") as log:
            self._popen = subprocess.Popen(
                [*leash, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )
        _write_pid_file(self.pid_file, self._popen.pid, self.argv)

    def wait_ready(self, probe: Callable[[], bool], deadline_s: float) -> None:
        """Wait until `probe` says yes; an OSError of it (nobody listens yet) means not yet. On failure it is ended.

        Raises:
            StartError: it died, or the deadline passed.

        """
        give_up = time.monotonic() + deadline_s
        while True:
            if not self.running:
                code = self.exit_code
                self._forget()
                raise StartError(f"{self.name} ended with exit code {code} while starting.{self._tail_text()}")
            with contextlib.suppress(OSError):
                if probe():
                    return
            if time.monotonic() > give_up:
                self.kill()
                raise StartError(f"{self.name} was not ready within {deadline_s:g} s.{self._tail_text()}")
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Wait for it to end by itself and return its exit code.

        Raises:
            TimeoutError: it still runs.

        """
        assert self._popen is not None, f"{self.name} was never started"  # noqa: S101
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (pid {self.pid}) still runs after {timeout_s:g} s") from None
        self._forget()
        return code

    def stop(self, timeout_s: float = 15) -> None:
        """End it: SIGTERM, and SIGKILL after `timeout_s`. A frozen process is thawed. Not running is fine."""
        if self.running:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            try:
                self.wait(timeout_s)
            except TimeoutError:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """End it with SIGKILL and reap it. Not running is fine."""
        if self._popen is not None:
            self._signal(signal.SIGKILL)
            self._popen.wait()
        self._forget()

    def freeze(self) -> None:
        """Stop it from running without ending it (SIGSTOP): it answers nothing and closes nothing.

        Returns once it has stopped: the kernel stops one thread after another, and on another processor one of them may
        still answer a moment after the signal was sent.
        """
        self._signal(signal.SIGSTOP)
        end_s = time.monotonic() + _STOPPED_WITHIN_S
        while not self._stopped() and time.monotonic() < end_s:
            time.sleep(_POLL_S)

    def _stopped(self) -> bool:
        """Whether each of its threads is stopped, or it has ended; True where the system does not tell (no /proc)."""
        if self._popen is None:
            return True
        for each in Path(f"/proc/{self._popen.pid}/task").glob("*/stat"):
            try:
                state = each.read_text("ascii", "replace").rpartition(")")[2].split()[0]
            except OSError:
                continue  # this thread has ended
            if state not in "TtZX":
                return False
        return True

    def thaw(self) -> None:
        """Let a frozen process run on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log; empty if there is none."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _tail_text(self) -> str:
        tail = self.log_tail() or "(empty)"
        return f" The end of its log, {self.log_file}:\n{tail}"

    def _signal(self, number: signal.Signals) -> None:
        if self.running:  # polled: an unreaped pid is still ours and cannot have been given to another
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # the session's leader is its group's leader: same number

    def _forget(self) -> None:
        self.pid_file.unlink(missing_ok=True)


def _write_pid_file(path: Path, pid: int, argv: Sequence[str]) -> None:
    try:
        started_at_s = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    part = path.with_suffix(".pid.part")
    part.write_text(json.dumps({"pid": pid, "started_at_s": started_at_s, "argv": list(argv)}), encoding="utf-8")
    part.replace(path)


def end_leftover(pid_file: Path, timeout_s: float = 10) -> bool:
    """End the process that a pid file names, if it is still the very same one; then remove the file.

    Same means: same id, same start time, same command. A number alone may long be another's.

    Returns:
        Whether there was one to end.

    """
    try:
        noted = json.loads(pid_file.read_text(encoding="utf-8"))
        process = psutil.Process(int(noted["pid"]))
        argv = [str(word) for word in noted["argv"]]
        same = (
            abs(process.create_time() - float(noted["started_at_s"])) < _CLOCK_SLACK_S
            and process.cmdline()[-len(argv) :] == argv
        )
        if same:
            process.kill()
            process.wait(timeout_s)
    except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess, psutil.AccessDenied):
        same = False
    pid_file.unlink(missing_ok=True)
    return same
