"""Alert rules and dashboard: they ask for what the code has, lead to pages that exist, and fire when they should.

All but the firing is checked without Prometheus. Where `promtool` is on PATH it runs the rules' own tests, too.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.monitoring.dashboard import COLUMNS, FILE, dashboard, rendered
from services.ingest.problems import Code
from services.uploader.retry import Kind
from shared.ops import Readiness
from shared.telemetry import IngestMetrics, UploaderMetrics, WorkerMetrics, process_registry
from tests.harness.processes import ROOT
from tests.harness.promtool import needs_promtool, promtool
from tests.harness.readme import families

DIRECTORY = ROOT / "deploy/monitoring"
RULES = sorted((DIRECTORY / "rules").glob("*.yaml"))
TESTS = sorted((DIRECTORY / "rules/tests").glob("*.yaml"))
PAGES = ROOT / "docs/operations"
RUNBOOKS = "https://spillway.example/docs/operations/"

Json = dict[str, Any]

# -- what there is


def _registered() -> Iterator[tuple[str, set[str], str]]:
    """Every sample's name, its labels, and what its metric says of itself."""
    suffixes = {
        "counter": {"_total", "_created"},
        "gauge": {""},
        "histogram": {"_bucket", "_count", "_sum", "_created"},
    }
    for family in process_registry(Readiness("any")).collect():
        for suffix in suffixes.get(family.type, {""}):
            labels = {label for sample in family.samples for label in sample.labels}
            yield family.name + suffix, labels, family.documentation
    for metrics in (
        IngestMetrics(CollectorRegistry()),
        WorkerMetrics(CollectorRegistry()),
        UploaderMetrics(CollectorRegistry()),
    ):
        for family, names in families(metrics):
            for suffix in suffixes[family.type]:
                labels = set(names) | ({"le"} if suffix == "_bucket" else set())
                yield family.name + suffix, labels, family.documentation


