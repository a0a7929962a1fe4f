"""Says how the benchmark comes along: bars on a terminal, a JSON line a run elsewhere."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.runs import Run


class Reporter(Protocol):
    """Told of every run."""

    def begun(self, scenario: str, runs: int) -> None:
        """A scenario of about so many runs."""

    def ran(self, run: Run) -> None:
        """One is done."""

    def skipped(self, scenario: str, subject: str, reason: str) -> None:
        """A subject cannot be had."""


def summary(run: Run) -> str:
    """One line of a run."""
    if run.failed:
        return f"{run.case}, {run.subject}: FAILED: {run.failed}"
    figures = ([f"{run.cpu_us:.1f} µs"] if run.cpu_us is not None else []) + [f"{run.per_s:.0f}/s"]
    return f"{run.case}, {run.subject}: {', '.join(figures)}"


class Lines:
    """JSON lines on standard error: standard output is the table's."""

    def begun(self, scenario: str, runs: int) -> None:
        """See Reporter."""
        self._say({"event": "scenario", "name": scenario, "runs": runs})

    def ran(self, run: Run) -> None:
        """See Reporter."""
        rounded = None if run.cpu_us is None else round(run.cpu_us, 2)
        self._say(
            {
                "event": "run",
                "scenario": run.scenario,
                "case": run.case,
                "subject": run.subject,
                "round": run.round,
                "payloads": run.payloads,
                "seconds": round(run.seconds, 2),
                "cpu_us": rounded,
                "role_us": {role: round(us, 2) for role, us in run.role_us.items()},
                "failed": run.failed,
            }
        )

    def skipped(self, scenario: str, subject: str, reason: str) -> None:
        """See Reporter."""
        self._say({"event": "skipped", "scenario": scenario, "subject": subject, "reason": reason})

    def _say(self, event: dict[str, object]) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)


class Bars:
    """A bar a scenario, and the last run beside it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, last="")

    def begun(self, scenario: str, runs: int) -> None:
        """See Reporter."""
        self._task = self._progress.add_task(scenario, total=runs, last="")

    def ran(self, run: Run) -> None:
        """See Reporter."""
        self._progress.update(self._task, advance=1, last=summary(run)[:90])
        if run.failed:
            self._progress.console.print(f"[red]{run.scenario}[/]: {summary(run)}")

    def skipped(self, scenario: str, subject: str, reason: str) -> None:
        """See Reporter."""
        self._progress.console.print(f"[yellow]skipped[/] {scenario}, {subject}: {reason}")


@contextlib.contextmanager
def reporter() -> Iterator[Reporter]:
    """Bars where a person looks, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)
