"""Every metric's name, and how both tiers log. Metrics are built on a registry that `__main__` makes and passes in.

Logs are JSON lines off a terminal and readable lines on it; fields go in `extra={...}`. Never a token, never a payload.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class IngestMetrics:
    """Tier 1. Labels are bounded: status codes, and problem codes of the contract."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "spillway_ingest_requests", "Answers of POST /v1/collections", ["status", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "spillway_ingest_request_seconds", "From the first byte to the answer", buckets=_SECONDS, registry=registry
        )
        self.payloads = Counter("spillway_ingest_payloads", "Payloads acknowledged by Kafka", registry=registry)
        self.payload_bytes = Counter("spillway_ingest_payload_bytes", "Their bytes", registry=registry)
        self.batches = Counter("spillway_ingest_batches", "Record batches by outcome", ["outcome"], registry=registry)
        self.ack_seconds = Histogram(
            "spillway_ingest_ack_seconds", "From produce to the broker's answer", buckets=_SECONDS, registry=registry
        )
        self.in_flight_bytes = Gauge(
            "spillway_ingest_in_flight_bytes", "Bytes of admitted collections not yet answered", registry=registry
        )
        self.producer_restarts = Counter(
            "spillway_ingest_producer_restarts", "Producers replaced because no broker answered", registry=registry
        )


class UploaderMetrics:
    """Tier 2. The `partition` label is bounded by the topic's partitions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.uploads = Counter("spillway_uploader_uploads", "Put attempts by outcome", ["outcome"], registry=registry)
        self.upload_bytes = Counter("spillway_uploader_upload_bytes", "Bytes stored in S3", registry=registry)
        self.upload_seconds = Histogram(
            "spillway_uploader_upload_seconds", "One put, also a failed one", buckets=_SECONDS, registry=registry
        )
        self.retries = Counter(
            "spillway_uploader_retries",
            "Puts to be tried again, by class of error",
            ["kind", "reason"],
            registry=registry,
        )
        self.tombstones = Counter(
            "spillway_uploader_tombstones", "Records without a value: no object", registry=registry
        )
        self.lost_records = Counter(
            "spillway_uploader_lost_records",
            "Offsets that retention deleted before they were stored",
            ["partition"],
            registry=registry,
        )
        self.buffered_records = Gauge(
            "spillway_uploader_buffered_records", "Admitted and not yet stored", ["partition"], registry=registry
        )
        self.buffered_bytes = Gauge(
            "spillway_uploader_buffered_bytes", "Their bytes, all partitions", registry=registry
        )
        self.lag_records = Gauge(
            "spillway_uploader_lag_records",
            "End of the log less the committable offset",
            ["partition"],
            registry=registry,
        )
        self.commits = Counter("spillway_uploader_commits", "Offset commits by outcome", ["outcome"], registry=registry)
        self.consumer_restarts = Counter(
            "spillway_uploader_consumer_restarts", "Consumers made anew after an error", registry=registry
        )
        self.assignments = Counter("spillway_uploader_assignments", "Assignments received", registry=registry)


_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _RESERVED}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time level logger message`, the fields of `extra`, and `error` with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one log record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False)


class ReadableFormatter(logging.Formatter):
    """For a person: time, level, message, then `key=value` of the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one log record."""
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = f"{when} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        return line


def _demote_clients(record: logging.LogRecord) -> bool:
    """Aiokafka calls an error what it then retries by itself: to a person that is a warning."""
    if record.name.startswith("aiokafka") and record.levelno == logging.ERROR:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def configure_logging(level: str, stream: TextIO = sys.stderr) -> None:
    """Send every log line of the process to `stream`, readable on a terminal, else as JSON.

    The clients' own chatter is cut to warnings: what matters of theirs, we log with fields.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ReadableFormatter() if stream.isatty() else JsonFormatter())
    handler.addFilter(_demote_clients)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "botocore", "aiobotocore", "uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
