"""One worker process as its supervisor holds it: started, asked how it is, told to drain, killed.

Owns the process and the supervisor's end of its channel. Decides nothing: `care` does.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence

from services.ingest.workers.care import Standing
from services.ingest.workers.report import DRAIN, HEAD_BYTES, REPORT, Report, body_bytes, parsed


class WorkerProcess:
    """A process that runs. Use `start`.

    Args:
        number: its place among the workers, from 0.
        process: the process.
        reader: what comes from it.
        writer: what goes to it.
        told: called after each of its reports.

    """

    def __init__(
        self,
        number: int,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        told: Callable[[], None],
    ) -> None:
        self.number = number
        self.last: Report | None = None  # its last report
        self.served = False  # it has said once that it takes connections
        self.wedged = False  # it was killed for that
        self._process = process
        self._reader = reader
        self._writer = writer
        self._told = told
        self._started_s = time.monotonic()
        self._unanswered = 0  # looks since it was asked, or since it closed the channel
        self._answer: asyncio.Future[None] | None = None  # of the question that is on its way

    @classmethod
    async def start(
        cls, number: int, command: Sequence[str], inherited: Sequence[int], told: Callable[[], None]
    ) -> "WorkerProcess":
        """Run the command with `--number`, `--channel` and `--parent` added; it inherits these descriptors.

        Raises:
            OSError: the system lets us have no process, or no socket.

        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--number", str(number), "--channel", str(theirs.fileno()), "--parent", str(os.getpid())),
                pass_fds=(theirs.fileno(), *inherited),
                stdin=asyncio.subprocess.DEVNULL,
            )
            undo.pop_all()
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(number, process, reader, writer, told)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lived_s(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self._started_s

    @property
    def standing(self) -> Standing:
        """What is known of it."""
        last = self.last
        if last is None:
            return Standing(self.number, self.pid, listening=False, unanswered=self._unanswered)
        return Standing(self.number, self.pid, last.listening, self._unanswered, last.conditions, last.reasons)

    def look(self) -> None:
        """Ask how it is; or count that it has not said so since the last time, or can say nothing any more."""
        if self._answer is not None or self._writer.is_closing():
            self._unanswered += 1
        self.ask()

    def ask(self) -> "asyncio.Future[None] | None":
        """Ask how it is. Resolved by its answer or its end; None where it owes one already, or has ended."""
        if self._answer is not None or self._writer.is_closing():
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._writer.write(REPORT)
        return self._answer

    def drain(self) -> None:
        """Tell it to finish what it has, and to leave."""
        if not self._writer.is_closing():
            self._writer.write(DRAIN)

    def kill(self) -> None:
        """Take it away."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def run(self) -> int:
        """Take its reports until it has ended; its exit code, or less than 0: a signal's number."""
        try:
            while True:
                body = await self._reader.readexactly(body_bytes(await self._reader.readexactly(HEAD_BYTES)))
                self._take(parsed(body))
        except (asyncio.IncompleteReadError, OSError):
            pass  # it has closed its end, and is about to end; if it does not, `look` counts
        except ValueError:  # msgspec's errors are of this kind
            self.kill()
        finally:
            self._writer.close()
            self._resolve()
        return await self._process.wait()

    def _take(self, report: Report) -> None:
        self.last = report
        self.served = self.served or report.listening
        self._unanswered = 0
        self._resolve()
        self._told()

    def _resolve(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(None)
