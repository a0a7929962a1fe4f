"""What `verify` says: a table and the first faults, or one JSON document; and its exit code. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.uploader.jobs.bucket.checker import Requests
from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.display import duration
from services.uploader.jobs.span import Gone, Span
from services.uploader.jobs.verify.verifier import Counts, Fault

SHOWN = 20
"""Faults that are named on a terminal."""

KEPT = 10_000
"""Faults that are kept for the JSON document; `--missing-to` gets all of them."""

ALL_THERE, NOT_ALL, CANNOT_TELL = 0, 1, 2


@dataclass(slots=True)
class Faults:
    """Faults as they are found: the first of them, and counts that a person asks for next.

    Attributes:
        kept: at most KEPT.
        dropped: how many more there are.
        not_yet: missing ones above the live group's commit: it has not said that they are stored.

    """

    committed: Mapping[int, int]
    kept: list[Fault] = field(default_factory=list)
    dropped: int = 0
    not_yet: int = 0

    def add(self, fault: Fault) -> None:
        """One more."""
        committed = self.committed.get(fault.expected.partition)
        missing = fault.finding is Finding.MISSING
        if missing and committed is not None and fault.expected.offset >= committed:
            self.not_yet += 1
        if len(self.kept) < KEPT:
            self.kept.append(fault)
        else:
            self.dropped += 1

    def in_order(self) -> list[Fault]:
        """Those that are kept, by partition and offset: S3 answers in any order."""
        return sorted(self.kept, key=lambda fault: (fault.expected.partition, fault.expected.offset))


@dataclass(frozen=True, slots=True)
class Verification:
    """All that a comparison found. `failed`: why it did not come to its end; empty if it did."""

    topic: str
    topic_id: str | None
    bucket: str
    key_template: str
    spans: Sequence[Span]
    gone: Sequence[Gone]
    counts: Counts
    faults: Faults
    dead: Mapping[tuple[int, int], str]  # the reason of the dead letter of a record, by its place
    requests: Requests
    seconds: float
    failed: str = ""

    @property
    def exit_code(self) -> int:
        """0: everything in range is there; 1: something is not; 2: it could not be told of all."""
        counts = self.counts
        if counts.missing or counts.different:
            return NOT_ALL
        return CANNOT_TELL if counts.unknown or self.gone or counts.gone or self.failed else ALL_THERE

    def document(self) -> dict[str, object]:
        """As JSON."""
        counts, requests = self.counts, self.requests
        return {
            "topic": self.topic,
            "bucket": self.bucket,
            "key_template": self.key_template,
            "ranges": {str(span.partition): {"begin": span.begin, "end": span.end} for span in self.spans},
            "result": ("all there", "not all there", "could not tell")[self.exit_code],
            "records": counts.records,
            "bytes": counts.bytes,
            "same": counts.same,
            "missing": counts.missing,
            "different": counts.different,
            "unknown": counts.unknown,
            "tombstones": counts.tombstones,
            "passed_over": counts.passed_over,
            "not_committed_by_the_group": self.faults.not_yet,
            "told_by_listings": counts.listed,
            "requests": {"list": requests.lists, "head": requests.heads, "get": requests.gets},
            "gone": [str(one) for one in (*self.gone, *counts.gone)],
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "faults": [self.entry(fault) for fault in self.faults.in_order()],
            "faults_not_shown": self.faults.dropped,
        }

    def entry(self, fault: Fault) -> dict[str, object]:
        """One fault, for JSON."""
        expected = fault.expected
        entry = entry_of(self.topic, self.topic_id, fault)
        dead = self.dead.get((expected.partition, expected.offset))
        return entry if dead is None else {**entry, "dead_letter": dead}

    def text(self) -> str:
        """For people."""
        counts = self.counts
        lines = [f"topic {self.topic} against s3://{self.bucket}/{self.key_template}"]
        lines += [
            f"  partition {span.partition}: " + (f"offsets {span.begin}-{span.end - 1}" if span.offsets else "nothing")
            for span in self.spans
        ]
        lines.append("  (closed when the command began: what was written later is not in it)")
        lines += [
            f"  {name:<12}{count:>12}"
            for name, count in (
                ("records", counts.records),
                ("same", counts.same),
                ("missing", counts.missing),
                ("different", counts.different),
                ("unknown", counts.unknown),
                ("tombstones", counts.tombstones),
                ("passed over", counts.passed_over),
            )
        ]
        for fault in self.faults.in_order()[:SHOWN]:
            entry = self.entry(fault)
            dead = f" [a dead letter: {entry['dead_letter']}]" if "dead_letter" in entry else ""
            lines.append(
                f"{entry['finding']}: partition {entry['partition']} offset {entry['offset']} {entry['key']}: "
                f"{entry['why']}{dead}"
            )
        more = len(self.faults.kept) - SHOWN + self.faults.dropped
        if more > 0:
            lines.append(f"... and {more} more; --missing-to FILE has them all")
        if self.faults.not_yet:
            lines.append(
                f"{self.faults.not_yet} of the missing are not committed by the live group yet: it is behind, see "
                "`spillway-uploader lag`"
            )
        lines += [f"cut: {one}" for one in (*self.gone, *counts.gone)]
        if self.failed:
            lines.append(self.failed)
        requests = self.requests
        lines.append(
            f"{counts.listed} records told by {requests.lists} listings, the others by {requests.heads} HEADs and "
            f"{requests.gets} GETs, in {duration(self.seconds)}"
        )
        lines.append(
            (
                "all there: every record in range is in S3, with its bytes"
                if counts.records
                else "nothing is missing: the range has no record that needs an object",
                "not all there",
                "could not tell of every record in range",
            )[self.exit_code]
        )
        return "\n".join(lines)


def _place(fault: Fault) -> tuple[int, int]:
    return fault.expected.partition, fault.expected.offset


def entry_of(topic: str, topic_id: str | None, fault: Fault) -> dict[str, object]:
    """One fault as a line of the file that `replay --from-file` reads."""
    expected = fault.expected
    return {
        "topic": topic,
        "topic_id": topic_id,
        "partition": expected.partition,
        "offset": expected.offset,
        "id": expected.record_id,
        "key": expected.key,
        "finding": "unknown" if fault.finding is None else str(fault.finding),
        "why": fault.why,
    }


def shown(verification: Verification, output: str) -> str:
    """What is printed."""
    return json.dumps(verification.document()) if output == "json" else verification.text()
