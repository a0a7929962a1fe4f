"""The result of a benchmark as a value, and as JSON: the machine, the versions, every run. Measures nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.runs import Run


@dataclass(slots=True)
class Result:
    """Everything that one benchmark found. `skipped`: reasons by subject."""

    machine: dict[str, Any]
    versions: dict[str, str]
    runs: list[Run] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """As JSON, one run a line: a diff shows which moved."""
        head = {"machine": self.machine, "versions": self.versions, "skipped": self.skipped}
        text = json.dumps(head | {"seconds": round(self.seconds)}, indent=1)[:-2]
        runs = ",\n".join(json.dumps(_rounded(run.document())) for run in self.runs)
        path.write_text(f'{text},\n "runs": [\n{runs}\n]}}\n', encoding="utf-8")


def read(path: Path) -> Result:
    """What `write` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    runs = [Run(**run) for run in found["runs"]]
    return Result(found["machine"], found["versions"], runs, found["skipped"], found["seconds"])


def merged(before: Sequence[Run], now: Sequence[Run]) -> list[Run]:
    """Runs of scenarios that were not run again stay; each keeps company with its own scenario's only."""
    again = {run.scenario for run in now}
    return [*(run for run in before if run.scenario not in again), *now]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return value
