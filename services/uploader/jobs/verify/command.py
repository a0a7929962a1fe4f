"""`spillway-uploader verify`: is every record of a range in S3, with its bytes?

Owns the command's options, the range, the sessions of reading, and the file of what is missing.
"""

import argparse
import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from aiokafka.errors import GroupAuthorizationFailedError

from services.uploader.errors import StoreError
from services.uploader.jobs import connections
from services.uploader.jobs.bounds import Beginning
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.listing import DIRECTORY_BUCKET
from services.uploader.jobs.connections import KafkaAwayError
from services.uploader.jobs.display import Speed, View, display_of
from services.uploader.jobs.letters.letter import Letter, read_letter
from services.uploader.jobs.letters.survey import dead_settings, records
from services.uploader.jobs.offset_file import OffsetWriter, UnwritableFileError
from services.uploader.jobs.options import (
    GIVE_UP_AFTER_S,
    Bounds,
    OptionsError,
    Subparsers,
    add_filter,
    add_output,
    add_range,
    add_target,
    bounds_of,
    filter_of,
    keys_of,
    prefix_of,
)
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.signals import EXIT_INTERRUPTED, until_signal
from services.uploader.jobs.span import Range, Span
from services.uploader.jobs.storing.group import commits_of
from services.uploader.jobs.topic_log import RangeError, closed_range
from services.uploader.jobs.verify.report import CANNOT_TELL, Faults, Verification, entry_of, shown
from services.uploader.jobs.verify.verifier import Fault, Verifier
from services.uploader.partition import read_record
from services.uploader.store.checksum import Checksum
from services.uploader.store.objects import open_objects
from services.uploader.store.options import StoreOptions
from shared.settings import EXIT_CONFIGURATION, describe, stop

log = logging.getLogger("spillway.uploader.verify")

SESSION_PAUSE_S = 1.0
DEAD_LETTERS_S = 60.0
"""How long is looked for missing records among the dead letters."""

_EPILOG = """examples:
  spillway-uploader verify --from 2026-11-24 --to 2026-11-25
      is everything of the 24th there?
  spillway-uploader verify --from 2h --missing-to missing.jsonl
  test $? = 1 && spillway-uploader replay --from-file missing.jsonl
      compare, and put back what is missing or different

exit code: 0 everything in range is there; 1 something is missing or different; 2 it could not be told (S3 or Kafka did
not answer, retention has taken a part of the range, wrong options)

environment variables:
"""


