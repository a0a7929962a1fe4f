"""What `replay` says at its end, and its dry run: for people, or as one JSON document on standard output."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from services.uploader.jobs.bounds import iso
from services.uploader.jobs.display import duration
from services.uploader.jobs.replay.plan import Plan, Prices, Probe
from services.uploader.jobs.signals import EXIT_INTERRUPTED
from services.uploader.jobs.span import Gone, Range
from services.uploader.jobs.storing.state import PartitionState
from services.uploader.jobs.storing.tally import NotStored, Tally

SHOWN = 20
"""Records that are named one by one on a terminal; JSON has all of them."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a run of a job ended.

    `resume`: the command that goes on; None: nothing is left. `ended_before`: nothing was left when this run began.
    """

    job: str
    topic: str
    bucket: str
    states: Mapping[int, PartitionState]
    tally: Tally
    tombstones: int
    seconds: float
    stopped: bool
    failed: str
    uncommitted: bool
    resume: str | None
    ended_before: bool = False

    @property
    def not_stored(self) -> list[NotStored]:
        """Each record that S3 can never take, of this run, once."""
        found = {(one.partition, one.offset): one for one in self.tally.not_stored}
        return [found[place] for place in sorted(found)]

    @property
    def not_stored_before(self) -> int:
        """How many earlier runs of the job have met, and named then."""
        # A state counts what lies below its commit; what this run met above it comes again with the next.
        ours = sum(one.offset < self.states[one.partition].settled for one in self.not_stored)
        return max(0, sum(state.not_stored for state in self.states.values()) - ours)

    @property
    def gone(self) -> list[Gone]:
        """What Kafka did not have any more."""
        return [one for state in self.states.values() for one in state.gone]

    @property
    def complete(self) -> bool:
        """Whether every record in range is in S3."""
        left = any(state.left for state in self.states.values())
        return not (left or self.not_stored or self.not_stored_before or self.gone or self.failed)

    @property
    def exit_code(self) -> int:
        """0: complete; 130: interrupted, with something left; 1: something is not stored."""
        if self.stopped and self.resume is not None:
            return EXIT_INTERRUPTED
        return 0 if self.complete else 1

    def document(self) -> dict[str, object]:
        """As JSON."""
        tally = self.tally
        return {
            "job": self.job,
            "topic": self.topic,
            "bucket": self.bucket,
            "complete": self.complete,
            "stopped": self.stopped,
            "ended_before": self.ended_before,
            "failed": self.failed,
            "uncommitted": self.uncommitted,
            "resume": self.resume,
            "seconds": round(self.seconds, 1),
            "stored": tally.stored,
            "stored_bytes": tally.stored_bytes,
            "already_there": tally.there,
            "passed_over": tally.skipped,
            "tombstones": self.tombstones,
            "errors_retried": tally.errors,
            "not_stored": [asdict(one) for one in self.not_stored],
            "not_stored_before": self.not_stored_before,
            "gone": [str(one) for one in self.gone],
            "partitions": {
                str(number): {"begin": state.begin, "end": state.end, "settled": state.settled}
                for number, state in sorted(self.states.items())
            },
        }

    def text(self) -> str:
        """For people."""
        tally = self.tally
        counts = (
            f"job {self.job}: {tally.stored} objects stored ({tally.stored_bytes} bytes) in s3://{self.bucket}, "
            f"{tally.there} were there, {tally.skipped} passed over, {self.tombstones} tombstones, "
            f"{tally.errors} errors retried, in {duration(self.seconds)}"
        )
        lines = [counts]
        if self.not_stored:
            lines.append(f"not stored, S3 can never take them: {len(self.not_stored)}")
            lines += [
                f"  partition {one.partition} offset {one.offset}: {one.reason}: {one.message}"
                for one in self.not_stored[:SHOWN]
            ]
        if self.not_stored_before:
            firsts = [
                f"partition {number} offset {state.first_not_stored}"
                for number, state in sorted(self.states.items())
                if state.first_not_stored is not None
            ]
            lines.append(
                f"not stored by earlier runs of this job: {self.not_stored_before}, the first of them "
                f"{', '.join(firsts)}; `spillway-uploader verify` names them all"
            )
        lines += [f"cut: {one}" for one in self.gone]
        if self.failed:
            lines.append(self.failed)
        if self.uncommitted:
            lines.append(
                "the job's state could not be committed: a resume stores some of it again, with the same bytes"
            )
        if self.resume is not None:
            left = sum(state.left for state in self.states.values())
            lines.append(f"{left} offsets are left; go on with: {self.resume}")
        elif self.ended_before:
            lines.append(
                "this job had ended before, and did nothing now: `spillway-uploader verify` says what is in S3, and a "
                "job of another name stores it again"
            )
        elif self.complete:
            done = tally.stored + tally.there + self.tombstones
            lines.append(
                "complete: every record in range is in S3"
                if done or not tally.skipped
                else "nothing to do: no record of the range is meant (--folder, --id)"
            )
        return "\n".join(lines)


def print_report(report: Report, output: str) -> None:
    """Print it."""
    print(json.dumps(report.document()) if output == "json" else report.text())  # noqa: T201 - the command's answer


def print_plan(
    closed: Range,
    times_ms: Mapping[int, int],
    plan: Plan,
    probe: Probe,
    prices: Prices,
    template: str,
    bucket: str,
    output: str,
) -> None:
    """Print what a replay would do."""
    if output == "json":
        document = {
            "topic": closed.topic,
            "bucket": bucket,
            "key_template": template,
            "partitions": [
                {"partition": s.partition, "begin": s.begin, "end": s.end, "first_ms": times_ms.get(s.partition)}
                for s in closed.spans
            ],
            "gone": [str(one) for one in closed.gone],
            **asdict(plan),
            "currency": prices.currency,
            "prices_of": prices.source,
            "probe": asdict(probe),
        }
        print(json.dumps(document))  # noqa: T201 - the command's answer
        return
    print(plan_text(closed, times_ms, plan, probe, prices, template, bucket))  # noqa: T201 - the command's answer


def plan_text(
    closed: Range, times_ms: Mapping[int, int], plan: Plan, probe: Probe, prices: Prices, template: str, bucket: str
) -> str:
    """The plan, for people."""
    lines = [f"topic {closed.topic} -> s3://{bucket}/{template}", "partition  offsets                first record"]
    for span in closed.spans:
        first = iso(times_ms[span.partition]) if span.partition in times_ms else "-"
        where = f"{span.begin}-{span.end - 1}" if span.offsets else "nothing"
        lines.append(f"{span.partition:>9}  {where:<22} {first}")
    lines += [f"WARNING, the range is cut: {one}" for one in closed.gone]
    about = "" if plan.exact else "about "
    lines.append(
        f"{about}{plan.records} records, {plan.bytes} bytes: {about}{plan.puts} PUTs and {plan.heads} HEADs, "
        f"{plan.cost:.4f} {prices.currency} (prices of {prices.source})"
    )
    if plan.seconds is None:
        lines.append("time: not known, the probe found nothing to ask S3 for")
    else:
        asked = f"S3 answered {probe.asked} HEADs at {probe.requests_a_second:.0f}/s"
        lines.append(
            f"time: about {duration(plan.seconds)} ({asked}; {probe.missing} of these objects are missing or different)"
        )
    lines.append("nothing was written")
    return "\n".join(lines)
