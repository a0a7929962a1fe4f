"""A dead letter read from its headers: the record that it was, why S3 did not take it, what its object's key would be.

Pure. Never raises on what somebody else has written to the topic: what is no letter is a `Broken` one, with the reason.

A *set* is the seven headers of `dead_letter`, one behind another in its order, all of them readable; anything else by
these names is the record's own. A letter that was sent back and failed again has several sets: the first tells where
the record was at the beginning, which its S3 key may be made of, and what stands before it are the record's own
headers; the last tells why it failed lately (docs/decisions/0011).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from services.uploader.dead_letter import ATTEMPTS, ERROR, MESSAGE, OFFSET, PARTITION, TIMESTAMP, TOPIC, Header
from services.uploader.partition import read_record
from shared.record import Record, decode

SET = (TOPIC, PARTITION, OFFSET, TIMESTAMP, ERROR, MESSAGE, ATTEMPTS)

_FORMS = {
    TOPIC: re.compile(rb"[A-Za-z0-9._-]{1,249}"),  # it may become a part of a key: only what Kafka allows
    PARTITION: re.compile(rb"[0-9]{1,10}"),
    OFFSET: re.compile(rb"[0-9]{1,19}"),
    TIMESTAMP: re.compile(rb"-?[0-9]{1,19}"),  # -1: the record had none
    ERROR: re.compile(rb"[!-~]{1,64}"),
    MESSAGE: re.compile(rb".*", re.DOTALL),
    ATTEMPTS: re.compile(rb"[0-9]{1,10}"),
}
_PLACE = re.compile(r"p?([0-9]{1,6}):([0-9]{1,18})")
_SHOWN_BYTES = 40


class InvalidPlaceError(ValueError):
    """What was typed names no record."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a letter is in the dead-letter topic; written `p0:17`, as ranges of offsets are."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"p{self.partition}:{self.offset}"


def parse_place(text: str) -> Place:
    """`p0:17` as a place.

    Raises:
        InvalidPlaceError: it is not of that form.

    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidPlaceError(f"{text!r} is not of the form p0:17, partition and offset in the dead-letter topic")
    return Place(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        place: where it is.
        written_ms: when it was written, in milliseconds since 1970.
        original: the record as the uploader read it from its topic, with its value.
        original_ms: the record's own timestamp, in milliseconds since 1970; -1: it had none.
        size_bytes: of its value.
        headers: the record's own, as they were.
        reason: stable word of the last failure.
        message: what S3 said then.
        attempts: puts that were tried then.
        failures: how often it became a dead letter.

    """

    place: Place
    written_ms: int
    original: Record
    original_ms: int
    size_bytes: int
    headers: tuple[Header, ...]
    reason: str
    message: str
    attempts: int
    failures: int

    @property
    def value(self) -> bytes:
        """The record's bytes."""
        return self.original.value or b""


@dataclass(frozen=True, slots=True)
class Broken:
    """A record of the dead-letter topic from which no original can be told; `why` in words."""

    place: Place
    written_ms: int
    why: str


def read_letter(raw: ConsumerRecord) -> Letter | Broken:
    """What the record is. Never raises."""
    place, headers = Place(raw.partition, raw.offset), tuple(raw.headers)
    sets = _sets(headers)
    if not sets:
        return Broken(place, raw.timestamp, _why(headers))
    if raw.value is None:
        return Broken(place, raw.timestamp, "it has no value: nothing to be stored")
    begin, first = sets[0]
    last = sets[-1][1]
    original_ms = int(first[TIMESTAMP])
    return Letter(
        place=place,
        written_ms=raw.timestamp,
        original=decode(
            topic=first[TOPIC].decode("ascii"),
            partition=int(first[PARTITION]),
            offset=int(first[OFFSET]),
            timestamp_ms=original_ms,
            value=raw.value,
            headers=headers[:begin],
        ),
        original_ms=original_ms,
        size_bytes=len(raw.value),
        headers=headers[:begin],
        reason=last[ERROR].decode("ascii"),
        message=last[MESSAGE].decode("utf-8", "replace"),
        attempts=int(last[ATTEMPTS]),
        failures=len(sets),
    )


def read_original(raw: ConsumerRecord) -> Record:
    """The record that a letter was, for a sink. What is no letter, and ought to have been left out, as it stands."""
    letter = read_letter(raw)
    return letter.original if isinstance(letter, Letter) else read_record(raw)


def _sets(headers: Sequence[Header]) -> list[tuple[int, dict[str, bytes]]]:
    """Every set, with the position that it begins at."""
    found, at = [], 0
    while at + len(SET) <= len(headers):
        one = _set(headers[at : at + len(SET)])
        if one is None:
            at += 1
        else:
            found.append((at, one))
            at += len(SET)
    return found


def _set(headers: Sequence[Header]) -> dict[str, bytes] | None:
    if tuple(name for name, _ in headers) != SET:
        return None
    values = {name: value for name, value in headers if value is not None and _FORMS[name].fullmatch(value)}
    return values if len(values) == len(SET) else None


def _why(headers: Sequence[Header]) -> str:
    """Why there is no set among them."""
    found = dict(headers)
    present = [name for name in SET if name in found]
    if not present:
        return "it is no dead letter of an uploader: it has no dead.* headers"
    if len(present) < len(SET):
        return f"its header {next(name for name in SET if name not in found)} is missing"
    for name in SET:
        value = found[name]
        if value is None or not _FORMS[name].fullmatch(value):
            shown = value if value is None else value[:_SHOWN_BYTES]
            return f"its header {name} is {shown!r}"
    return "its dead.* headers do not stand one behind another as an uploader writes them"
