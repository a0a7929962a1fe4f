"""The options that `dead-letters` and `redrive` share, as they are typed and as values. Starts nothing."""

import argparse
from dataclasses import dataclass

from services.uploader.jobs.letters.selection import LetterFilter
from services.uploader.jobs.options import Bounds, add_filter, add_output, add_range, bounds_of, filled, filter_of


@dataclass(frozen=True, slots=True)
class LettersRequest:
    """Which letters are asked for."""

    bounds: Bounds
    wanted: LetterFilter


def add_letters(parser: argparse.ArgumentParser) -> None:
    """Add the range, the filters and the form of the answer."""
    add_range(parser)
    parser.set_defaults(lower="beginning")
    parser.add_argument(
        "--reason",
        action="append",
        default=[],
        type=filled,
        metavar="WORD",
        help="only letters of this reason; may be repeated",
    )
    add_filter(parser)
    add_output(parser)


def letters_of(arguments: argparse.Namespace, now_ms: int) -> LettersRequest:
    """Read the options.

    Args:
        arguments: as parsed.
        now_ms: milliseconds since 1970.

    Raises:
        OptionsError: they contradict each other, or name what cannot be.

    """
    return LettersRequest(bounds_of(arguments, now_ms), LetterFilter(frozenset(arguments.reason), filter_of(arguments)))


def whole(text: str) -> int:
    """A whole number, 0 or above.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004 - a bound, not a size
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


def positive_whole(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    if whole(text) == 0:
        raise argparse.ArgumentTypeError("0 is not a positive number")
    return int(text)