REGISTERED = {name: labels for name, labels, _ in _registered()}
OUTCOMES = {
    word
    for _, labels, text in _registered()
    if "outcome" in labels
    for word in re.findall(r"\w+", text.partition("(")[2])
}
"""Where the code lists them: in parentheses."""
RULE_LIST = [
    (path, rule)
    for path in RULES
    for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDS: Mapping[str, Json] = {rule["record"]: rule for _, rule in RULE_LIST if "record" in rule}
ALERTS: Mapping[str, Json] = {rule["alert"]: rule for _, rule in RULE_LIST if "alert" in rule}
FILES = {rule["alert"]: path.name for path, rule in RULE_LIST if "alert" in rule}

TARGET_LABELS = {"namespace", "job", "instance"}
"""What Prometheus gives every series, as the README asks for."""


def labels_of(name: str) -> set[str]:
    """The labels of a metric or a recorded figure; KeyError where there is no such thing."""
    if name in RECORDS:
        return {"namespace", "job"} if name.startswith("job:") else set()
    return REGISTERED[name] | TARGET_LABELS


# -- PromQL, as far as it is used here

_WORDS = frozenset(
    re.findall(
        r"\w+",
        """and or unless on bool offset by group_left sum min max count topk bottomk rate increase deriv changes time
        vector avg_over_time max_over_time last_over_time absent_over_time histogram_quantile""",
    )
)
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"\b([a-z_][\w:]*)\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def grouped_by(expression: str) -> set[str]:
    return {label.strip() for found in _GROUPING.findall(expression) for label in found.split(",")} - {""}


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Names of metrics with their matchers; a word that is no word of PromQL counts as a name."""
    bare = re.sub(r"\[\w+\]|\boffset \w+|\bgroup_left\b", " ", _GROUPING.sub(" ", expression))
    found = [(name, _MATCHER.findall(inside or "")) for name, inside in _SELECTOR.findall(bare)]
    return [(name, matchers) for name, matchers in found if name not in _WORDS]


def metrics_of(expression: str) -> set[str]:
    """The registered names that an expression depends on, through recorded figures too."""
    names = {name for name, _ in selectors(expression)}
    recorded = {name for name in names if name in RECORDS}
    return (names - recorded).union(*(metrics_of(RECORDS[name]["expr"]) for name in recorded))


def dashboard_expressions() -> list[tuple[str, str]]:
    """Title and query of every panel."""
    panels: Any = dashboard()["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


EXPRESSIONS = [
    *((rule.get("alert") or rule["record"], rule["expr"]) for _, rule in RULE_LIST),
    *dashboard_expressions(),
]


def _allowed(label: str) -> set[str] | None:
    """Values that a label may be compared with; None: any."""
    match label:
        case "code":
            return {code.name.lower() for code in Code} | {""}
        case "status":
            return {str(code.value.status) for code in Code} | {"200", "4.."}
        case "kind":
            return {kind.value for kind in Kind}
        case "outcome":
            return OUTCOMES
    return None


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=lambda value: value[:40])
def test_an_expression_asks_for_what_there_is(where: str, expression: str) -> None:
    """Metrics that the registries have, labels that these metrics have, and values that they can take."""
    found = selectors(expression)
    assert found, where
    assert [name for name, _ in found if name not in REGISTERED and name not in RECORDS] == []
    for name, matchers in found:
        for label, _, value in matchers:
            assert label in labels_of(name), f"{name} has no label {label}"
            allowed = _allowed(label)
            assert value.startswith("$") or allowed is None or set(value.split("|")) <= allowed, (name, label, value)
    every: set[str] = set().union(*(labels_of(name) for name, _ in found))
    assert grouped_by(expression) <= every


def test_the_reader_of_promql_sees_a_fault() -> None:
    """A wrong name, a wrong label in braces and one in `by`: what the test above stands on."""
    assert selectors('sum by (a) (rate(no_such_total{x=~"1|2"}[5m] offset 1h)) > 3') == [
        ("no_such_total", [("x", "=~", "1|2")])
    ]
    assert grouped_by("sum by (a, b) (x) / on (c) group_left y") == {"a", "b", "c"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_recorded_figure_has_the_labels_of_its_name(name: str) -> None:
    """`job:` keeps namespace and job, and no more; a window in the name is the one that is asked for."""
    expression = RECORDS[name]["expr"]
    if name.startswith("job:"):
        outer = re.match(r"(?:1 - \(?\s*)?(?:\w+ by \(namespace, job\)|avg_over_time\(job:)", expression)
        assert outer, expression
    window = re.search(r":(?:rate|ratio_rate|ratio_avg)(\w+)$", name)
    if window:
        assert set(re.findall(r"\[(\w+)\]", expression)) == {window[1]}


# -- what a person gets


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_seen_and_done_first(alert: str) -> None:
    """Severity, summary, description with the first step; what is filled in is a label that the result has."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert re.search(r"\b[Ff]irst (?!of)\w+", rule["annotations"]["description"])
    results = grouped_by(rule["expr"]) | {"namespace", "job"}
    assert set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))) <= results


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_place_in_a_page(alert: str) -> None:
    """The page is there, with a heading of the alert's name; GitHub makes the anchor of it."""
    page, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].removeprefix(RUNBOOKS).partition("#")
    assert anchor == alert.lower()
    assert f"### {alert}\n" in (PAGES / page).read_text("utf-8")


