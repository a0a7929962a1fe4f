"""Every metric's name. Metrics are built on a registry that `__main__` makes and passes in; what is logged is `log`'s.

A counter whose labels have a known, short list of values starts at 0 with each of them: what a series is born with is
seen by no `increase()`, so that the first event would be told to nobody. Codes of problems and verdicts on batches are
ingest's own, and start where ingest counts them.
"""

import bisect
import math
import time
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from shared.ops import Readiness

_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SIZES = tuple(float(1024 * 4**power) for power in range(8))  # 1 KiB to 16 MiB
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_AGES = (
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE),
    *(_HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY),
)  # in seconds: from a quiet day to what retention leaves of a long outage; 300 is the objective's


def process_registry(readiness: Readiness) -> CollectorRegistry:
    """The registry of a serving process, with what either tier tells of itself: memory, CPU, files, readiness."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(ReadinessCollector(readiness))
    return registry


class ReadinessCollector(Collector):
    """`spillway_ready`: what `/readyz` says at the moment of the scrape. Labels are bounded by the code."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The metric without a value: a registry need not ask for one to know the name."""
        yield GaugeMetricFamily(
            "spillway_ready", "1 while a condition of /readyz holds, 0 while it fails", labels=["condition"]
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metric as of now."""
        for family in self.describe():
            for condition, holds in self._readiness.conditions.items():
                family.add_metric([condition], float(holds))
            yield family


class PlainHistogram:
    """A histogram without labels as plain numbers, told in half a microsecond: prometheus_client's takes a lock a
    bucket and a sum, which at a thousand puts a second costs more than a put's own bookkeeping.

    Read at the scrape, on the same loop, so that what is read is always exact.
    """

    __slots__ = ("_bounds", "_counts", "_name", "_what", "total")

    def __init__(self, name: str, what: str, bounds: tuple[float, ...]) -> None:
        self.total = 0.0  # the sum of what was observed
        self._name = name
        self._what = what
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # by bucket, not cumulated; the last is above all bounds

    def observe(self, amount: float) -> None:
        """Count one."""
        self._counts[bisect.bisect_left(self._bounds, amount)] += 1
        self.total += amount

    def family(self) -> Metric:
        """The metric as of now."""
        cumulated, buckets = 0, []
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            cumulated += count
            buckets.append((floatToGoString(bound), float(cumulated)))  # type: ignore[no-untyped-call]
        family = HistogramMetricFamily(self._name, self._what)
        family.add_metric([], buckets, self.total)
        return family


class PutsCollector(Collector):
    """What is counted of every put of the uploader, as plain numbers; see `PlainHistogram`."""

    def __init__(self, prefix: str) -> None:
        self.stored = self.failed = 0  # attempts
        self.stored_bytes = self.failed_bytes = 0  # of their bodies
        self.seconds = PlainHistogram(f"{prefix}_upload_seconds", "One put attempt, also a failed one", _SECONDS)
        self.age_seconds = PlainHistogram(
            f"{prefix}_stored_age_seconds",
            "Age of a record when it was stored: since Kafka's time stamp of it",
            _AGES,
        )
        self._prefix = prefix
        self._created_s = time.time()

    def ended(self, duration_s: float, body_bytes: int, *, stored: bool) -> None:
        """Count one attempt."""
        self.seconds.observe(duration_s)
        if stored:
            self.stored += 1
            self.stored_bytes += body_bytes
        else:
            self.failed += 1
            self.failed_bytes += body_bytes

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        for name, what, stored, failed in (
            ("uploads", "Put attempts by outcome (stored, failed)", self.stored, self.failed),
            ("upload_bytes", "Payload bytes of put attempts by outcome", self.stored_bytes, self.failed_bytes),
        ):
            family = CounterMetricFamily(f"{self._prefix}_{name}", what, labels=["outcome"])
            family.add_metric(["stored"], stored, self._created_s)
            family.add_metric(["failed"], failed, self._created_s)
            yield family
        yield self.seconds.family()
        yield self.age_seconds.family()


class IngestMetrics:
    """Tier 1. Labels are bounded: status codes, and problem codes of the contract."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "spillway_ingest_requests", "Answers of POST /v1/collections", ["status", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "spillway_ingest_request_seconds",
            "From the head to the answer's first byte",
            buckets=_SECONDS,
            registry=registry,
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
        self.in_flight_bytes_max = Gauge(
            "spillway_ingest_in_flight_bytes_max", "Their bound: MAX_IN_FLIGHT_BYTES", registry=registry
        )
        self.batch_records = Histogram(
            "spillway_ingest_batch_records", "Records of an acknowledged batch", buckets=_COUNTS, registry=registry
        )
        self.batch_bytes = Histogram(
            "spillway_ingest_batch_bytes", "Its bytes, as measured before", buckets=_SIZES, registry=registry
        )
        self.connections = Gauge("spillway_ingest_connections", "Open connections", registry=registry)
        self.connections_max = Gauge(
            "spillway_ingest_connections_max",
            "Their bound: MAX_CONNECTIONS, or less where the process may not open so many files",
            registry=registry,
        )
        self.connections_closed = Counter(
            "spillway_ingest_connections_closed",
            "Connections that were closed on a client (silent, idle, late_head, unread_answer)",
            ["reason"],
            registry=registry,
        )
        self.disconnects = Counter(
            "spillway_ingest_disconnects",
            "Requests whose body ended early: the client left, or sent no HTTP",
            registry=registry,
        )
        self.producer_restarts = Counter(
            "spillway_ingest_producer_restarts",
            "Producers replaced: no broker answered, none got anywhere, or they had moved",
            registry=registry,
        )
        self.tokens_reloads = Counter(
            "spillway_ingest_tokens_reloads",
            "Changes of the tokens file by outcome (taken, refused)",
            ["outcome"],
            registry=registry,
        )
        self.tokens_refused = Gauge(
            "spillway_ingest_tokens_refused",
            "1 while the tokens file cannot be taken and the last good one is in force",
            registry=registry,
        )
        for reason in ("silent", "idle", "late_head", "unread_answer"):
            self.connections_closed.labels(reason)


class WorkerMetrics:
    """Tier 1 as several processes (`INGEST_WORKERS` over 1): what the one that keeps them tells of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.workers = Gauge("spillway_ingest_workers", "Workers that take connections and answer", registry=registry)
        self.workers_max = Gauge(
            "spillway_ingest_workers_max", "What they should be: INGEST_WORKERS", registry=registry
        )
        self.restarts = Counter(
            "spillway_ingest_worker_restarts",
            "Workers that ended unasked and were replaced, by how they ended (signal, exit, wedged)",
            ["reason"],
            registry=registry,
        )
        for reason in ("signal", "exit", "wedged"):
            self.restarts.labels(reason)


class UploaderMetrics:
    """Tier 2. Labels are bounded: `partition` by the topic, `reason` by stable words, the others by the code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"spillway_uploader_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"spillway_uploader_{name}", what, labels, registry=registry)

        # puts
        self.puts = PutsCollector("spillway_uploader")
        registry.register(self.puts)
        self.in_flight = gauge("in_flight", "Puts under way")
        self.in_flight_limit = gauge("in_flight_limit", "Puts that may be under way now: the adaptive limit")
        self.in_flight_max = gauge("in_flight_max", "What that limit may climb to: MAX_UPLOADS")
        self.retries = counter("retries", "Puts to be tried again, by class of error", "kind", "reason")
        self.s3_failing_since = gauge(
            "s3_failing_since_timestamp_seconds",
            "When S3 began to refuse objects; absent while it takes them",
            "reason",
        )
        self.store_restarts = counter("store_restarts", "S3 clients made anew", "reason")
        self.dead_letters = counter("dead_letters", "Records written to the dead-letter topic", "reason")
        self.dead_letters_held = gauge("dead_letters_held", "Poison records that wait: over the share, or not writable")
        self.tombstones = counter("tombstones", "Records without a value: no object")
        # what is held in memory
        self.buffered_records = gauge("buffered_records", "Admitted and not yet committable", "partition")
        self.buffered_bytes = gauge("buffered_bytes", "Bytes of admitted and unstored records, all partitions")
        self.buffered_bytes_max = gauge("buffered_bytes_max", "Their bound: MAX_BUFFER_BYTES")
        self.full_partitions = gauge("full_partitions", "Partitions not asked for, because they have no room")
        # how far behind
        self.lag_records = gauge("lag_records", "End of the log less the committable offset", "partition")
        self.lag_bytes = gauge(
            "lag_bytes", "Lag in records times the mean size of those seen: an estimate", "partition"
        )
        self.lag_seconds = gauge("lag_seconds", "Age of the oldest record not yet stored; 0 without lag", "partition")
        self.retention_left_seconds = gauge(
            "retention_left_seconds", "Until retention may delete the oldest record not yet stored", "partition"
        )
        self.lost_records = counter(
            "lost_records", "Offsets that retention deleted before they were stored", "partition"
        )
        self.topic_remade = counter("topic_remade", "Times the topic was found deleted and made anew")
        self.idle_seconds = gauge(
            "idle_seconds", "Since a partition with lag last made progress; 0 without lag", "partition"
        )
        self.stalled = gauge(
            "stalled", "1 for a partition with lag and no progress for STALLED_AFTER_S", "partition", "reason"
        )
        # the group
        self.commits = counter("commits", "Offset commits by outcome (committed, failed)", "outcome")
        self.commit_seconds = Histogram(
            "spillway_uploader_commit_seconds",
            "One offset commit, also a failed one",
            buckets=_SECONDS,
            registry=registry,
        )
        self.consumer_restarts = counter("consumer_restarts", "Consumers made anew after an error")
        self.assignment_epoch = gauge("assignment_epoch", "Assignments that this process has received")
        self.kafka_answered = gauge(
            "kafka_answered_timestamp_seconds",
            "When Kafka last answered what it was asked; before its first answer: when it was first asked, 0: never",
        )
        for outcome in ("committed", "failed"):
            self.commits.labels(outcome)
