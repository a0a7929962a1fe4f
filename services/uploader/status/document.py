"""The status as a JSON document: of `/status.json`, which the page shows. Asks and decides nothing."""

import math

from services.uploader.jobs.lag.document import document as pipeline_document
from services.uploader.jobs.lag.view import duration
from services.uploader.status.findings import S3_WORDS, Finding, clock, findings
from services.uploader.status.seen import Observed, ProcessLook, S3State


def status_document(process: ProcessLook, observed: Observed, unix_s: float) -> dict[str, object]:
    """All that the page shows.

    Times are in seconds; null: unknown. `pipeline` is the document of `spillway-uploader lag --output json`, null until
    the first look is answered; `age_seconds` is its age. `process` is this process alone.
    """
    view = observed.view
    return {
        "at": clock(unix_s),
        "findings": [_finding(each) for each in findings(process, observed, unix_s)],
        "s3": _s3(process, unix_s),
        "pipeline": None if view is None else pipeline_document(view),
        "retention": None if view is None else _retention(view.total.retention_left_s),
        "age_seconds": round(observed.age_s, 1),
        "trouble": observed.trouble,
        "dead_letters": {
            "in_topic": observed.dead_letters,
            "by_reason": dict(process.dead_letters),
            "held": process.dead_letters_held,
        },
        "process": {
            "partitions": list(process.partitions),
            "stored": process.stored,
            "in_flight": process.in_flight,
            "in_flight_limit": process.in_flight_limit,
            "reasons": dict(process.reasons),
            "notes": dict(process.notes),
        },
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "level": finding.level.name.lower(),
        "title": finding.title,
        "text": finding.text,
        "page": finding.page,
        "command": finding.command,
    }


def _retention(left_s: float | None) -> str:
    return "for ever" if left_s == math.inf else duration(left_s)


def _s3(process: ProcessLook, unix_s: float) -> dict[str, object]:
    fault = process.fault
    return {
        "state": process.s3.value,
        "words": S3_WORDS[process.s3],
        "silent_seconds": round(process.silent_s, 1) if process.s3 is S3State.SILENT else None,
        "reason": None if fault is None else fault.reason,
        "message": None if fault is None else fault.message,
        "since": None if fault is None else clock(fault.since_s),
        "for_seconds": None if fault is None else round(max(0.0, unix_s - fault.since_s), 1),
        "needs_you": False if fault is None else fault.mend,
    }
