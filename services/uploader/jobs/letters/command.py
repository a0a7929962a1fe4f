"""`spillway-uploader dead-letters list|show`: what is in KAFKA_DEAD_TOPIC. Reads; writes nothing anywhere."""

import argparse
import json
import shutil
import sys
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime

from services.uploader.errors import StoreError
from services.uploader.jobs import connections
from services.uploader.jobs.bounds import Offsets
from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.connections import KafkaAwayError
from services.uploader.jobs.letters.counts import LetterCounts
from services.uploader.jobs.letters.letter import Broken, InvalidPlaceError, parse_place, read_letter
from services.uploader.jobs.letters.options import LettersRequest, add_letters, letters_of, whole
from services.uploader.jobs.letters.selection import Oldest, Selection, Surveyed
from services.uploader.jobs.letters.survey import close_range, dead_settings, records, survey
from services.uploader.jobs.letters.text import (
    broken_document,
    broken_lines,
    header_lines,
    headers_document,
    surveyed_document,
    table,
    value_lines,
    when,
    whole_document,
    whole_lines,
)
from services.uploader.jobs.options import Bounds, OptionsError, Subparsers, add_output
from services.uploader.jobs.settings import JobSettings
from services.uploader.jobs.signals import until_signal
from services.uploader.jobs.topic_log import RangeError
from services.uploader.keys import KeyTemplate
from services.uploader.store.checksum import Checksum
from services.uploader.store.objects import open_objects
from services.uploader.store.options import StoreOptions
from shared.settings import EXIT_CONFIGURATION, describe, stop

LISTED = 20
VALUE_BYTES = 1000

_LIST_EPILOG = """examples:
  spillway-uploader dead-letters list
      how many there are, by reason and by hour, and the first of them
  spillway-uploader dead-letters list --from 2h --reason entity_too_large --check
      those of the last two hours and of one reason, and whether their objects are in S3 by now
  spillway-uploader dead-letters list --limit 0 --output json
      all of them, with all fields

exit code: 0 it was read; 1 Kafka or S3 could not be asked; 2 wrong options; 130 interrupted

environment variables:
"""
_SHOW_EPILOG = """examples:
  spillway-uploader dead-letters show p0:17
      the letter at offset 17 of partition 0 of KAFKA_DEAD_TOPIC
  spillway-uploader dead-letters show p0:17 --raw > payload.json
      its value, byte for byte

exit code: 0 it was read; 1 there is no such record, or Kafka could not be asked; 2 wrong options; 130 interrupted

environment variables:
"""


