"""What the fuzzers share: one ingest, one topic, and the count of what was answered, shown at the end of the run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.sizes import SWITCH, Sizes, chosen
from tests.fuzz.target import ITEMS_MAX, Target
from tests.harness.broker import Broker, Topic
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import start_ingest


def pytest_report_header() -> str:
    """Say which form this run has."""
    return f"fuzz: {chosen().form} (the long one: {SWITCH}=long)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every fuzzer its limit."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(chosen().test_limit_s, method="signal"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What every fuzzer was answered, by status."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in report.user_properties:
            if name == "fuzz":
                terminalreporter.write_line(f"fuzz: {report.nodeid.rsplit('::', 1)[-1]}: {value}")


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    """How many cases in this run."""
    return chosen()


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    """What this module's ingest is told beside the limits; a module may say more."""
    return {}


@pytest.fixture(scope="module")
def ingest(
    kafka: Broker, tmp_path_factory: pytest.TempPathFactory, ingest_settings: dict[str, str]
) -> Iterator[Target]:
    """A running ingest with a topic that only this module's cases reach."""
    topic = Topic(kafka.bootstrap_servers, f"fuzz-{free_port()}", 2)
    topic.create()
    processes = Processes(tmp_path_factory.mktemp("ingest"))
    try:
        limits = {"MAX_ITEMS": str(ITEMS_MAX), "MAX_BODY_BYTES": "4194304"}
        tier = start_ingest(processes, topic, {**limits, **ingest_settings})
        tier.wait_ready()
        with contextlib.closing(Target(tier, topic)) as target:
            yield target
    finally:
        processes.end_all()
