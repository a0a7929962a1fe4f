"""What `redrive` says: its dry run and how it ended, for people or as one JSON document. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from services.uploader.jobs.display import duration
from services.uploader.jobs.letters.counts import LetterCounts, one_line
from services.uploader.jobs.letters.letter import Place
from services.uploader.jobs.letters.selection import Selection
from services.uploader.jobs.letters.text import broken_document, broken_lines
from services.uploader.jobs.span import Gone
from services.uploader.jobs.storing.tally import NotStored, Tally

SHOWN = 20
"""Letters that are named one by one on a terminal; JSON has all of them."""


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """What a redrive would do.

    Attributes:
        topic: of the dead letters.
        bucket: that would be written to.
        key_template: of the keys.
        counts: of the letters that are meant, and of what S3 has of them.
        selection: what was seen on the way.
        gone: what Kafka does not have any more.
        limit: puts at most; None: all.
        objects_bytes: of the values that are not there.

    """

    topic: str
    bucket: str
    key_template: str
    counts: LetterCounts
    selection: Selection
    gone: Sequence[Gone]
    limit: int | None
    objects_bytes: int

    @property
    def puts(self) -> int:
        """How many objects would be written."""
        return self.counts.absent if self.limit is None else min(self.limit, self.counts.absent)

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {
            "topic": self.topic,
            "bucket": self.bucket,
            "key_template": self.key_template,
            **self.counts.document(),
            "in_s3": dict(self.counts.by_finding),
            "repeated": self.selection.repeated,
            "passed_over": self.selection.passed_over,
            "puts": self.puts,
            "absent": self.counts.absent,
            "absent_bytes": self.objects_bytes,
            "broken": self.selection.broken,
            "broken_letters": [broken_document(one) for one in self.selection.broken_first],
            "gone": [str(one) for one in self.gone],
        }

    def text(self) -> str:
        """For people."""
        found = self.counts.by_finding
        lines = [f"{self.topic} -> s3://{self.bucket}/{self.key_template}"]
        lines.append(f"{self.counts.letters} dead letters{_others(self.selection)}")
        if self.counts.letters:
            lines += self.counts.lines(messages=True)
        lines.append("in S3 by now: " + (", ".join(f"{each} {found[each]}" for each in sorted(found)) or "none asked"))
        lines += [f"cut: {one}" for one in self.gone]
        lines += broken_lines(self.selection)
        limited = "" if self.puts == self.counts.absent else f" (--limit), of {self.counts.absent} that are not there"
        lines.append(f"a redrive would put {self.puts} objects{limited}; nothing was written")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """How a redrive ended.

    Attributes:
        topic: of the dead letters.
        bucket: that was written to.
        selection: what was seen of the range.
        tally: what was done.
        there: letters whose object was there before.
        gone: what Kafka did not have any more.
        wants_all: whether no filter was given: then a broken letter is one that could not be stored.
        left_offsets: of the range, that were not come to.
        left_letters: with --limit: letters whose object is not there, beyond the limit.
        stopped: by a signal.
        failed: why it gave up; empty: it did not.
        seconds: that it took.

    """

    topic: str
    bucket: str
    selection: Selection
    tally: Tally
    there: int
    gone: Sequence[Gone]
    wants_all: bool
    left_offsets: int
    left_letters: int
    stopped: bool
    failed: str
    seconds: float

    @property
    def refused(self) -> list[NotStored]:
        """Each letter that S3 has refused again, once, in the order of places."""
        found = {(one.partition, one.offset): one for one in self.tally.not_stored}
        return [found[place] for place in sorted(found)]

    @property
    def errors(self) -> int:
        """Puts and questions that failed and were tried again; a refusal is none of them."""
        return self.tally.errors - len(self.tally.not_stored)

    @property
    def done(self) -> bool:
        """Whether the exit code is 0: everything that was to be put is there."""
        nothing_lost = not (self.refused or self.failed or self.gone or self.left_offsets)
        unreadable = self.wants_all and self.selection.broken and not self.left_letters
        return nothing_lost and not unreadable

    @property
    def complete(self) -> bool:
        """Whether every letter in range that is meant is an object."""
        return self.done and not self.left_letters

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {
            "topic": self.topic,
            "bucket": self.bucket,
            "complete": self.complete,
            "stopped": self.stopped,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "letters": self.selection.meant,
            "stored": self.tally.stored,
            "stored_bytes": self.tally.stored_bytes,
            "already_there": self.there,
            "repeated": self.selection.repeated,
            "passed_over": self.selection.passed_over,
            "errors_retried": self.errors,
            "refused": [{"letter": str(Place(one.partition, one.offset)), **asdict(one)} for one in self.refused],
            "broken": self.selection.broken,
            "broken_letters": [broken_document(one) for one in self.selection.broken_first],
            "gone": [str(one) for one in self.gone],
            "left_offsets": self.left_offsets,
            "left_letters": self.left_letters,
        }

    def text(self) -> str:
        """For people."""
        tally = self.tally
        repeated = self.selection.repeated
        same = f", {repeated} of a record that another letter has too" if repeated else ""
        counts = (
            f"{self.topic}: {self.selection.meant} dead letters{_others(self.selection)}: {tally.stored} objects "
            f"stored ({tally.stored_bytes} bytes) in s3://{self.bucket}, {self.there} were there{same}, "
            f"{self.errors} errors retried, in {duration(self.seconds)}"
        )
        lines = [counts]
        if self.refused:
            lines.append(f"refused again, they stay dead letters: {len(self.refused)}")
            lines += [
                f"  {Place(one.partition, one.offset)}: {one.reason}: {one_line(one.message)}"
                for one in self.refused[:SHOWN]
            ]
            if len(self.refused) > SHOWN:
                lines.append("  … (`--output json` names all)")
        lines += broken_lines(self.selection)
        lines += [f"cut: {one}" for one in self.gone]
        lines += [self.failed] if self.failed else []
        if self.left_offsets:
            lines.append(
                f"{self.left_offsets} offsets are left; run it again: what is in S3 by then is not put a second time"
            )
        if self.left_letters:
            lines.append(f"{self.left_letters} letters are left (--limit); their objects are not in S3 yet")
        if self.complete:
            lines.append(
                "complete: every letter that was meant is an object in S3"
                if self.selection.meant or not self.selection.passed_over
                else "nothing to do: the filters leave no letter"
            )
        return "\n".join(lines)


def _others(selection: Selection) -> str:
    return f" ({selection.passed_over} others passed over)" if selection.passed_over else ""
