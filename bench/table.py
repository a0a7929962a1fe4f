"""The result as Markdown: one table of the figures to reach, and one a scenario. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.ratios import Spread, ratio, spread
from bench.runs import Run, latencies
from bench.scenarios import BOUNDS, SCENARIOS, TARGETS, Bound, Scenario, Target

_BESIDE = ("broker", "sink", "load")


def by_round(runs: Iterable[Run], scenario: str, case: str, subject: str) -> list[float | None]:
    """CPU a payload by round, None where a run failed or is missing."""
    found = {
        run.round: None if run.failed else run.cpu_us
        for run in runs
        if (run.scenario, run.case, run.subject) == (scenario, case, subject)
    }
    return [found.get(number) for number in range(max(found, default=-1) + 1)]


def figure(runs: Sequence[Run], target: Target) -> Spread | None:
    """The ratio that a target is about."""
    return ratio(
        by_round(runs, target.scenario, target.case, target.over),
        by_round(runs, target.scenario, target.case, target.under),
    )


def wanted(target: Target) -> str:
    """What a ratio has to be, in words."""
    if target.at_most is None:
        return "reported"
    return f"≤ {target.at_most:g}" + (f", then {target.then:g}" if target.then is not None else "")


def reached(target: Target, median: float) -> str:
    """Whether it is; where there are two steps, which of them."""
    if target.at_most is None:
        return ""
    if median > target.at_most:
        return "**no**"
    return "yes" if target.then is None else "both" if median <= target.then else "the first"


def targets(runs: Sequence[Run]) -> list[str]:
    """The table of ratios."""
    rows = []
    for target in TARGETS:
        found = figure(runs, target)
        if found is None:
            continue
        name = f"| {target.scenario}, {target.case} | {target.over} / {target.under}"
        figures = f"{found.median:.3g} | {found.low:.3g} to {found.high:.3g} | {found.count}"
        rows.append(f"{name} | {figures} | {wanted(target)} | {reached(target, found.median)} |")
    head = [
        "| what | CPU of / CPU of | ratio | spread | rounds | to reach | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def value(run: Run, bound: Bound) -> float | None:
    """The figure that a bound is about; None where the run has none."""
    found: Any = run.document()
    for name in bound.path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return None if found is None or run.failed else float(found)


def bounds(runs: Sequence[Run]) -> list[str]:
    """The table of figures that are no ratios."""
    rows = []
    for bound in BOUNDS:
        group = [
            run for run in runs if (run.scenario, run.case, run.subject) == (bound.scenario, bound.case, bound.subject)
        ]
        values = [one for run in group if (one := value(run, bound)) is not None]
        limit = f"≤ {bound.at_most:g}" if bound.at_most is not None else f"≥ {bound.at_least:g}"
        name = f"| {bound.scenario}, {bound.case} | {bound.subject} | {bound.what}"
        if values:
            found = spread(values)
            holds = "yes" if bound.holds(found.median) else "**no**"
            rows.append(f"{name} | {found.median:.3g} | {found.low:.3g} to {found.high:.3g} | {limit} | {holds} |")
        elif group:
            rows.append(f"{name} | failed | | {limit} | **no** |")
    head = ["| what | of | figure | median | spread | to reach | reached |", "|---|---|---|---|---|---|---|"]
    return [*head, *rows] if rows else []


def scenario_table(scenario: Scenario, runs: Sequence[Run]) -> list[str]:
    """One row a case and subject, in the order of their runs."""
    keys = list(dict.fromkeys((run.case, run.subject) for run in runs if run.scenario == scenario.name))
    rows = []
    for case, subject in keys:
        group = [run for run in runs if (run.scenario, run.case, run.subject) == (scenario.name, case, subject)]
        rows.append(_row(case, subject, group))
    if not rows:
        return []
    head = "| case | subject | µs of CPU a payload | runs | payloads/s | of which | beside it | MiB at most | more |"
    return [f"### {scenario.title}", "", head, "|---|---|---|---|---|---|---|---|---|", *rows, ""]


def _row(case: str, subject: str, group: Sequence[Run]) -> str:
    good = [run for run in group if not run.failed]
    if not good:
        reason = group[0].failed.splitlines()[0][:120]
        return f"| {case} | {subject} | failed | 0 of {len(group)} | | | | | {reason} |"
    cpu = [run.cpu_us for run in good if run.cpu_us is not None]
    shown = ""
    if cpu:
        found = spread(cpu)
        shown = f"{found.median:.1f} ({found.low:.1f} to {found.high:.1f})"
    rate = spread([run.per_s for run in good]).median
    count = f"{len(good)}" if len(good) == len(group) else f"{len(good)} of {len(group)}"
    own = _roles(good, [role for role in good[0].role_us if role not in _BESIDE])
    beside = _roles(good, [role for role in good[0].role_us if role in _BESIDE])
    peaks = _peaks(good)
    return f"| {case} | {subject} | {shown} | {count} | {rate:.0f} | {own} | {beside} | {peaks} | {_more(good)} |"


def _roles(runs: Sequence[Run], roles: Sequence[str]) -> str:
    return ", ".join(f"{role} {spread([run.role_us.get(role, 0.0) for run in runs]).median:.1f}" for role in roles)


def _peaks(runs: Sequence[Run]) -> str:
    roles = [role for role in runs[0].peaks_mib if role not in _BESIDE]
    return ", ".join(f"{role} {max(run.peaks_mib.get(role, 0.0) for run in runs):.0f}" for role in roles)


def _more(runs: Sequence[Run]) -> str:
    """Latencies of an open loop, and a scenario's own figures."""
    words = []
    found = latencies(runs)
    if found:
        words.append(", ".join(f"{name} {ms:.1f}" for name, ms in found.items()) + " ms")
    for name in runs[0].other:
        median = spread([run.other[name] for run in runs if name in run.other]).median
        words.append(f"{name} {median:.3g}")
    return "; ".join(words)


def document(runs: Sequence[Run], skipped: dict[str, str]) -> str:
    """All of it."""
    lines = [*targets(runs), "", *bounds(runs), ""]
    for scenario in SCENARIOS:
        lines += scenario_table(scenario, runs)
    lines += [f"Skipped: {subject}: {reason}" for subject, reason in skipped.items()]
    return "\n".join(lines)
