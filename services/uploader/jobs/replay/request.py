"""What somebody asks `replay` to do, read from its options and checked against itself. Starts nothing."""

import argparse
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from services.uploader.jobs.bounds import Offsets
from services.uploader.jobs.offset_file import InvalidFileError, OffsetFile, read_offsets
from services.uploader.jobs.options import (
    GIVE_UP_AFTER_S,
    Bounds,
    Filter,
    OptionsError,
    Subparsers,
    add_filter,
    add_output,
    add_range,
    add_target,
    bounds_of,
    filter_of,
    partitions_of,
    positive,
    prefix_of,
)
from services.uploader.jobs.settings import JobSettings
from shared.settings import describe

_DAY_MS = 86_400_000
TYPED_MAX = 300  # characters: what a job is must fit into the note of a commit

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EPILOG = """examples:
  spillway-uploader replay --from 2h --dry-run
      what storing everything of the last two hours again would do, cost and take
  spillway-uploader replay --from 2026-11-25T06:00 --to 2026-11-25T08:00 --only-missing --job outage-1125
      put back what is not in S3, as the job outage-1125
  spillway-uploader replay --resume outage-1125
      go on where that job was, after Ctrl-C, a kill or a lost node; so does the same command line with the same --job
  spillway-uploader replay --from p0:1000-1999,p3:0-99 --rate 200
      two ranges of offsets, at most 200 PUTs a second

exit code: 0 everything in range is in S3; 1 something is not, and it says what; 2 wrong options; 130 interrupted

environment variables:
"""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What is asked for.

    Attributes:
        job: the job's name.
        resume: go on with it; then only `partitions`, `file` and `rate` mean something here.
        bounds: the range; of a file, that of its offsets.
        typed: the range in the words of who asked; empty for a file's.
        moves: whether the same words mean another range later.
        partitions: only these; None: all of the range.
        file: names the records; None: all of the range.
        filter: which of them are meant.
        only_missing: leave alone what is there.
        to_bucket: instead of S3_BUCKET.
        to_prefix: before every key; empty for none.
        rate_per_s: puts a second; None: no limit.
        dry_run: only say what would be done.
        give_up_after_s: without a record settled, the job ends.

    """

    job: str
    resume: bool
    bounds: Bounds | None
    typed: str
    moves: bool
    partitions: frozenset[int] | None
    file: OffsetFile | None
    filter: Filter
    only_missing: bool
    to_bucket: str | None
    to_prefix: str
    rate_per_s: float | None
    dry_run: bool
    give_up_after_s: float


def add_parser(commands: Subparsers) -> None:
    """Add the subcommand `replay`."""
    parser = commands.add_parser(
        "replay",
        help="store a range of the topic again, beside the live group",
        description="Store every record of a range of KAFKA_TOPIC in S3, under the same keys, beside the live group.",
        epilog=_EPILOG + describe(JobSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_range(parser)
    parser.add_argument(
        "--from-file",
        type=Path,
        metavar="FILE",
        help="only the records that FILE names (`verify --missing-to` writes it)",
    )
    add_filter(parser)
    parser.add_argument(
        "--only-missing", action="store_true", help="ask S3 first, and put only what is not there or is different"
    )
    parser.add_argument(
        "--rate",
        type=positive,
        metavar="N",
        help="PUTs a second at most, questions to S3 counted (default: as S3 takes them)",
    )
    add_target(parser, "write to")
    parser.add_argument(
        "--job",
        metavar="NAME",
        help="the job's name (default: one made of the time); started again with the same options, it goes on",
    )
    parser.add_argument("--resume", metavar="NAME", help="go on with the job NAME")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, cost and take; write nothing")
    parser.add_argument(
        "--give-up-after",
        type=positive,
        default=GIVE_UP_AFTER_S,
        metavar="SECONDS",
        help="end when no record was settled for so long (default %(default)g)",
    )
    add_output(parser)


def request_of(arguments: argparse.Namespace, now_ms: int, new_name: str, topic: str) -> ReplayRequest:
    """Read the options.

    Args:
        arguments: as parsed.
        now_ms: milliseconds since 1970.
        new_name: of a job that is given none.
        topic: that is read.

    Raises:
        OptionsError: they contradict each other, or name what cannot be.

    """
    if arguments.resume is not None:
        _refuse_with_resume(arguments)
    name = next(each for each in (arguments.resume, arguments.job, new_name) if each is not None)
    if not _JOB.fullmatch(name):
        raise OptionsError(f"a job's name is 1 to 64 of A-Z a-z 0-9 . _ -, and {name!r} is not")
    file = _file_of(arguments, topic)
    bounds, moves = None, False
    if file is not None:
        offsets = {number: (min(each), max(each) + 1) for number, each in file.offsets.items()}
        bounds = Bounds(Offsets(offsets), None, partitions_of(arguments))
        if bounds.partitions is not None and not bounds.partitions & offsets.keys():
            raise OptionsError("--partitions has none of the partitions of --from-file")
    elif arguments.resume is None:
        bounds = bounds_of(arguments, now_ms)
        moves = _is_open(bounds) or _differs_later(arguments, bounds, now_ms)
    return ReplayRequest(
        job=name,
        resume=arguments.resume is not None,
        bounds=bounds,
        typed=_typed(arguments),
        moves=moves,
        partitions=partitions_of(arguments),
        file=file,
        filter=filter_of(arguments),
        only_missing=arguments.only_missing,
        to_bucket=arguments.to_bucket,
        to_prefix=prefix_of(arguments),
        rate_per_s=arguments.rate,
        dry_run=arguments.dry_run,
        give_up_after_s=arguments.give_up_after,
    )


def _differs_later(arguments: argparse.Namespace, bounds: Bounds, now_ms: int) -> bool:
    """Whether the same words, typed a day and a moment later, mean another range: `2h` and `yesterday` do."""
    try:
        return bounds != bounds_of(arguments, now_ms + _DAY_MS + 1)
    except OptionsError:
        return True


def _typed(arguments: argparse.Namespace) -> str:
    given = {"--from": arguments.lower, "--to": arguments.upper}
    text = " ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    if len(text) <= TYPED_MAX:
        return text
    return f"{text[: TYPED_MAX // 2]}... (SHA-256 {hashlib.sha256(text.encode()).hexdigest()})"


def _is_open(bounds: Bounds) -> bool:
    """Whether it ends where the log happens to end."""
    if isinstance(bounds.lower, Offsets):
        return any(end is None for _, end in bounds.lower.spans.values())
    return bounds.upper is None


def _refuse_with_resume(arguments: argparse.Namespace) -> None:
    given = {
        "--from": arguments.lower,
        "--to": arguments.upper,
        "--folder": arguments.folder,
        "--id": arguments.record_id,
        "--only-missing": arguments.only_missing or None,
        "--to-bucket": arguments.to_bucket,
        "--to-prefix": arguments.to_prefix,
        "--job": arguments.job,
        "--dry-run": arguments.dry_run or None,
    }
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise OptionsError(f"--resume goes on with what the job was started with: leave {', '.join(wrong)} out")


def _file_of(arguments: argparse.Namespace, topic: str) -> OffsetFile | None:
    if arguments.from_file is None:
        return None
    if arguments.lower is not None or arguments.upper is not None:
        raise OptionsError("--from-file names the records: leave --from and --to out")
    try:
        file = read_offsets(arguments.from_file)
    except InvalidFileError as error:
        raise OptionsError(f"--from-file: {error}") from None
    if not file.offsets:
        raise OptionsError(f"--from-file: {arguments.from_file} names no record; there is nothing to do")
    if file.topic not in (None, topic):
        raise OptionsError(f"--from-file is of topic {file.topic}, and KAFKA_TOPIC={topic}")
    return file
