"""Plots of a result as SVG text: bars of CPU by role, and of latencies by load. Pure; no library for one shape.

Colours read on a white and on a dark page; every bar has its figure as text, so none hangs on a colour alone.
"""

from collections.abc import Mapping, Sequence
from html import escape

from bench.ratios import spread
from bench.runs import Run, latencies
from bench.scenarios import SCENARIOS, Kind

_WIDTH, _LEFT, _BAR, _GAP, _TOP = 760, 250, 20, 8, 54
_COLOURS = ("#3b82c4", "#e08a3c", "#5aa469", "#8e6bbf", "#9aa0a6", "#c06c84", "#7f7f7f")
_BESIDE = ("broker", "sink", "load")
_INK = "#6b7280"


def plots(runs: Sequence[Run]) -> dict[str, str]:
    """File names and their SVG."""
    found = {}
    for scenario in SCENARIOS:
        mine = [run for run in runs if run.scenario == scenario.name and not run.failed]
        if not mine:
            continue
        if scenario.kind is Kind.RAMP:
            found[f"{scenario.name}.svg"] = ramp(scenario.title, mine)
        elif scenario.kind in (Kind.END_TO_END, Kind.INGEST, Kind.DRAIN):
            found[f"{scenario.name}.svg"] = bars(scenario.title + ": µs of CPU a payload", medians(mine))
    return found


def medians(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Microseconds by role of each case and subject; what stands beside the subject is left out."""
    keys = dict.fromkeys((run.case, run.subject) for run in runs)
    found = {}
    for case, subject in keys:
        group = [run for run in runs if (run.case, run.subject) == (case, subject)]
        roles = [role for role in group[0].role_us if role not in _BESIDE]
        found[f"{case}: {subject}"] = {
            role: spread([run.role_us.get(role, 0.0) for run in group]).median for role in roles
        }
    return found


def bars(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked bars, one a row, with a legend of the roles."""
    roles = list(dict.fromkeys(role for parts in rows.values() for role in parts))
    largest = max((sum(parts.values()) for parts in rows.values()), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - 80) / largest
    drawn = [_text(10, 20, title, size=14), *_legend(roles)]
    for number, (name, parts) in enumerate(rows.items()):
        y, x = _TOP + number * (_BAR + _GAP), float(_LEFT)
        drawn.append(_text(_LEFT - 8, y + 15, name, anchor="end"))
        for role, value in parts.items():
            width = max(value, 0.0) * scale
            drawn.append(_box(x, y, width, _BAR, _COLOURS[roles.index(role) % len(_COLOURS)]))
            x += width
        drawn.append(_text(x + 6, y + 15, f"{sum(parts.values()):.1f}"))
    return _svg(_TOP + len(rows) * (_BAR + _GAP) + 6, drawn)


def ramp(title: str, runs: Sequence[Run]) -> str:
    """Percentiles at each offered rate, as bars."""
    rows: dict[str, dict[str, float]] = {}
    for case in dict.fromkeys(run.case for run in runs):
        group = [run for run in runs if run.case == case]
        rate = spread([run.per_s for run in group]).median
        for name, ms in latencies(group).items():
            rows[f"{case} ({rate:.0f}/s) {name}"] = {name: ms}
    return bars(title + ": milliseconds", rows)


def _legend(roles: Sequence[str]) -> list[str]:
    drawn = []
    for number, role in enumerate(roles):
        x = _LEFT + number * 110
        drawn += [_box(x, 30, 12, 12, _COLOURS[number % len(_COLOURS)]), _text(x + 18, 40, role)]
    return drawn


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="{height:.0f}" fill="{colour}"/>'


def _svg(height: int, drawn: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">'
    return "\n".join([head, *drawn, "</svg>", ""])
