"""The options that the jobs share, as they are typed and as values. Starts nothing."""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord

from services.uploader.jobs.bounds import (
    FORMS,
    At,
    Beginning,
    InvalidBoundError,
    Offsets,
    parse_from,
    parse_partitions,
    parse_to,
)
from services.uploader.keys import KeyTemplate
from services.uploader.partition import read_record
from services.uploader.settings import UploaderSettings
from shared.record import Record, is_safe_folder

GIVE_UP_AFTER_S = 300.0
"""Without anything settled or compared for so long, in seconds, a job ends: somebody waits for it."""


class OptionsError(ValueError):
    """The options contradict each other, or name something that cannot be; the message is for who typed them."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The asked range. `upper` None: the end of the log when the command starts."""

    lower: At | Beginning | Offsets
    upper: At | None
    partitions: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant. `record_id` means also the payloads of the collection with this id."""

    folder: str | None = None
    record_id: str | None = None

    @property
    def all(self) -> bool:
        """Whether every record is meant."""
        return self.folder is None and self.record_id is None

    def means(self, record: Record, default_folder: str) -> bool:
        """Whether the record is meant."""
        if self.folder is not None and (record.folder or default_folder) != self.folder:
            return False
        return self.record_id is None or record.id == self.record_id or record.id.startswith(f"{self.record_id}-")

    def of_raw(self, default_folder: str) -> Callable[[ConsumerRecord], bool]:
        """The same question of a record as it was polled."""
        if self.all:
            return lambda _: True
        return lambda raw: self.means(read_record(raw), default_folder)


def add_range(parser: argparse.ArgumentParser) -> None:
    """Add --from, --to and --partitions."""
    parser.add_argument("--from", dest="lower", metavar="WHEN", help=f"where the range begins: {FORMS}")
    parser.add_argument("--to", dest="upper", metavar="WHEN", help="where it ends, before this time (default: now)")
    parser.add_argument("--partitions", metavar="LIST", help="only these, `0,3,5-7` (default: all)")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add --folder and --id."""
    parser.add_argument("--folder", help="only records of this folder")
    parser.add_argument("--id", dest="record_id", type=filled, help="only the payload, or the collection, with this id")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add --output."""
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="form of the result (default %(default)s)"
    )


def add_target(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add --to-bucket and --to-prefix; `verb` says what is done there."""
    parser.add_argument("--to-bucket", type=bucket, metavar="BUCKET", help=f"{verb} this bucket instead of S3_BUCKET")
    parser.add_argument("--to-prefix", metavar="PREFIX", help="with PREFIX/ before every key")


def prefix_of(arguments: argparse.Namespace) -> str:
    """What stands before every key; empty for nothing.

    Raises:
        OptionsError: it cannot stand there.

    """
    prefix = (arguments.to_prefix or "").strip("/")
    if arguments.to_prefix is not None and not is_safe_folder(prefix):
        raise OptionsError(f"--to-prefix: {arguments.to_prefix!r} has characters other than A-Z a-z 0-9 . _ = - /")
    return prefix


def keys_of(settings: UploaderSettings, prefix: str) -> KeyTemplate:
    """The keys of the objects, with a prefix before them."""
    template = settings.s3_key_template if not prefix else f"{prefix}/{settings.s3_key_template}"
    return KeyTemplate(template, settings.s3_folder)


def bounds_of(arguments: argparse.Namespace, now_ms: int) -> Bounds:
    """The range that is asked for.

    Raises:
        OptionsError: there is none.

    """
    if arguments.lower is None:
        raise OptionsError("--from is missing: where does the range begin?")
    try:
        lower = parse_from(arguments.lower, now_ms)
    except InvalidBoundError as error:
        raise OptionsError(f"--from: {error}") from None
    if isinstance(lower, Offsets) and arguments.upper is not None:
        raise OptionsError("--from has offsets, both ends of the range: leave --to out")
    try:
        upper = None if arguments.upper is None else parse_to(arguments.upper, now_ms)
    except InvalidBoundError as error:
        raise OptionsError(f"--to: {error}") from None
    if isinstance(lower, At) and upper is not None and upper.ms <= lower.ms:
        raise OptionsError(f"the range is empty: --to={arguments.upper} is not after --from={arguments.lower}")
    partitions = partitions_of(arguments)
    if isinstance(lower, Offsets) and partitions is not None and not partitions & lower.spans.keys():
        raise OptionsError("--partitions has none of the partitions of --from")
    return Bounds(lower, upper, partitions)


def partitions_of(arguments: argparse.Namespace) -> frozenset[int] | None:
    """The partitions that are asked for; None: all.

    Raises:
        OptionsError: it is no list of them.

    """
    try:
        return None if arguments.partitions is None else parse_partitions(arguments.partitions)
    except InvalidBoundError as error:
        raise OptionsError(f"--partitions: {error}") from None


def filter_of(arguments: argparse.Namespace) -> Filter:
    """The filter that is asked for.

    Raises:
        OptionsError: no record can be in such a folder.

    """
    if arguments.folder is not None and not is_safe_folder(arguments.folder):
        raise OptionsError(f"--folder: {arguments.folder!r} is no folder: A-Z a-z 0-9 . _ = - and single / between")
    return Filter(arguments.folder, arguments.record_id)


def positive(text: str) -> float:
    """A number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:  # noqa: PLR2004 - neither infinite nor a typing error
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def bucket(text: str) -> str:
    """A bucket's name, as far as every server agrees.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no bucket's name")
    return text


def filled(text: str) -> str:
    """A text that is not empty: `--to-bucket "$NEW"` with no NEW must not mean the old one.

    Raises:
        argparse.ArgumentTypeError: it is.

    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


Subparsers = Any
"""What `ArgumentParser.add_subparsers` returns: argparse has no public name for it."""
