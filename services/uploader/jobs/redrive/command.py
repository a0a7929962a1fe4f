"""`spillway-uploader redrive`: makes objects of the dead letters, under the keys of the records that they were.

Owns the order of things: the range is closed; with --limit S3 is asked for all of it first, and the letters to be put
are chosen; then those are put as `replay` puts, each only where its object is not there with the same bytes. Produces
nothing and commits nothing: what was done is what is in S3, so a second run costs questions alone.
"""

import argparse
import json
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from services.uploader.errors import StoreError
from services.uploader.jobs import connections
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.connections import KafkaAwayError
from services.uploader.jobs.display import display_of
from services.uploader.jobs.letters.counts import LetterCounts
from services.uploader.jobs.letters.letter import Place, read_original
from services.uploader.jobs.letters.options import LettersRequest, add_letters, letters_of, positive_whole
from services.uploader.jobs.letters.selection import Oldest, Selection
from services.uploader.jobs.letters.survey import close_range, dead_settings, survey
from services.uploader.jobs.options import GIVE_UP_AFTER_S, OptionsError, Subparsers, bucket, positive
from services.uploader.jobs.redrive.report import RedrivePlan, RedriveReport
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.signals import EXIT_INTERRUPTED, until_signal
from services.uploader.jobs.span import Range, Span, group_offsets
from services.uploader.jobs.storing.replay import Outcome, Replay, Work
from services.uploader.jobs.storing.sink import JobSink, open_sink
from services.uploader.jobs.storing.state import PartitionState, Purpose
from services.uploader.jobs.topic_log import RangeError, log_client
from services.uploader.keys import KeyTemplate
from services.uploader.store.checksum import Checksum
from services.uploader.store.objects import open_objects
from services.uploader.store.options import StoreOptions
from services.uploader.topic_view import TopicView
from shared.settings import EXIT_CONFIGURATION, describe, stop
from shared.signals import on_first_signal

log = logging.getLogger("spillway.uploader.redrive")

