"""docs/security.md says what the tests hold."""

import re

import yaml

from tests.harness.acls import needed
from tests.harness.broker import Topic
from tests.harness.processes import ROOT

PAGE = (ROOT / "docs/security.md").read_text("utf-8")
CITED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_cited_tests_are_there() -> None:
    """Every `file::test` of the page, and the page cites many."""
    cited = set(CITED.findall(PAGE))
    assert len(cited) > 30
    missing = [
        f"{file}::{name}"
        for file, name in cited
        if not (ROOT / file).exists() or not re.search(rf"def {name}\(", (ROOT / file).read_text("utf-8"))
    ]
    assert missing == []
    assert PAGE.count("::") == len(CITED.findall(PAGE)) + 1  # and none that is written otherwise; one explains them


def test_the_grants_are_those_that_the_tests_give() -> None:
    """The table of ACLs, row by row."""
    names = {"P": "KAFKA_TOPIC", "D": "KAFKA_DEAD_TOPIC", "G": "KAFKA_GROUP_ID"}
    rows: dict[tuple[str, str, str], list[str]] = {}
    topic = Topic("", "T", 1)
    variables = {topic.name: names["P"], topic.dead: names["D"], topic.group: names["G"]}
    for user, kind, name, operation in needed(topic):
        rows.setdefault((user, kind.name.lower(), variables[name]), []).append(operation.name)
    table = PAGE.split("<!-- grants -->\n")[1].split("<!-- /grants -->")[0].splitlines()[2:]
    assert table == [f"| {user} | {kind} `{name}` | {', '.join(may)} |" for (user, kind, name), may in rows.items()]


def test_every_setting_of_the_page_is_one() -> None:
    """Variables in the page are in the README's table, or are AWS's own."""
    named = set(re.findall(r"`((?:KAFKA|INGEST|UPLOADER|MAX|S3|HEAD|BODY|KEEP)_[A-Z_0-9]+)", PAGE))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in sorted(named) if f"| `{name}` |" not in readme] == []


def test_no_service_has_the_ops_port() -> None:
    """What the public Service gives is the public port alone."""
    services = [
        document
        for path in (ROOT / "deploy/kubernetes").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text("utf-8"))
        if document and document.get("kind") == "Service"
    ]
    assert services
    for service in services:
        for port in service["spec"]["ports"]:
            assert port.get("targetPort", port["port"]) not in ("ops", 8081, 8082), service["metadata"]["name"]
            assert port["port"] not in (8081, 8082), service["metadata"]["name"]