def add_parser(commands: Subparsers) -> None:
    """Add the subcommand `verify`."""
    parser = commands.add_parser(
        "verify",
        help="compare a range of the topic with S3",
        description="Compare every record of a range of KAFKA_TOPIC with its object in S3: there, its size, its sum.",
        epilog=_EPILOG + describe(JobSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_range(parser)
    add_filter(parser)
    add_target(parser, "compare with")
    parser.add_argument(
        "--heads", action="store_true", help="ask for each object, and compare its metadata's origin too; no listings"
    )
    parser.add_argument(
        "--missing-to", type=Path, metavar="FILE", help="write what is missing or different, for `replay --from-file`"
    )
    add_output(parser)


async def run(settings: JobSettings, arguments: argparse.Namespace) -> int:
    """Compare and print; the exit code."""
    try:
        bounds = bounds_of(arguments, round(time.time() * 1000))
        code = await until_signal(_verify(settings, arguments, bounds))
    except OptionsError as error:
        stop(str(error), EXIT_CONFIGURATION)
    except UnwritableFileError as error:
        stop(f"--missing-to {error}", CANNOT_TELL)
    except (RangeError, KafkaAwayError, StoreError) as error:
        stop(str(error), CANNOT_TELL)
    if code == EXIT_INTERRUPTED:
        stop("interrupted: nothing is proven", code)
    return code


async def _verify(settings: JobSettings, arguments: argparse.Namespace, bounds: Bounds) -> int:
    settings = settings.model_copy(update={"s3_bucket": arguments.to_bucket or settings.s3_bucket})
    keys, wanted = keys_of(settings, prefix_of(arguments)), filter_of(arguments)
    async with connections.kafka(settings) as (_, view):
        topic_id = await view.topic_id()
        try:
            committed = await commits_of(view, settings.kafka_group_id)
        except GroupAuthorizationFailedError:  # it is for a hint alone
            committed = {}
        closed = await closed_range(settings, view, settings.kafka_topic, bounds.lower, bounds.upper, bounds.partitions)
    faults = Faults({tp.partition: at.offset for tp, at in committed.items() if tp.topic == settings.kafka_topic})
    began_s, options = time.monotonic(), StoreOptions.of(settings, settings.max_uploads)
    async with open_objects(options) as objects:
        checker = Checker(objects, Checksum(settings.s3_checksum))
        with OffsetWriter(arguments.missing_to) as file:

            def found(fault: Fault) -> None:
                faults.add(fault)
                file.write(entry_of(settings.kafka_topic, topic_id, fault))

            verifier = Verifier(
                checker,
                keys,
                read_record,
                lambda record: wanted.means(record, settings.s3_folder),
                found,
                before_ms=closed.before_ms,
                lists=not arguments.heads and not settings.s3_bucket.endswith(DIRECTORY_BUCKET),
            )
            await verifier.look_at_bucket()
            failed = await _read_all(settings, closed, verifier) or await _made_anew(settings, topic_id)
            file.keep()
    dead = await _dead_letters(settings, faults) if verifier.counts.missing else {}
    verification = Verification(
        topic=settings.kafka_topic,
        topic_id=topic_id,
        bucket=settings.s3_bucket,
        key_template=keys.template,
        spans=closed.spans,
        gone=closed.gone,
        counts=verifier.counts,
        faults=faults,
        dead=dead,
        requests=checker.requests,
        seconds=time.monotonic() - began_s,
        failed=failed,
    )
    print(shown(verification, arguments.output))  # noqa: T201 - the command's answer
    return verification.exit_code


async def _made_anew(settings: JobSettings, topic_id: str | None) -> str:
    """Why nothing is proven where the topic is another one now; else empty."""
    until_s = time.monotonic() + GIVE_UP_AFTER_S
    while True:
        try:
            async with connections.kafka(settings) as (_, view):
                if await view.topic_id() == topic_id:
                    return ""
                break
        except KafkaAwayError as error:
            if time.monotonic() > until_s:
                return f"whether the topic is still the same cannot be told: {error}"
            await asyncio.sleep(SESSION_PAUSE_S)
    return f"topic {settings.kafka_topic} was made anew, or deleted, meanwhile: nothing is proven"


async def _dead_letters(settings: JobSettings, faults: Faults) -> dict[tuple[int, int], str]:
    """Which of the records are dead letters, with the reason: `redrive` is for these. Nothing is known without it."""
    of_dead, places = dead_settings(settings), {(one.expected.partition, one.expected.offset) for one in faults.kept}
    found: dict[tuple[int, int], str] = {}
    try:
        async with asyncio.timeout(DEAD_LETTERS_S), connections.kafka(of_dead) as (client, view):
            closed = await closed_range(of_dead, view, of_dead.kafka_topic, Beginning(), None)
            async with aclosing(records(client, closed)) as pieces:
                async for raw in (raw async for piece in pieces for raw in piece):
                    letter = read_letter(raw)
                    if not isinstance(letter, Letter) or letter.original.topic != settings.kafka_topic:
                        continue
                    place = letter.original.partition, letter.original.offset
                    if place in places:
                        found[place] = letter.reason
    except (KafkaAwayError, RangeError, TimeoutError) as error:
        log.warning("the dead letters were not looked at", extra={"cause": str(error) or type(error).__name__})
    return found


async def _read_all(settings: JobSettings, closed: Range, verifier: Verifier) -> str:
    """Compare to the end of the range, with as many clients as it takes; why that was not to be, or empty."""
    positions = {span.partition: span.begin for span in closed.spans}
    speed, display, moved_s = Speed(), display_of("verify"), time.monotonic()

    def moved(to: Mapping[int, int]) -> None:
        nonlocal moved_s
        positions.update(to)
        moved_s = time.monotonic()
        display.show(_view(closed, positions, verifier, speed.of(verifier.counts.records, moved_s)))

    try:
        while left := _unread(closed, positions):
            try:
                async with connections.kafka(settings) as (client, _):
                    await verifier.compare(client, closed.topic, left, moved)
            except KafkaAwayError as error:
                verifier.forget()
                log.warning("reading again from what was compared", extra={"cause": str(error)})
                if time.monotonic() - moved_s > GIVE_UP_AFTER_S:
                    return f"gave up after {GIVE_UP_AFTER_S:g} s: {error}"
                await asyncio.sleep(SESSION_PAUSE_S)
    finally:
        display.close()
    return ""


def _unread(closed: Range, positions: Mapping[int, int]) -> dict[int, Span]:
    return {
        span.partition: replace(span, begin=positions[span.partition])
        for span in closed.spans
        if positions[span.partition] < span.end
    }


def _view(closed: Range, positions: Mapping[int, int], verifier: Verifier, rate: float) -> View:
    partitions = {span.partition: (positions[span.partition] - span.begin, span.offsets) for span in closed.spans}
    left = sum(size - done for done, size in partitions.values())
    return View(
        partitions=partitions,
        records=verifier.counts.records,
        bytes=verifier.counts.bytes,
        errors=verifier.counts.unknown,
        rate=rate,
        seconds_left=left / rate if rate > 0 else None,
    )
