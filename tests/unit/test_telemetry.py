"""What a process tells of itself, and counters from 0 on; logs, as JSON lines and for a person."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from services.ingest.problems import Code
from services.ingest.refusals import Refusals
from shared.ops import Readiness
from shared.telemetry import (
    REQUEST_ID,
    IngestMetrics,
    JsonFormatter,
    UploaderMetrics,
    configure_logging,
    process_registry,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Put the root logger back as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


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


def test_off_a_terminal_each_line_is_one_json_object() -> None:
    """Time, level, logger, message, the fields given, and the trace of an error; line breaks stay inside the line."""
    stream = io.StringIO()
    configure_logging("info", stream)
    logging.getLogger("a").info("hello\nthere", extra={"partition": 3})
    try:
        int("broken")
    except ValueError:
        logging.getLogger("a").exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"], first["partition"]) == ("info", "a", "hello\nthere", 3)
    assert first["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in second["error"]


def test_on_a_terminal_lines_are_for_a_person() -> None:
    """No JSON; the fields stand behind the message."""
    stream = Terminal()
    configure_logging("INFO", stream)
    logging.getLogger("a").warning("hello", extra={"partition": 3})
    assert stream.getvalue().endswith("WARNING a: hello partition=3\n")


def test_what_a_client_retries_is_a_warning() -> None:
    """Aiokafka's errors come as warnings, its chatter not at all; ours stay what they are."""
    stream = io.StringIO()
    configure_logging("INFO", stream)
    logging.getLogger("aiokafka.consumer").error("coordinator not there yet")
    logging.getLogger("aiokafka.consumer").info("chatter")
    logging.getLogger("services.uploader").error("ours")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["warning", "error"]


def test_what_a_client_says_again_and_again_is_told_now_and_then() -> None:
    """The same sentence 40 times a second for 25 s: three lines. Another sentence, and our own, are not held back."""
    stream = io.StringIO()
    configure_logging("INFO", stream)
    for i in range(1000):
        record = logging.makeLogRecord(
            {"name": "aiokafka", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "away", "created": i / 40}
        )
        logging.getLogger().handle(record)
    for name in ("aiokafka", "services.uploader", "services.uploader"):
        logging.getLogger(name).warning("something else")
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == ["away"] * 3 + ["something else"] * 3  # at 0, 10 and 20 s


def test_the_request_stands_in_every_line_of_its_task() -> None:
    """Whatever logs while a request is served carries its id; other tasks' lines do not, and a field of the same name
    is not overwritten.
    """
    lines: list[dict[str, object]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logger = logging.getLogger("spillway.test.request")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler := Collect())

    async def serve(request_id: str) -> None:
        REQUEST_ID.set(request_id)
        logger.info(request_id)

    async def main() -> None:
        await asyncio.gather(serve("a"), serve("b"))
        logger.info("none")
        logger.info("own", extra={"request_id": "c"})

    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    assert [(line["message"], line.get("request_id")) for line in lines] == [
        ("a", "a"),
        ("b", "b"),
        ("none", None),
        ("own", "c"),
    ]
