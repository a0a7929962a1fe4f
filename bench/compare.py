"""Do two whole runs say the same? The ratio of every target in both, and by how much they differ. Measures nothing.

`python -m bench.compare first/results.json second/results.json`; exit code 1 if any differs by more than a tenth.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.results import read
from bench.runs import Run
from bench.scenarios import TARGETS, Target
from bench.table import figure

DIFFERENCE_MAX = 0.1


def differences(first: Sequence[Run], second: Sequence[Run]) -> list[tuple[Target, float, float, float]]:
    """Each target that both runs have: its ratio in each, and the difference in parts of the smaller one."""
    found = []
    for target in TARGETS:
        one, other = figure(first, target), figure(second, target)
        if one is not None and other is not None:
            low, high = sorted((one.median, other.median))
            found.append((target, one.median, other.median, high / low - 1))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row a ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    arguments = parser.parse_args(argv)
    found = differences(read(arguments.first).runs, read(arguments.second).runs)
    print("| what | CPU of / CPU of | first | second | differ by |")
    print("|---|---|---|---|---|")
    for target, one, other, by in found:
        shown = f"**{by:.0%}**" if by > DIFFERENCE_MAX else f"{by:.0%}"
        names = f"{target.scenario}, {target.case} | {target.over} / {target.under}"
        print(f"| {names} | {one:.3g} | {other:.3g} | {shown} |")
    return int(not found or any(by > DIFFERENCE_MAX for *_, by in found))


if __name__ == "__main__":
    sys.exit(main())
