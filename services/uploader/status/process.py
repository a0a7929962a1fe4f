"""What this process knows of itself for the status page: S3 as its puts meet it, dead letters, its partitions.

Reads the owners' own figures at the moment of asking; keeps none and changes none.
"""

from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from services.uploader.errors import StoreFault
from services.uploader.health import StoreHealth
from services.uploader.status.seen import ProcessLook, S3State
from services.uploader.upload_limit import UploadLimit
from shared.ops import Readiness
from shared.telemetry import UploaderMetrics

SILENT_AFTER_S = 3.0
"""Puts are under way and none has ended for so long, in seconds: S3 is silent, before the first one times out."""

LATELY_S = 2.0
"""Objects stored and puts refused within so many seconds: S3 takes some and sheds others."""

IDLE_AFTER_S = 10.0
"""No put for so long, in seconds: what S3 does is not known by the puts any more."""


@dataclass(frozen=True, slots=True)
class Process:
    """The owners that are asked."""

    readiness: Readiness
    health: StoreHealth
    limit: UploadLimit
    metrics: UploaderMetrics

    def look(self, now_s: float, unix_s: float) -> ProcessLook:
        """The process now: `now_s` on the monotonic clock, `unix_s` in seconds since 1970."""
        metrics, reasons = self.metrics, self.readiness.reasons
        fault, silent_s = self.health.fault, self.limit.silent_s(now_s)
        return ProcessLook(
            s3=_state(fault, unix_s, silent_s, self.limit.in_flight, starting=reasons.get("s3") == "starting"),
            fault=fault,
            silent_s=silent_s,
            in_flight=self.limit.in_flight,
            in_flight_limit=self.limit.limit,
            reasons=reasons,
            notes=self.readiness.notes,
            partitions=tuple(sorted(int(labels["partition"]) for labels, _ in _values(metrics.idle_seconds))),
            stalled={int(labels["partition"]): labels["reason"] for labels, _ in _values(metrics.stalled)},
            stored=metrics.puts.stored,
            dead_letters={labels["reason"]: round(value) for labels, value in _values(metrics.dead_letters)},
            dead_letters_held=sum(round(value) for _, value in _values(metrics.dead_letters_held)),
            lost=sum(round(value) for _, value in _values(metrics.lost_records)),
        )


def _state(fault: StoreFault | None, unix_s: float, silent_s: float, in_flight: int, *, starting: bool) -> S3State:
    if fault is not None:
        if fault.stored_since and unix_s - fault.failed_s >= LATELY_S:
            return S3State.RECOVERING
        lately = fault.stored_since or (fault.stored_s is not None and unix_s - fault.stored_s < LATELY_S)
        return S3State.SHEDDING if lately else S3State.FAILING
    if in_flight:
        return S3State.SILENT if silent_s >= SILENT_AFTER_S else S3State.TAKING
    if starting:
        return S3State.STARTING
    return S3State.TAKING if silent_s < IDLE_AFTER_S else S3State.IDLE


def _values(metric: Counter | Gauge) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series of a metric, without the times at which counters were made."""
    return [
        (sample.labels, sample.value)
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
