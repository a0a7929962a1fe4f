"""The benchmark's table and plots: what failed is never a figure, and every figure has its target beside it."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.__main__ import chosen, parsed
from bench.plots import plots
from bench.results import Result, merged, read
from bench.runs import Run
from bench.scenarios import SCENARIOS, TARGETS
from bench.table import bounds, document, figure, scenario_table, targets

CASE = "1 payload a request"


def run(subject: str, cpu_us: float | None, number: int = 0, **given: object) -> Run:
    """A run of the first scenario."""
    fields = {
        "payloads": 1000,
        "seconds": 2.0,
        "role_us": {"ingest": 10.0, "broker": 7.0},
        "peaks_mib": {"ingest": 90.0},
    }
    return Run("end-to-end", CASE, subject, number, cpu_us=cpu_us, **{**fields, **given})  # type: ignore[arg-type]


RUNS = [
    run("ours", 60, 0),
    run("go-seed", 120, 0),
    run("ours", 90, 1),
    run("go-seed", 180, 1),
    run("go-raw", None, 0, failed="3 objects of 4 payloads"),
]


def row_with(lines: list[str], text: str) -> str:
    """The one row that holds it."""
    (found,) = [line for line in lines if text in line]
    return found


def test_a_ratio_stands_beside_what_is_to_be_reached() -> None:
    """0.5 of at most 0.7; a subject without a good run has no row."""
    lines = targets(RUNS)
    assert row_with(lines, "ours / go-seed").endswith("| 0.5 | 0.5 to 0.5 | 2 | ≤ 0.7, then 0.5 | both |")
    assert not [line for line in lines if "go-raw" in line]


def test_a_figure_that_is_missed_says_so() -> None:
    """0.8 of at most 0.7, and 0.6 of at most 0.5 as the second step."""
    lines = targets([run("ours", 80), run("go-seed", 100)])
    assert row_with(lines, "ours / go-seed").endswith("| ≤ 0.7, then 0.5 | **no** |")
    lines = targets([run("ours", 60), run("go-seed", 100)])
    assert row_with(lines, "ours / go-seed").endswith("| ≤ 0.7, then 0.5 | the first |")


def test_a_ratio_without_a_figure_to_reach_is_reported() -> None:
    """Our pipeline on aiobotocore end to end: as low as it gets."""
    lines = targets([run("ours-aiobotocore", 400), run("go-seed", 100)])
    assert row_with(lines, "ours-aiobotocore / go-seed").endswith("| 4 | 4 to 4 | 1 | reported |  |")


def test_latencies_are_medians_of_the_rounds_of_an_open_loop() -> None:
    """63, 20 and 25 ms at the 99th percentile are 25; a closed loop's cannot see a stall, and are not shown."""
    reports = [{"rate": 100, "latency_ms": {"p50": 1, "p99": p99, "p99.9": 70}} for p99 in (63, 20, 25)]
    runs = [run("ours", 60, number, report=report) for number, report in enumerate(reports)]
    assert row_with(scenario_table(SCENARIOS[0], runs), "| ours |").endswith("| p50 1.0, p99 25.0, p99.9 70.0 ms |")
    closed = [run("ours", 60, report={**reports[0], "rate": 0})]
    assert row_with(scenario_table(SCENARIOS[0], closed), "| ours |").endswith("|  |")


def test_a_scenario_by_request_is_no_part_of_a_whole_run() -> None:
    """The product takes minutes of the budget of `make bench`; asked for by its name it runs."""
    assert "product" not in [scenario.name for scenario in chosen(parsed([]))]
    assert [scenario.name for scenario in chosen(parsed(["product"]))] == ["product"]


def test_a_quick_run_shortens_backlogs() -> None:
    """Each to a tenth, in the collections of twenty that fill them."""
    (upload,) = chosen(parsed(["upload", "--quick"]))
    counts = [count for case in upload.cases for count in case.records.values()]
    assert counts == [4000, 300, 4000, 300]
    assert not [count for count in counts if count % 20]