def add_parser(commands: Subparsers) -> None:
    """Add the subcommand `dead-letters`."""
    parser = commands.add_parser(
        "dead-letters",
        help="look at the records that S3 would not take",
        description="Look at KAFKA_DEAD_TOPIC: the records that S3 would not take. `redrive` stores them.",
    )
    looks = parser.add_subparsers(dest="look", required=True)
    listing = looks.add_parser(
        "list",
        help="count them by reason and by hour, and list them",
        description="Count the letters of KAFKA_DEAD_TOPIC by reason and by hour, and list the oldest of them.",
        epilog=_LIST_EPILOG + describe(JobSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_letters(listing)
    listing.add_argument(
        "--limit", type=whole, default=LISTED, metavar="N", help="letters that are listed; 0: all (default %(default)s)"
    )
    listing.add_argument("--check", action="store_true", help="ask S3 for each letter whether its object is there now")
    show = looks.add_parser(
        "show",
        help="show one of them whole",
        description="Show one letter of KAFKA_DEAD_TOPIC whole: why it is one, its headers, its value.",
        epilog=_SHOW_EPILOG + describe(JobSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("place", metavar="PLACE", help="p0:17, partition and offset in KAFKA_DEAD_TOPIC")
    show.add_argument(
        "--bytes", type=whole, metavar="N", help=f"bytes of the value that are shown (default {VALUE_BYTES})"
    )
    show.add_argument("--raw", action="store_true", help="write the value's bytes to standard output, and nothing else")
    add_output(show)


async def run(settings: JobSettings, arguments: argparse.Namespace) -> int:
    """Do what the options say; the exit code."""
    settings = dead_settings(settings)
    try:
        if arguments.look == "show":
            return await until_signal(_show(settings, arguments))
        request = letters_of(arguments, round(datetime.now(UTC).timestamp() * 1000))
        return await until_signal(
            _list(settings, request, arguments.output, listed=arguments.limit, check=arguments.check)
        )
    except (OptionsError, InvalidPlaceError) as error:
        stop(str(error), EXIT_CONFIGURATION)
    except (RangeError, KafkaAwayError, StoreError) as error:
        stop(str(error))


# -- list


async def _list(settings: JobSettings, request: LettersRequest, output: str, *, listed: int, check: bool) -> int:
    selection = Selection(request.wanted, KeyTemplate(settings.s3_key_template, settings.s3_folder), settings.s3_folder)
    counts, oldest = LetterCounts(), Oldest(listed)
    async with AsyncExitStack() as stack:
        client, view = await stack.enter_async_context(connections.kafka(settings))
        closed = await close_range(view, settings, request.bounds)
        checker = None
        if check:
            objects = await stack.enter_async_context(open_objects(StoreOptions.of(settings, settings.max_workers)))
            checker = Checker(objects, Checksum(settings.s3_checksum))
        pieces = survey(
            client, closed, selection.choose, checker, in_flight_max=settings.max_workers, asks_repeated=True
        )
        async with aclosing(pieces):
            async for piece in pieces:
                for one in piece:
                    counts.add(one.chosen.letter, one.finding)
                    oldest.add(one)
    if output == "json":
        document = {
            "topic": settings.kafka_topic,
            **counts.document(),
            "in_s3": dict(counts.by_finding) if check else None,
            "passed_over": selection.passed_over,
            "broken": selection.broken,
            "broken_letters": [broken_document(one) for one in selection.broken_first],
            "gone": [str(one) for one in closed.gone],
            "listed": [surveyed_document(one) for one in oldest.rows],
        }
        _print(json.dumps(document))
    else:
        _print("\n".join(_list_lines(settings.kafka_topic, selection, counts, oldest.rows, check=check)))
    return 0


def _list_lines(
    topic: str, selection: Selection, counts: LetterCounts, rows: list[Surveyed], *, check: bool
) -> list[str]:
    others = f", {selection.passed_over} others" if selection.passed_over else ""
    lines = [f"{topic}: {counts.letters} dead letters, {counts.bytes} bytes{others}"]
    if check:
        found = counts.by_finding
        lines.append("in S3 by now: " + ", ".join(f"{each} {found[each]}" for each in sorted(found)))
    if counts.letters:
        lines += counts.lines(messages=False)
    if rows:
        lines += ["", *table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)]
    if counts.letters > len(rows):
        lines.append(f"… and {counts.letters - len(rows)} more (`--limit`)")
    return lines + broken_lines(selection)


# -- show


async def _show(settings: JobSettings, arguments: argparse.Namespace) -> int:
    place = parse_place(arguments.place)
    if arguments.raw and (arguments.output == "json" or arguments.bytes is not None):
        raise OptionsError("--raw writes the whole value and nothing else: leave --bytes and --output json out")
    bytes_max = VALUE_BYTES if arguments.bytes is None else arguments.bytes
    bounds = Bounds(Offsets({place.partition: (place.offset, place.offset + 1)}), None, None)
    async with connections.kafka(settings) as (client, view):
        closed = await close_range(view, settings, bounds)
        async with aclosing(records(client, closed)) as pieces:
            found = [raw async for piece in pieces for raw in piece]
    if not found:
        raise RangeError(f"topic {settings.kafka_topic} has no record at {place} (any more)")
    raw = found[0]
    if arguments.raw:
        sys.stdout.buffer.write(raw.value or b"")
        sys.stdout.buffer.flush()
        return 0
    letter = read_letter(raw)
    if isinstance(letter, Broken):
        if arguments.output == "json":
            _print(json.dumps({**broken_document(letter), "headers": headers_document(raw.headers)}))
        else:
            lines = [f"letter    {place}, written {when(raw.timestamp)}", f"broken    {letter.why}"]
            _print("\n".join([*lines, *header_lines(raw.headers), *value_lines(raw.value, bytes_max)]))
        return 0
    key = KeyTemplate(settings.s3_key_template, settings.s3_folder).key(letter.original)
    if arguments.output == "json":
        _print(json.dumps(whole_document(letter, key, bytes_max)))
    else:
        _print("\n".join(whole_lines(letter, key, bytes_max)))
    return 0


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the command's answer