def test_no_page_has_an_alert_that_is_gone() -> None:
    """Headings in docs/operations, the README's table, and the rules name the same alerts, each once."""
    headings = [
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"^### (Spillway\w+)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    row = r"^\| `(Spillway\w+)` \| (\w+) \| .+ \| \[[\w-]+\]\(\.\./\.\./docs/operations/(\S+)\) \|$"
    table = re.findall(row, (DIRECTORY / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    assert sorted(table) == sorted(
        (name, rule["labels"]["severity"], rule["annotations"]["runbook_url"].removeprefix(RUNBOOKS))
        for name, rule in ALERTS.items()
    )


def test_what_calls_nobody_silences_nothing_that_does() -> None:
    """A warning may not inhibit a critical alert, nor the clock of retention be inhibited: the README's rules."""
    (block,) = re.findall(r"```yaml\n(inhibit_rules:.*?)```", (DIRECTORY / "README.md").read_text("utf-8"), re.DOTALL)
    for rule in yaml.safe_load(block)["inhibit_rules"]:
        source, target = (_matched(rule[side]) for side in ("source_matchers", "target_matchers"))
        assert source, rule
        assert target, rule
        assert not any(name.startswith("SpillwayRetention") for name in target)
        if {ALERTS[name]["labels"]["severity"] for name in source} != {"critical"}:
            assert {ALERTS[name]["labels"]["severity"] for name in target} == {"warning"}, rule


def _matched(matchers: list[str]) -> list[str]:
    (names,) = [found[1] for each in matchers if (found := re.fullmatch(r'alertname=~?"(.+)"', each))]
    return [name for name in ALERTS if re.fullmatch(names, name)]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_wait_has_its_reason(path: Path) -> None:
    """Each alert has a `for`, and a comment beside it says why so long."""
    text = path.read_text("utf-8")
    waits = re.findall(r"^        for: \d+m(.*)$", text, re.MULTILINE)
    assert len(waits) == text.count("- alert: ")
    assert [wait for wait in waits if not re.fullmatch(r" # \w.{15,}", wait)] == []


def test_kafka_away_means_every_code_of_kafka() -> None:
    """A new code about brokers or the topic must not go unheard."""
    codes = {
        code.name.lower() for code in Code if code.value.status == 503 and code.name.startswith(("KAFKA", "TOPIC"))
    }
    (named,) = re.findall(r'code=~"([^"]+)"', ALERTS["SpillwayKafkaAway"]["expr"])
    assert set(named.split("|")) == codes


# -- the rules' own tests


def _cases() -> Iterator[tuple[str, bool, str, Json]]:
    """Alert, whether it shall fire, the file of its test, the scenario."""
    for path in TESTS:
        document = yaml.safe_load(path.read_text("utf-8"))
        for scenario in document["tests"]:
            for asked in scenario["promql_expr_test"]:
                (alert,) = re.findall(r'^ALERTS\{alertname="(\w+)", alertstate="firing"\}$', asked["expr"])
                assert f"../{FILES[alert]}" in document["rule_files"]
                yield alert, bool(asked["exp_samples"]), path.name, scenario


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_seen_to_fire_and_not_to_fire(alert: str) -> None:
    """In scenarios in which what it asks for is told at some time: nothing fires of nothing."""
    needed = metrics_of(ALERTS[alert]["expr"])
    outcomes = set()
    for named, fires, _, scenario in _cases():
        given = {series["series"].partition("{")[0] for series in scenario["input_series"]}
        if named == alert and (fires or needed & given):
            outcomes.add(fires)
    assert outcomes == {True, False}


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    """`promtool check rules`: expressions and templates are parsed."""
    promtool("check", "rules", *RULES)


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_alerts_fire_when_they_should(path: Path) -> None:
    """`promtool test rules`."""
    promtool("test", "rules", path)


@needs_promtool
def test_prometheus_takes_the_dashboards_queries(tmp_path: Path) -> None:
    """Each as a rule of its own: only Prometheus knows whether they parse."""
    rules = [{"record": f"q{number}", "expr": query} for number, (_, query) in enumerate(dashboard_expressions())]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    promtool("check", "rules", path)


# -- the dashboard


def test_the_dashboard_is_the_generators() -> None:
    """Mend a difference with `.venv/bin/python -m deploy.monitoring.dashboard`."""
    assert FILE.read_text("utf-8") == rendered()


def test_the_dashboard_reads_in_the_order_of_an_outage() -> None:
    """Safe, how full, in and out, S3, errors, saturation; every panel says what it means."""
    panels: Any = dashboard()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == [
        "Is data safe?",
        "How full is the reservoir?",
        "Inflow and outflow",
        "S3",
        "Errors",
        "Saturation",
    ]
    assert {panel["type"] for panel in panels} <= {"row", "stat", "timeseries"}  # all of Grafana's own
    assert [panel["title"] for panel in panels if panel["type"] != "row" and len(panel["description"]) < 20] == []


def test_no_panel_lies_on_another() -> None:
    """Ids are unique, and boxes of the grid apart."""
    panels: Any = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] + box["w"] <= COLUMNS for box in boxes)
    for one, two in combinations(boxes, 2):
        across = one["x"] < two["x"] + two["w"] and two["x"] < one["x"] + one["w"]
        down = one["y"] < two["y"] + two["h"] and two["y"] < one["y"] + one["h"]
        assert not (across and down), (one, two)


@pytest.mark.parametrize(("title", "query"), dashboard_expressions(), ids=lambda value: value[:40])
def test_a_panel_follows_the_variables(title: str, query: str) -> None:
    """Every metric is narrowed to the chosen namespaces and jobs."""
    chosen = {("namespace", "=~", "$namespace"), ("job", "=~", "$job")}
    missed = [name for name, matchers in selectors(query) if labels_of(name) and not chosen <= set(matchers)]
    assert missed == [], title


def test_the_dashboard_needs_nothing_of_this_place() -> None:
    """Its data source is a variable, and nothing in it names a host."""
    text = FILE.read_text("utf-8")
    assert set(re.findall(r'"uid": "([^"]+)"', text)) == {"spillway", "${datasource}"}
    assert "http" not in text
