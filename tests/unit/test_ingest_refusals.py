"""Refusals: every one counted, of the log lines a bounded number, each with its request's id."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.problems import Code, Problem
from services.ingest.refusals import LINES_MAX, PERIOD_S, Refusals
from shared.telemetry import IngestMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def refusals(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> Refusals:
    caplog.set_level(logging.INFO)
    return Refusals(IngestMetrics(registry))


def test_a_flood_is_counted_and_does_not_bury_the_log(
    refusals: Refusals, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand refusals are ten lines; the next period begins with how many were left out."""
    problem = Problem(Code.KAFKA_UNAVAILABLE, "no broker answers")
    for number in range(1000):
        refusals.tell(problem, f"r-{number}", 1.0)
    assert len(caplog.records) == LINES_MAX
    labels = {"status": "503", "code": "kafka_unavailable"}
    assert registry.get_sample_value("spillway_ingest_requests_total", labels) == 1000
    caplog.clear()
    refusals.tell(problem, "r-next", 1.0 + PERIOD_S)
    assert [record.message for record in caplog.records] == ["refused more", "refused"]
    assert vars(caplog.records[0])["not_logged"] == 1000 - LINES_MAX
    assert vars(caplog.records[1])["request_id"] == "r-next"


def test_one_code_does_not_silence_another(refusals: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    """Each code has its own lines."""
    for _ in range(100):
        refusals.tell(Problem(Code.INVALID_JSON, "x"), "r", 0.0)
    refusals.tell(Problem(Code.OUTCOME_UNKNOWN, "y"), "r", 0.0)
    assert vars(caplog.records[-1])["code"] == "outcome_unknown"


@pytest.mark.parametrize(
    ("code", "level"), [(Code.INVALID_JSON, "INFO"), (Code.QUOTA_SPENT, "INFO"), (Code.OVERLOADED, "WARNING")]
)
def test_a_clients_mistake_is_no_warning(
    code: Code, level: str, refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    """What an operator can do something about stands out."""
    refusals.tell(Problem(code, "x"), "r", 0.0)
    assert caplog.records[0].levelname == level
