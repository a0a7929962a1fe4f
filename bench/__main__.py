"""`make bench`: everything that this machine can run, in one table. `make bench ARGS="end-to-end put --rounds 5"`.

Prints the table, and writes it with every run into a folder (`--output`): results.json, table.md, one SVG a plot.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import flame
from bench.building import build_tools
from bench.machine import machine, versions
from bench.plots import plots
from bench.processes import ROOT, BenchError
from bench.progress import Reporter, reporter
from bench.results import Result, merged, read
from bench.rounds import run_scenario
from bench.runs import Run
from bench.scenarios import SCENARIOS, Scenario
from bench.stand import Stand, stand
from bench.table import document
from deploy.local.process import StartError

DOCS = ROOT / "docs" / "benchmarks"
_ELSEWHERE = ROOT / ".cache" / "bench" / "result"
_QUICK_SECONDS = 0.5
_QUICK_SHARE = 0.1  # of a backlog


class _Remembering:
    """A reporter that also keeps who was skipped, for the table."""

    def __init__(self, inner: Reporter, skipped: dict[str, str]) -> None:
        self._inner, self._skipped = inner, skipped

    def begun(self, scenario: str, runs: int) -> None:
        """See Reporter."""
        self._inner.begun(scenario, runs)

    def ran(self, run: Run) -> None:
        """See Reporter."""
        self._inner.ran(run)

    def skipped(self, scenario: str, subject: str, reason: str) -> None:
        """See Reporter."""
        self._skipped[subject] = reason
        self._inner.skipped(scenario, subject, reason)


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", choices=[[], *names, "flame"], help=f"of {', '.join(names)}, flame")
    parser.add_argument("--rounds", type=int, help="of each case, instead of the scenario's own number")
    parser.add_argument("--subjects", nargs="+", help="only these")
    parser.add_argument("--quick", action="store_true", help="one short round of each: does everything run?")
    parser.add_argument(
        "--output", type=Path, help="folder; a whole run's is docs/benchmarks, else .cache/bench/result"
    )
    return parser.parse_args(argv)


def chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """The scenarios as the arguments want them."""
    found = []
    for scenario in SCENARIOS:
        if scenario.name not in arguments.scenarios and (arguments.scenarios or scenario.by_request):
            continue
        rounds = 1 if arguments.quick else arguments.rounds or scenario.rounds
        cases = []
        for case in scenario.cases:
            subjects = tuple(name for name in case.subjects if not arguments.subjects or name in arguments.subjects)
            if subjects:
                short = case.shortened(_QUICK_SECONDS, _QUICK_SHARE) if arguments.quick else case
                cases.append(dataclasses.replace(short, subjects=subjects))
        if cases:
            found.append(dataclasses.replace(scenario, cases=tuple(cases), rounds=rounds))
    return found


def run_all(here: Stand, report: Reporter, scenarios: Sequence[Scenario], result: Result) -> None:
    """Every scenario; one that breaks does not end the others."""
    for scenario in scenarios:
        try:
            for run in run_scenario(here, report, scenario):
                result.runs.append(run)
        except (BenchError, StartError) as error:
            failed = Run(scenario.name, scenario.cases[0].name, "all", failed=str(error))
            result.runs.append(failed)
            report.ran(failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write."""
    arguments = parsed(argv)
    whole = not arguments.scenarios and not arguments.subjects and not arguments.quick
    output: Path = arguments.output or (DOCS if whole else _ELSEWHERE)
    output.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    result = Result(machine(), versions())
    wants_flames = whole or "flame" in arguments.scenarios
    only_flames = arguments.scenarios == ["flame"]
    try:
        tools = build_tools()
        with stand(tools) as here, reporter() as shown:
            report = _Remembering(shown, result.skipped)
            if not only_flames:
                run_all(here, report, chosen(arguments), result)
            if wants_flames:
                flame.record(here, report, output)
    except (BenchError, StartError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    if only_flames:
        return 0
    result.seconds = time.monotonic() - began_s
    finish(result, output, whole=whole)
    return int(any(run.failed for run in result.runs))


def finish(result: Result, output: Path, *, whole: bool) -> None:
    """Print and write; the runs of scenarios that were left out this time are kept in the file."""
    text = document(result.runs, result.skipped)
    print(text)
    print(f"\n{result.seconds / 60:.1f} minutes; every run in {output}", file=sys.stderr)
    path = output / "results.json"
    if not whole and path.exists():
        result.runs = merged(read(path).runs, result.runs)
    result.write(path)
    (output / "table.md").write_text(document(result.runs, result.skipped) + "\n", encoding="utf-8")
    for name, picture in plots(result.runs).items():
        (output / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