_EPILOG = """examples:
  spillway-uploader redrive --dry-run
      how many dead letters there are, by reason, message and hour, and how many objects would be put
  spillway-uploader redrive --reason entity_too_large --limit 10
      try it with the ten oldest of one reason
  spillway-uploader redrive --rate 50
      all of them, at most 50 PUTs a second

It keeps no state and joins no group: S3 is asked for each letter first, so running it again, after a kill or out of
doubt, puts only what is not there. What S3 refuses again stays where it is, in KAFKA_DEAD_TOPIC, and is named.

exit code: 0 every letter that was meant is an object in S3 (with --limit: those that were put are); 1 some are not, and
it says which; 2 wrong options; 130 interrupted

environment variables:
"""


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be put: the range, or with --limit the letters in it that a survey has chosen."""

    closed: Range
    surveyed: "_Surveyed | None" = None

    @property
    def only(self) -> frozenset[Place] | None:
        """The chosen letters; None: all that are meant."""
        if self.surveyed is None:
            return None
        return frozenset(row.chosen.letter.place for row in self.surveyed.absent.rows)

    def spans(self) -> dict[int, Sequence[Span]]:
        """What is read, by partition."""
        only = self.only
        if only is None:
            return {span.partition: (span,) for span in self.closed.spans}
        offsets: dict[int, list[int]] = {}
        for place in only:
            offsets.setdefault(place.partition, []).append(place.offset)
        return dict(group_offsets(offsets))


def add_parser(commands: Subparsers) -> None:
    """Add the subcommand `redrive`."""
    parser = commands.add_parser(
        "redrive",
        help="store the dead letters",
        description="Store the records in KAFKA_DEAD_TOPIC under the keys that they would have had, where they are not "
        "there. The range is that of KAFKA_DEAD_TOPIC (default: all of it).",
        epilog=_EPILOG + describe(JobSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_letters(parser)
    parser.add_argument(
        "--limit", type=positive_whole, metavar="N", help="put at most N, the oldest letters whose object is not there"
    )
    parser.add_argument("--rate", type=positive, metavar="N", help="PUTs a second at most (default: as S3 takes them)")
    parser.add_argument("--to-bucket", type=bucket, metavar="BUCKET", help="write there instead of S3_BUCKET")
    parser.add_argument("--dry-run", action="store_true", help="count, and ask S3 what is there; write nothing")
    parser.add_argument(
        "--give-up-after",
        type=positive,
        default=GIVE_UP_AFTER_S,
        metavar="SECONDS",
        help="end when no letter was settled for so long (default %(default)g)",
    )


async def run(settings: JobSettings, arguments: argparse.Namespace) -> int:
    """Do what the options say; the exit code."""
    settings = dead_settings(settings, arguments.to_bucket)
    try:
        request = letters_of(arguments, round(datetime.now(UTC).timestamp() * 1000))
        if arguments.dry_run:
            return await until_signal(_dry_run(settings, request, arguments.limit, arguments.output))
        found: list[_Task] = []
        code = await until_signal(_choose(settings, request, arguments.limit, found))
        return code or await _redrive(settings, request, found[0], arguments)
    except OptionsError as error:
        stop(str(error), EXIT_CONFIGURATION)
    except (RangeError, KafkaAwayError, StoreError) as error:
        stop(str(error))


def _selection(settings: JobSettings, request: LettersRequest, only: Collection[Place] | None = None) -> Selection:
    return Selection(request.wanted, _keys(settings), settings.s3_folder, only)


def _keys(settings: JobSettings) -> KeyTemplate:
    return KeyTemplate(settings.s3_key_template, settings.s3_folder)


# -- what is there already


@dataclass(slots=True)
class _Surveyed:
    """What S3 has of the letters in a range. `absent`: the oldest without an object, as many as are wanted."""

    closed: Range
    selection: Selection
    counts: LetterCounts
    absent: Oldest
    absent_bytes: int = 0


async def _survey(settings: JobSettings, request: LettersRequest, wanted: int) -> _Surveyed:
    selection = _selection(settings, request)
    async with (
        connections.kafka(settings) as (client, view),
        open_objects(StoreOptions.of(settings, settings.max_workers)) as objects,
    ):
        closed = await close_range(view, settings, request.bounds)
        found = _Surveyed(closed, selection, LetterCounts(), Oldest(wanted))
        checker = Checker(objects, Checksum(settings.s3_checksum))
        pieces = survey(
            client, closed, selection.choose, checker, in_flight_max=settings.max_workers, asks_repeated=False
        )
        async with aclosing(pieces):
            async for piece in pieces:
                for one in piece:
                    found.counts.add(one.chosen.letter, one.finding)
                    if one.finding is Finding.MISSING:
                        found.absent.add(one)
                        found.absent_bytes += one.chosen.letter.size_bytes
    return found


async def _dry_run(settings: JobSettings, request: LettersRequest, limit: int | None, output: str) -> int:
    found = await _survey(settings, request, wanted=1)
    plan = RedrivePlan(
        settings.kafka_topic,
        settings.s3_bucket,
        settings.s3_key_template,
        found.counts,
        found.selection,
        found.closed.gone,
        limit,
        found.absent_bytes,
    )
    _print(json.dumps(plan.document()) if output == "json" else plan.text())
    return 1 if found.closed.gone else 0


async def _choose(settings: JobSettings, request: LettersRequest, limit: int | None, found: list[_Task]) -> int:
    """Find what is to be put, and add it to `found`; 0."""
    if limit is None:
        async with connections.kafka(settings) as (_, view):
            found.append(_Task(await close_range(view, settings, request.bounds)))
        return 0
    surveyed = await _survey(settings, request, limit)
    found.append(_Task(surveyed.closed, surveyed))
    return 0


# -- the work


async def _redrive(settings: JobSettings, request: LettersRequest, task: _Task, arguments: argparse.Namespace) -> int:
    selection = _selection(settings, request, task.only)
    spans = task.spans()
    purpose = Purpose(settings.s3_bucket, settings.s3_key_template, only_missing=True)
    states = {
        number: PartitionState(None, each[0].begin, each[-1].end, each[0].begin, purpose)
        for number, each in spans.items()
    }
    log.info(
        "redrive",
        extra={
            "topic": settings.kafka_topic,
            "ranges": {str(number): f"{state.begin}-{state.end - 1}" for number, state in states.items() if state.left},
            "letters": None if task.surveyed is None else len(task.surveyed.absent.rows),
            "bucket": settings.s3_bucket,
            "key_template": settings.s3_key_template,
        },
    )
    began_s = time.monotonic()
    sink = open_sink(
        settings,
        _keys(settings),
        only_missing=True,
        rate_per_s=arguments.rate,
        replaces=False,  # what is at the key was acknowledged to somebody, and this record never was stored
        read=read_original,
    )
    async with sink as job:
        replay = Replay(
            settings,
            Work(settings.kafka_topic, spans, states, selection.matches),
            job.sink,
            job.tally,
            job.readiness,
            display_of("redrive"),
            lambda: log_client(settings),
            lambda: TopicView(settings),
            give_up_after_s=arguments.give_up_after,
            keeps_state=False,
        )
        with on_first_signal(replay.stop):
            outcome = await replay.run()
    report = _report(settings, request, task, selection, job, outcome, time.monotonic() - began_s)
    _print(json.dumps(report.document()) if arguments.output == "json" else report.text())
    if outcome.stopped and not outcome.complete:
        return EXIT_INTERRUPTED
    return 0 if report.done else 1


def _report(
    settings: JobSettings,
    request: LettersRequest,
    task: _Task,
    selection: Selection,
    job: JobSink,
    outcome: Outcome,
    seconds: float,
) -> RedriveReport:
    states, there, left_letters = outcome.states, job.tally.there, 0
    if task.surveyed is not None:
        selection = task.surveyed.selection
        there += task.surveyed.counts.by_finding[Finding.SAME]
        left_letters = task.surveyed.counts.absent - len(task.surveyed.absent.rows)
    return RedriveReport(
        topic=settings.kafka_topic,
        bucket=settings.s3_bucket,
        selection=selection,
        tally=job.tally,
        there=there,
        gone=[*task.closed.gone, *(one for state in states.values() for one in state.gone)],
        wants_all=request.wanted.all,
        left_offsets=sum(state.left for state in states.values()),
        left_letters=left_letters,
        stopped=outcome.stopped,
        failed=outcome.failed,
        seconds=seconds,
    )


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the command's answer
