"""What a process tells of itself, and counters from 0 on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from services.ingest.problems import Code
from services.ingest.refusals import Refusals
from shared.ops import Readiness
from shared.telemetry import IngestMetrics, UploaderMetrics, process_registry


@given(st.lists(st.sampled_from([0.0, 0.001, 0.0010001, 0.5, 1.0, 10.0, 10.1, 1e9]) | st.floats(0, 1e7), max_size=40))
def test_a_tally_is_a_histogram(amounts: list[float]) -> None:
    """Every bucket (its bound belongs to it), the count and the sum are those of prometheus_client."""
    registry, plain = CollectorRegistry(), CollectorRegistry()
    puts = UploaderMetrics(registry).puts
    bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    histogram = Histogram("spillway_uploader_upload_seconds", "…", buckets=bounds, registry=plain)
    for amount in amounts:
        puts.ended(amount, 1, stored=True)
        histogram.observe(amount)
    name = "spillway_uploader_upload_seconds"
    for suffix, labels in [("count", {}), ("sum", {}), *(("bucket", {"le": str(float(b))}) for b in bounds)]:
        assert registry.get_sample_value(f"{name}_{suffix}", labels) == plain.get_sample_value(
            f"{name}_{suffix}", labels
        )
    assert registry.get_sample_value(f"{name}_bucket", {"le": "+Inf"}) == len(amounts)


def test_puts_are_counted_by_how_they_ended() -> None:
    """Each from 0 on and exact at every scrape; what is stored has its age."""
    registry = CollectorRegistry()
    puts = UploaderMetrics(registry).puts

    def told() -> list[float | None]:
        names = ("uploads_total", "upload_bytes_total")
        return [
            registry.get_sample_value(f"spillway_uploader_{name}", {"outcome": outcome})
            for name in names
            for outcome in ("stored", "failed")
        ]

    assert told() == [0, 0, 0, 0]
    puts.ended(0.1, 7, stored=True)
    puts.ended(0.2, 5, stored=False)
    puts.ended(0.3, 4, stored=False)
    puts.age_seconds.observe(7200)
    assert told() == [1, 2, 7, 9]
    for name, count, total in (("upload_seconds", 3, 0.6), ("stored_age_seconds", 1, 7200)):
        assert registry.get_sample_value(f"spillway_uploader_{name}_count") == count
        assert registry.get_sample_value(f"spillway_uploader_{name}_sum") == pytest.approx(total)


def test_readiness_is_a_metric_by_condition() -> None:
    """1 while a condition holds, 0 while it fails, also before it was first told of; one once named stays."""
    readiness = Readiness("kafka", "s3")
    registry = process_registry(readiness)

    def told() -> dict[str, float | None]:
        names = ("kafka", "s3", "progress", "draining")
        return {name: registry.get_sample_value("spillway_ready", {"condition": name}) for name in names}

    assert told() == {"kafka": 0, "s3": 0, "progress": None, "draining": None}
    readiness.hold("kafka")
    readiness.hold("progress")
    readiness.fail("draining", "shutting down")
    assert told() == {"kafka": 1, "s3": 0, "progress": 1, "draining": 0}
    readiness.fail("progress", "stands still")
    readiness.fail("kafka", "away")
    readiness.hold("draining")
    assert told() == {"kafka": 0, "s3": 0, "progress": 0, "draining": 1}


def test_a_process_tells_of_itself() -> None:
    """Memory, CPU, Python's version and its garbage collector, of either tier."""
    registry = process_registry(Readiness())
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"):
        assert (registry.get_sample_value(name) or 0) > 0, name
    names = {family.name for family in registry.collect()}
    assert {"python_info", "python_gc_collections"} <= names


def test_counters_with_known_labels_start_at_0() -> None:
    """Or `increase()` would not see the first event: it does not see what a series is born with."""
    registry = CollectorRegistry()
    UploaderMetrics(registry)
    Refusals(IngestMetrics(registry))
    known = {
        "spillway_uploader_uploads_total": [{"outcome": "stored"}, {"outcome": "failed"}],
        "spillway_uploader_upload_bytes_total": [{"outcome": "stored"}, {"outcome": "failed"}],
        "spillway_uploader_commits_total": [{"outcome": "committed"}, {"outcome": "failed"}],
        "spillway_ingest_connections_closed_total": [
            {"reason": reason} for reason in ("silent", "idle", "late_head", "unread_answer")
        ],
        "spillway_ingest_requests_total": [
            {"status": str(code.value.status), "code": code.name.lower()} for code in Code
        ],
    }
    for name, each in known.items():
        for labels in each:
            assert registry.get_sample_value(name, labels) == 0, (name, labels)
