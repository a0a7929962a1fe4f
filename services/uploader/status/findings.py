"""What the picture means, in sentences, worst first, and what a person does next. Pure.

Each finding says what is so, whether anything is lost by it, and whose turn it is; it names the operator's page that
goes on from there. The thresholds of the retention clock are those of the alert rules (deploy/monitoring/rules).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from services.uploader.jobs.lag.view import Pace, PipelineView, Standing, duration, named
from services.uploader.progress import WORDS
from services.uploader.status.seen import Observed, ProcessLook, S3State

DAY_S = 86_400.0
OLD_S = 300.0
"""A payload that waits longer than this, in seconds, is worth a word even while all is well otherwise: the objective of
docs/operations/slos.md."""

STALE_AFTER_S = 15.0
"""An older picture, in seconds, is none of now. A look every two seconds that reads for five is younger."""


class Level(IntEnum):
    """How much a finding matters; the largest first."""

    WELL = 0
    NOTE = 1
    ATTENTION = 2
    ACT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so.

    Attributes:
        level: how much it matters.
        title: a short sentence.
        text: what it means, and what to do; may be empty.
        page: the page of docs/operations that goes on, without `.md`; None: there is nothing more to say.
        command: to type, where one helps.

    """

    level: Level
    title: str
    text: str = ""
    page: str | None = None
    command: str | None = None


def findings(process: ProcessLook, observed: Observed, unix_s: float) -> list[Finding]:
    """What is so now, worst first; never empty. `unix_s` is seconds since 1970."""
    view = observed.view
    found = [
        *_lost(process),
        *_kafka(process, observed),
        *_s3(process, view, unix_s),
        *_dead_letters(process, observed),
        *_standing_still(process),
        *_conditions(process),
    ]
    if view is not None:
        found += [*_retention(view), *_pace(view, process), *(_warning(each) for each in view.warnings)]
    if not any(each.level > Level.NOTE for each in found):
        found.append(_all_well(view))
    return sorted(found, key=lambda each: -each.level)  # stable: within a level, the order above


def _lost(process: ProcessLook) -> Iterator[Finding]:
    if process.lost:
        yield Finding(
            Level.ACT,
            f"{process.lost} payloads are lost",
            "Retention deleted them before they were stored. The log and the notes below name the exact offsets.",
            "records-lost",
        )


def _kafka(process: ProcessLook, observed: Observed) -> Iterator[Finding]:
    reason, topic = process.reasons.get("kafka"), process.reasons.get("topic")
    old = f" The picture is {duration(observed.age_s)} old." if observed.view is not None else ""
    if reason not in {None, "starting"}:
        says = f"{reason}. What Kafka has acknowledged is in Kafka.{old}"
        yield Finding(Level.ACT, "Kafka does not answer", says, "kafka-is-away")
    elif reason == "starting":
        yield Finding(Level.NOTE, "This uploader is starting", "It has not reached Kafka yet.")
    if topic not in {None, "starting"}:
        yield Finding(Level.ACT, "The topic is missing", f"{topic}.{old}", "records-lost", "spillway-uploader topics")
    elif reason is None and (observed.trouble or observed.age_s > STALE_AFTER_S):
        # Not yet Kafka's fault: the uploader gets its answers, and these questions may lack a grant.
        says = f"{observed.trouble or 'Its last question is not answered yet'}. The uploader goes on.{old}"
        yield Finding(Level.ATTENTION, "The page cannot look at Kafka", says, "kafka-is-away")


def _s3(process: ProcessLook, view: PipelineView | None, unix_s: float) -> Iterator[Finding]:
    fault = process.fault
    if fault is not None and process.s3 is S3State.FAILING:
        whose = (
            "Somebody has to mend it: the message says what. No restart is needed."
            if fault.mend
            else "It passes by itself."
        )
        yield Finding(
            Level.ACT if fault.mend else Level.ATTENTION,
            f"S3 does not take objects ({fault.reason})",
            f"Since {clock(fault.since_s)}, for {duration(max(0.0, unix_s - fault.since_s))}. {whose} "
            f"{_kept(process, view)}",
            "s3-is-away",
        )
    elif fault is not None and process.s3 is S3State.SHEDDING:
        yield Finding(
            Level.ATTENTION,
            f"S3 takes some objects and refuses others ({fault.reason})",
            f"Since {clock(fault.since_s)}, for {duration(max(0.0, unix_s - fault.since_s))}. The refused are tried "
            f"again without end. {_kept(process, view)}",
            "s3-is-away",
        )
    elif fault is not None:
        yield Finding(
            Level.NOTE,
            "S3 takes objects again",
            f"It had refused them since {clock(fault.since_s)} ({fault.reason}). What waited is being stored.",
            "s3-was-away",
        )
    elif process.s3 is S3State.SILENT:
        yield Finding(
            Level.ATTENTION,
            "S3 does not answer",
            f"{process.in_flight} puts are under way, and none has ended for {duration(process.silent_s)}. "
            f"{_kept(process, view)}",
            "s3-is-away",
        )


def _kept(process: ProcessLook, view: PipelineView | None) -> str:
    """That nothing is lost, and for how long that is so."""
    left_s = None if view is None else view.total.retention_left_s
    if left_s is None or process.lost:
        return "Payloads wait in Kafka."
    if view is not None and view.look.by_size:
        return "Payloads wait in Kafka, which may delete the oldest when the topic reaches its retention.bytes."
    if left_s == 0:
        return "Payloads wait in Kafka, which may delete the oldest at any moment."
    if left_s == math.inf:
        return "Nothing is lost: payloads wait in Kafka, which keeps them for ever."
    return f"Nothing is lost: payloads wait in Kafka, the oldest for another {duration(left_s)} at least."


