"""The process that keeps the workers: owns the ops port, the signals, and who runs (docs/decisions/0022).

It takes no connection of the API and no payload goes through it. It starts workers, replaces those that end, asks each
once a second how it is, and speaks for them all on one ops port. SIGTERM: not ready, all workers are told to drain,
exit code 0 once they have. They are deaf to signals, so that one that a terminal or a service manager sends to all
processes is heard once, here. Where this process dies, the kernel takes the workers along.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

from services.ingest.settings import IngestSettings
from services.ingest.workers.care import WORKERS, Again, End, GiveUp, after, conditions, is_wedged, late
from services.ingest.workers.figures import MemberCollector, Tally
from services.ingest.workers.process import WorkerProcess
from services.ingest.workers.report import Family, families
from shared.ops import Others, Readiness, serve_ops
from shared.signals import on_first_signal
from shared.telemetry import ReadinessCollector, WorkerMetrics, process_registry

logger = logging.getLogger("spillway.ingest.workers")

LOOK_EVERY_S = 1.0
ASK_S = 0.5
"""How long an ops route waits for workers; then it tells what they said last."""
_DRAINING = "draining"
_EXIT_SLACK_S = 10.0  # a worker's own bounds after its drain delay and HTTP_DEADLINE_S: answers taken, client closed


class Supervisor:
    """Keeps INGEST_WORKERS processes.

    Args:
        settings: of the workers, too.
        command: what runs one; `process` adds which.
        inherited: descriptors that each needs.
        conditions: of readiness, that hold once a worker says so.

    """

    def __init__(
        self, settings: IngestSettings, *, command: Sequence[str], inherited: Sequence[int], conditions: Sequence[str]
    ) -> None:
        self._settings = settings
        self._command = command
        self._inherited = inherited
        self._readiness = Readiness(WORKERS, *conditions)
        self._processes: dict[int, WorkerProcess] = {}  # by number; of those that run
        self._tally = Tally()
        self._own = process_registry(Readiness())  # of this process alone
        self._registry = CollectorRegistry()
        self._registry.register(ReadinessCollector(self._readiness))
        self._registry.register(MemberCollector(self._tally, self._members))
        self._metrics = WorkerMetrics(self._registry)
        self._metrics.workers_max.set(settings.ingest_workers)
        self._any_served = asyncio.Event()  # a worker has taken connections, or none ever will
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._replaced = 0

    async def run(self, ops: socket.socket) -> int:
        """Serve until a signal, or until no worker can; the exit code."""
        others = Others(ask=self._ask, wedged=lambda: late([one.standing for one in self._processes.values()]))
        count = self._settings.ingest_workers
        logger.info("starting workers", extra={"workers": count})
        with on_first_signal(self._stop):
            async with serve_ops(ops, self._readiness, self._registry, others=others), asyncio.TaskGroup() as group:
                places = [group.create_task(self._keep(number), name=f"worker {number}") for number in range(count)]
                looks = group.create_task(self._look(), name="looks")
                await asyncio.wait(places)
                looks.cancel()
        logger.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

    # -- one place

    async def _keep(self, number: int) -> None:
        """Have a worker in this place until it is time to stop."""
        if number:  # the first tries the way: what is wrong with it is said once
            await self._any_served.wait()
        short_lives, joins = 0, number > 0  # whether others may serve already
        while not self._stopping.is_set():
            end = await self._life(number, short_lives, joins=joins)
            if end is None:
                return
            match after(end):
                case GiveUp(code):
                    logger.error("workers end again and again; leaving", extra={"worker": number, "exit_code": code})
                    self._exit_code = code
                    self._stop()
                case Again(delay_s, short_lives):
                    logger.warning("a worker is replaced", extra={"worker": number, "after_s": delay_s})
                    joins = True
                    await self._pause(delay_s)

    async def _life(self, number: int, short_lives: int, *, joins: bool) -> End | None:
        """A worker from its start to its end; None where it had been told to leave."""
        command = [*self._command, *(["--joins"] if joins else [])]
        try:
            process = await WorkerProcess.start(number, command, self._inherited, self._told)
        except OSError as error:
            logger.error("no process for a worker", extra={"worker": number, "reason": str(error)})  # noqa: TRY400
            return self._ended(End(1, 0.0, short_lives, self._has_served(), self._serve()), "exit")
        self._processes[number] = process
        if self._stopping.is_set():  # meanwhile
            process.drain()
        process.ask()
        logger.info("a worker was started", extra={"worker": number, "worker_pid": process.pid})
        code = await process.run()
        del self._processes[number]
        if process.last is not None:
            self._tally.end(process.last.families)
        if self._stopping.is_set():
            if code:
                logger.error("a worker did not drain", extra={"worker": number, "exit_code": code})
                self._exit_code = self._exit_code or 1
            return None
        how = "wedged" if process.wedged else "signal" if code < 0 else "exit"
        logger.error("a worker ended unasked", extra={"worker": number, "exit_code": code, "reason": how})
        return self._ended(End(code, process.lived_s, short_lives, self._has_served(), self._serve()), how)

    def _ended(self, end: End, how: str) -> End:
        self._metrics.restarts.labels(how).inc()
        self._replaced += 1
        self._readiness.note(WORKERS, f"{self._replaced} ended unasked, the last one with code {end.code} ({how})")
        self._assess()
        return end

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    # -- all of them

    async def _look(self) -> None:
        """See once a second how they are; ends only by cancellation."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for process in list(self._processes.values()):
                process.look()
                if is_wedged(process.standing) and not process.wedged:
                    process.wedged = True
                    logger.error("a worker does not turn: killed", extra={"worker": process.number})
                    process.kill()
            self._assess()

    async def _ask(self) -> None:
        """Have the workers say how they are, as far as they do so in ASK_S. Who owes an answer is not waited for."""
        asked = [answer for process in self._processes.values() if (answer := process.ask()) is not None]
        if asked:
            await asyncio.wait(asked, timeout=ASK_S)
        self._assess()

    def _told(self) -> None:
        if self._serve():
            self._any_served.set()
        self._assess()

    def _assess(self) -> None:
        standings = [one.standing for one in self._processes.values()]
        self._metrics.workers.set(sum(one.listening and not one.late for one in standings))
        for condition, reason in conditions(standings, self._settings.ingest_workers).items():
            if condition == _DRAINING:
                continue  # ours says it for all
            if reason:
                self._readiness.fail(condition, reason)
            else:
                self._readiness.hold(condition)

    def _serve(self) -> bool:
        return any(one.standing.listening for one in self._processes.values())

    def _has_served(self) -> bool:
        return self._any_served.is_set()

    def _members(self) -> Mapping[str, Sequence[Family]]:
        told = {str(one.number): one.last.families for one in self._processes.values() if one.last is not None}
        return {"supervisor": families(self._own), **told}

    # -- the end

    def _stop(self) -> None:
        """Tell all workers to drain; again: nothing. Who has not by the bound is killed."""
        if self._stopping.is_set():
            return
        logger.info("draining", extra={"delay_s": self._settings.ingest_drain_delay_s})
        self._readiness.fail(_DRAINING, "shutting down")
        self._stopping.set()
        self._any_served.set()  # who waits for it need not
        for process in self._processes.values():
            process.drain()
        bound_s = self._settings.ingest_drain_delay_s + self._settings.http_deadline_s + _EXIT_SLACK_S
        asyncio.get_running_loop().call_later(bound_s, self._kill_all)

    def _kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()
