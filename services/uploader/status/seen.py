"""What the status page sees at one moment, as values: this process, and the pipeline from Kafka's side. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.uploader.errors import StoreFault
from services.uploader.jobs.lag.view import PipelineView


class S3State(StrEnum):
    """How S3 takes the puts of this process."""

    STARTING = "starting"  # the first put, of the probe, is not answered yet
    TAKING = "taking"
    IDLE = "idle"  # there is nothing to put
    SILENT = "silent"  # puts are under way, and none is answered
    FAILING = "failing"
    SHEDDING = "shedding"  # some puts are stored and others fail
    RECOVERING = "recovering"  # objects are stored again, after a failure a moment ago


@dataclass(frozen=True, slots=True)
class ProcessLook:
    """This process at one moment.

    Attributes:
        s3: how its puts fare.
        fault: why they fail; with FAILING, SHEDDING and RECOVERING.
        silent_s: for how many seconds no put has ended.
        in_flight: puts under way.
        in_flight_limit: as many may be.
        reasons: why it is not ready, by condition.
        notes: what is over and cannot be mended, by name.
        partitions: that it holds.
        stalled: the reason a partition stands still, by partition.
        stored: objects stored since the start.
        dead_letters: records written to the dead-letter topic since the start, by reason.
        dead_letters_held: poison records that wait.
        lost: offsets that retention took before they were stored, since the start.

    """

    s3: S3State
    fault: StoreFault | None
    silent_s: float
    in_flight: int
    in_flight_limit: int
    reasons: Mapping[str, str]
    notes: Mapping[str, str]
    partitions: tuple[int, ...]
    stalled: Mapping[int, str]
    stored: int
    dead_letters: Mapping[str, int]
    dead_letters_held: int
    lost: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen last.

    Attributes:
        view: what the last answered look means; None: none was answered yet.
        age_s: of that look, in seconds.
        trouble: why the last look was not answered; empty: it was.
        dead_letters: records in the dead-letter topic now; None: not known.

    """

    view: PipelineView | None
    age_s: float
    trouble: str
    dead_letters: int | None
