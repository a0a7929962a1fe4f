"""How a job shows that it works: bars on a terminal, log lines in JSON elsewhere; never where results go.

Owns the clock of its lines. Knows nothing of Kafka or S3: it is handed values.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

LINES_EVERY_S = 5.0
SPEED_OVER_S = 10.0


@dataclass(frozen=True, slots=True)
class View:
    """A job at one moment.

    Attributes:
        partitions: offsets settled, and offsets in all, by partition.
        records: that need nothing more, of this run.
        bytes: written in this run.
        errors: puts and questions that failed and were tried again.
        rate: records a second, lately.
        seconds_left: at that rate; None: not known.
        trouble: why it does not get on; empty while it does.

    """

    partitions: Mapping[int, tuple[int, int]]
    records: int
    bytes: int
    errors: int
    rate: float
    seconds_left: float | None
    trouble: str = ""


class Display(Protocol):
    """Where a job shows itself; a context manager while it runs."""

    def show(self, view: View) -> None:
        """The job stands there now."""
        ...

    def close(self) -> None:
        """The job is over; the last view stays."""
        ...


class Lines:
    """One log line every LINES_EVERY_S seconds, and one at the end."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._due_s = 0.0  # monotonic
        self._last: View | None = None  # not told yet

    def show(self, view: View) -> None:
        """Tell, if it is time."""
        now_s = time.monotonic()
        self._last = view
        if now_s >= self._due_s:
            self._due_s = now_s + LINES_EVERY_S
            self._tell(view)

    def close(self) -> None:
        """Tell the last view."""
        if self._last is not None:
            self._tell(self._last)

    def _tell(self, view: View) -> None:
        self._last = None
        log.info(
            "progress",
            extra={
                "job": self._job,
                "offsets_done": sum(at for at, _ in view.partitions.values()),
                "offsets": sum(size for _, size in view.partitions.values()),
                "records": view.records,
                "bytes": view.bytes,
                "errors": view.errors,
                "records_per_s": round(view.rate, 1),
                "seconds_left": None if view.seconds_left is None else round(view.seconds_left),
                "trouble": view.trouble,
                "partitions": {str(partition): list(at) for partition, at in view.partitions.items()},
            },
        )


class Bars:
    """A bar a partition, and a line for the whole."""

    def __init__(self, job: str) -> None:
        from rich.console import Console  # noqa: PLC0415 - 100 ms that only a terminal needs
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - as above

        self._job = job
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[int, int] = {}  # rich's number of the bar, by partition; -1 is the whole
        self._progress.start()

    def show(self, view: View) -> None:
        """Draw."""
        done = sum(at for at, _ in view.partitions.values())
        size = sum(each for _, each in view.partitions.values())
        left = "" if view.seconds_left is None else f", {duration(view.seconds_left)} left"
        note = f"{view.records} records, {view.bytes} bytes, {view.rate:.0f}/s, {view.errors} errors{left}"
        self._bar(-1, self._job, done, size, f"{note}  {view.trouble}".rstrip())
        for partition, (at, each) in view.partitions.items():
            self._bar(partition, f"  partition {partition}", at, each, "")

    def close(self) -> None:
        """Leave the terminal as it is."""
        self._progress.stop()

    def _bar(self, number: int, name: str, done: int, size: int, note: str) -> None:
        from rich.progress import TaskID  # noqa: PLC0415 - as above

        if number not in self._tasks:
            self._tasks[number] = self._progress.add_task(name, total=size, note=note)
        self._progress.update(TaskID(self._tasks[number]), completed=done, total=size, note=note)


def display_of(job: str) -> Display:
    """Bars where standard error is a terminal, else lines."""
    return Bars(job) if sys.stderr.isatty() else Lines(job)


def duration(seconds: float) -> str:
    """For people: `1 h 05 min`, `4 min 10 s`, `7 s`."""
    whole = round(seconds)
    if whole >= 3600:  # noqa: PLR2004 - an hour
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"  # noqa: PLR2004 - a minute


class Speed:
    """Records a second over the last SPEED_OVER_S seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()  # when, and how many by then; the oldest left

    def of(self, count: int, now_s: float) -> float:
        """The rate, with `count` records done by now (monotonic seconds)."""
        self._counts.append((now_s, count))
        while len(self._counts) > 2 and now_s - self._counts[1][0] >= SPEED_OVER_S:  # noqa: PLR2004 - a rate needs two
            self._counts.popleft()
        since_s, before = self._counts[0]
        return (count - before) / (now_s - since_s) if now_s > since_s else 0.0