def _dead_letters(process: ProcessLook, observed: Observed) -> Iterator[Finding]:
    reason = process.reasons.get("dead_letters")
    if process.dead_letters_held or reason is not None:
        yield Finding(
            Level.ACT,
            f"{process.dead_letters_held} payloads that S3 refuses wait" if process.dead_letters_held
            else "Dead letters cannot be written",
            f"{reason or ''} Their partitions stand still behind them.".strip(),
            "dead-letters",
            "spillway-uploader dead-letters list",
        )  # fmt: skip
    elif observed.dead_letters or process.dead_letters:
        count = observed.dead_letters or sum(process.dead_letters.values())
        yield Finding(
            Level.ATTENTION if process.dead_letters else Level.NOTE,
            f"{count} dead letters are in their topic",
            "S3 would not take these payloads. They are kept there, byte for byte, until they are redriven.",
            "dead-letters",
            "spillway-uploader dead-letters list",
        )


def _standing_still(process: ProcessLook) -> Iterator[Finding]:
    by_reason: dict[str, list[int]] = {}
    for partition, reason in process.stalled.items():
        by_reason.setdefault(reason, []).append(partition)
    for reason, partitions in sorted(by_reason.items()):
        if process.fault is not None and reason == process.fault.reason:
            continue  # S3 is the reason, and has a finding of its own
        title = f"{named(partitions).capitalize()} stand{'s' if len(partitions) == 1 else ''} still"
        yield Finding(Level.ACT, title, f"{WORDS.get(reason, reason)}.".capitalize(), "partition-stalled")


def _conditions(process: ProcessLook) -> Iterator[Finding]:
    """Whatever else keeps this process from being ready."""
    reason = process.reasons.get("assignment")
    if reason is not None:
        said = "It has not joined the group yet." if reason == "starting" else f"{reason.capitalize()}."
        yield Finding(Level.NOTE, "This uploader has no partitions at the moment", said)
    for condition in process.reasons.keys() - {"kafka", "topic", "assignment", "s3", "dead_letters", "progress"}:
        yield Finding(Level.ATTENTION, f"Not ready: {condition}", process.reasons[condition])
    for text in process.notes.values():
        yield Finding(Level.ATTENTION, "It happened, and cannot be mended", text, "records-lost")


def _retention(view: PipelineView) -> Iterator[Finding]:
    # Of those that are known: one partition that cannot be read must not hide the clock of the others.
    known = [each for each in view.standings if each.lag_records and None not in {each.retention_left_s, each.lag_s}]
    worst = min(known, key=lambda each: each.retention_left_s or 0.0, default=None)
    if worst is None:
        return
    left_s, age_s = worst.retention_left_s or 0.0, worst.lag_s or 0.0
    says = f"The oldest payload that is not in S3 is {duration(age_s)} old; Kafka may delete it in {duration(left_s)}."
    if left_s < DAY_S and age_s > left_s:
        yield Finding(Level.ACT, "The retention clock runs out", f"{says} Buy time now.", "retention-clock")
    elif age_s * 3 > left_s:
        yield Finding(Level.ATTENTION, "A quarter of the retention is used", says, "retention-clock")


def _pace(view: PipelineView, process: ProcessLook) -> Iterator[Finding]:
    total = view.total
    if process.s3 in {S3State.FAILING, S3State.SILENT}:
        return  # then nothing drains, and that is said
    match total.drain.pace:
        case Pace.NEVER if (total.lag_s or 0.0) > OLD_S:
            says = f"{_waiting(total)} At this rate they are never all stored."
            yield Finding(Level.ATTENTION, "More comes in than is stored", says, "how-far-behind")
        case Pace.IN:
            yield Finding(
                Level.NOTE,
                f"Catching up: all stored in about {duration(total.drain.seconds)}",
                _waiting(total),
                "how-far-behind",
            )


def _waiting(total: Standing) -> str:
    return f"{total.lag_records} payloads wait, the oldest for {duration(total.lag_s)}."


def _warning(text: str) -> Finding:
    return Finding(Level.ATTENTION, f"{text[:1].upper()}{text[1:]}", "", "partition-stalled")


def _all_well(view: PipelineView | None) -> Finding:
    if view is None:
        return Finding(Level.NOTE, "Looking at Kafka", "The first look takes a second or two.")
    if not view.total.lag_records:
        return Finding(Level.WELL, "All payloads are in S3", "Nothing waits.")
    return Finding(Level.WELL, "Payloads are being stored", _waiting(view.total))


def clock(unix_s: float) -> str:
    """`2026-11-26 09:30:00 UTC`."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


S3_WORDS: Mapping[S3State, str] = {
    S3State.STARTING: "not known yet: the first object is on its way",
    S3State.TAKING: "takes objects",
    S3State.IDLE: "takes objects, as far as is known: there is nothing to put",
    S3State.SILENT: "does not answer",
    S3State.FAILING: "does not take objects",
    S3State.SHEDDING: "takes some objects and refuses others",
    S3State.RECOVERING: "takes objects again",
}
"""The state as a sentence that begins with "S3"."""
