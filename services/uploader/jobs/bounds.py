"""The two ends of a range as an operator types them, and what they mean. Pure; the caller brings the time.

A time is a bound of every partition; offsets (`p0:100-500`) name the partitions themselves, and both their ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

FORMS = (
    "2026-11-25T06:00 (UTC, or with a zone: 2026-11-25T06:00+01:00), 2026-11-25, 2h (ago; also s, m, d, w), "
    "today, yesterday (from midnight, UTC), 1764050400 (seconds, or milliseconds since 1970), beginning, now, "
    "or offsets: p0:100-500,p3:0-"
)
"""Every form, for people."""

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAYS_AGO = {"today": 0, "yesterday": 1}
_DAY_MS = 86_400_000
_EPOCH = re.compile(r"\d{9,13}")
_MILLISECONDS_FROM = 100_000_000_000
"""An epoch from here on is one in milliseconds: as seconds it would be the year 5138."""

_OFFSETS = re.compile(r"p?(\d{1,6}):(\d{0,18})-(\d{0,18})")


class InvalidBoundError(ValueError):
    """What was typed is no bound; the message says what would be."""


@dataclass(frozen=True, slots=True)
class At:
    """A moment: the first record of each partition that was written at `ms` (since 1970) or later."""

    ms: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """Whatever the log begins with now. What retention has taken is not asked for."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """Offsets by partition: first and next after the last; None: the log's own beginning, or its end now."""

    spans: Mapping[int, tuple[int | None, int | None]]


def parse_from(text: str, now_ms: int) -> At | Beginning | Offsets:
    """The lower bound.

    Args:
        text: one of FORMS.
        now_ms: milliseconds since 1970.

    Raises:
        InvalidBoundError: it is none, or names the future.

    """
    if ":" in text and _OFFSETS.fullmatch(text.split(",", maxsplit=1)[0].strip()):
        return _offsets(text)
    if text == "beginning":
        return Beginning()
    return _moment(text, now_ms)


def parse_to(text: str, now_ms: int) -> At:
    """The upper bound, which the range ends before; as `parse_from`, but a time it must be."""
    if text == "beginning" or _OFFSETS.fullmatch(text.split(",", maxsplit=1)[0].strip()):
        raise InvalidBoundError(f"{text!r} is no upper bound: a time, or now. Offsets have both their ends in --from")
    return _moment(text, now_ms)


def _moment(text: str, now_ms: int) -> At:
    if text == "now":
        return At(now_ms)
    if text in _DAYS_AGO:
        return At((now_ms // _DAY_MS - _DAYS_AGO[text]) * _DAY_MS)
    if ago := _AGO.fullmatch(text):
        ms = now_ms - round(float(ago[1]) * _UNIT_S[ago[2]] * 1000)
    elif _EPOCH.fullmatch(text):
        ms = int(text) if int(text) >= _MILLISECONDS_FROM else int(text) * 1000
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidBoundError(f"{text!r} is no time and no offsets. Forms: {FORMS}") from None
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        ms = round(zoned.timestamp() * 1000)
    if ms > now_ms:
        raise InvalidBoundError(f"{text!r} lies in the future ({iso(ms)}; it is {iso(now_ms)})")
    if ms < 0:
        raise InvalidBoundError(f"{text!r} lies before 1970")
    return At(ms)


def _offsets(text: str) -> Offsets:
    spans: dict[int, tuple[int | None, int | None]] = {}
    for part in text.split(","):
        found = _OFFSETS.fullmatch(part.strip())
        if found is None:
            raise InvalidBoundError(
                f"{part.strip()!r} is not of the form p0:100-500 (both included; each may be absent)"
            )
        partition, first, last = int(found[1]), found[2], found[3]
        if partition in spans:
            raise InvalidBoundError(f"partition {partition} stands there twice")
        if first and last and int(last) < int(first):
            raise InvalidBoundError(f"{part.strip()!r} ends before it begins")
        spans[partition] = (int(first) if first else None, int(last) + 1 if last else None)
    return Offsets(spans)


def parse_partitions(text: str) -> frozenset[int]:
    """`0,3,5-7` as numbers.

    Raises:
        InvalidBoundError: it is not of that form.

    """
    found: set[int] = set()
    for part in text.split(","):
        one = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        if one is None or (one[2] is not None and int(one[2]) < int(one[1])):
            raise InvalidBoundError(f"{part.strip()!r} is not of the form 0,3,5-7")
        found.update(range(int(one[1]), int(one[2] or one[1]) + 1))
    return frozenset(found)


def iso(ms: int) -> str:
    """A time in milliseconds since 1970, for people: to the second, in UTC. Never fails: producers may set any time."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):  # before the year 1, or after 9999
        return f"{ms} ms since 1970"