def test_a_failed_run_is_shown_as_failed() -> None:
    """With its reason, and without any number."""
    lines = scenario_table(SCENARIOS[0], RUNS)
    assert row_with(lines, "go-raw") == f"| {CASE} | go-raw | failed | 0 of 1 | | | | | 3 objects of 4 payloads |"


def test_one_failed_round_among_good_ones_is_counted() -> None:
    """2 of 3 runs: the figure is of the good ones, and the table says that one is missing."""
    lines = scenario_table(SCENARIOS[0], [*RUNS, run("ours", None, 2, failed="late")])
    row = row_with(lines, "| ours |")
    assert "| 75.0 (60.0 to 90.0) | 2 of 3 | 500 | ingest 10.0 | broker 7.0 | ingest 90 |" in row


def test_a_failed_round_is_no_part_of_a_ratio() -> None:
    """Its neighbour has nothing to be compared with."""
    runs = [run("ours", 60, 0), run("go-seed", None, 0, failed="x"), run("ours", 90, 1), run("go-seed", 90, 1)]
    found = figure(runs, TARGETS[0])
    assert found is not None
    assert (found.median, found.count) == (1.0, 1)


def test_who_was_skipped_is_named_with_the_reason() -> None:
    """Never silently."""
    assert "Skipped: go-seed: go not found" in document(RUNS, {"go-seed": "go not found"})


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.scenario}-{target.case}-{target.over}")
def test_every_target_is_about_something_that_is_run(target: object) -> None:
    """A typing error in a name would take a figure out of the table without a word."""
    wanted = [(s.name, case.name, name) for s in SCENARIOS for case in s.cases for name in case.subjects]
    assert (target.scenario, target.case, target.over) in wanted  # type: ignore[attr-defined]
    assert (target.scenario, target.case, target.under) in wanted  # type: ignore[attr-defined]


def test_plots_are_svg_with_every_good_row() -> None:
    """Parsed as XML; the failed subject has no bar."""
    (picture,) = plots(RUNS).values()
    texts = [element.text or "" for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - our own
    assert f"{CASE}: ours" in texts
    assert f"{CASE}: go-raw" not in texts


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every run, whole."""
    result = Result({"cores": 2}, {"python": "3.11"}, RUNS, {"camel": "no jars"}, 12)
    result.write(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == result


def test_a_scenario_that_runs_again_replaces_all_of_its_old_runs() -> None:
    """Only ratios of one run count: old and new runs of one scenario never meet."""
    put = Run("put", "TLS", "wire")
    assert merged([*RUNS, put], [run("ours", 1)]) == [put, run("ours", 1)]


def bounded(seconds: float, **given: object) -> Run:
    """The headline's run, that took so long."""
    return Run("headline", "1,000,000 requests", "ours-ingest", report={"seconds": seconds}, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "reached"), [(60.4, "yes"), (61.0, "yes"), (61.1, "**no**"), (109.0, "**no**")])
def test_a_figure_that_is_no_ratio_has_its_bound(seconds: float, reached: str) -> None:
    """A million in 109 s is no million a minute, however clean its answers are."""
    (row,) = bounds([bounded(seconds)])[2:]
    assert row.endswith(f"| ≤ 61 | {reached} |")


def test_a_bound_from_below() -> None:
    """Little's law wants at least nine tenths."""
    runs = [
        Run("in-flight", "512 in flight", "wire", number, other={"little": 0.8 + number / 10}) for number in (0, 1, 2)
    ]
    (row,) = bounds(runs)[2:]
    assert row.endswith("| 0.9 | 0.8 to 1 | ≥ 0.9 | yes |")


def test_a_failed_run_reaches_no_bound() -> None:
    """Also where its figure would."""
    (row,) = bounds([bounded(59, failed="1 of 2 acknowledged")])[2:]
    assert "| failed |" in row
    assert row.endswith("| **no** |")
