"""The wire contract between the tiers: what one payload looks like as a Kafka record (DESIGN §3).

Owns the header names, the payload's id, and how both are written and read. Pure: no clock, no chance, no client;
the caller brings time and entropy. Knows nothing of HTTP or of S3 keys.

A record that this project did not write (no such headers, or broken ones) is *foreign*: it still decodes, field by
field, to values that are safe to build an S3 key from.
"""

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

ID = "spillway-id"
FOLDER = "spillway-folder"
VERSION = "spillway-version"
RECEIVED_NS = "spillway-received-ns"
REQUEST_ID = "spillway-request-id"
INDEX = "spillway-index"
COUNT = "spillway-count"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"

VERSION_BYTES_MAX = 256
"""Longest collection version, in UTF-8 bytes: it is copied into every record of its collection."""

FOLDER_CHARACTERS_MAX = 256

_VERSION_KEPT_BYTES = 3 * VERSION_BYTES_MAX  # each byte of it as `%XX`

CALENDAR_END_S = 253_402_300_800
"""9999-12-31T24:00Z in seconds since 1970: where `datetime` ends."""

_HOUR_MS = 3_600_000
_HOUR_NS = _HOUR_MS * 1_000_000

Header = tuple[str, bytes]
"""One Kafka record header, as aiokafka takes and gives it."""

_FOLDER_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._=-]+"
_FOLDER = re.compile(rf"{_FOLDER_SEGMENT}(?:/{_FOLDER_SEGMENT})*")
_UUID7_FORM = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_UUID7 = re.compile(_UUID7_FORM)
_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TIMED_ID = re.compile(rf"{_UUID7_FORM}[A-Za-z0-9._-]{{0,219}}".encode())  # an _ID, too
_RECEIVED_DIGITS_MAX = 19
_VERSION_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def new_collection_id(unix_ms: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562 §5.7) of the given time, as text.

    Args:
        unix_ms: milliseconds since 1970, at most 48 bits.
        entropy: 10 random bytes.

    """
    if len(entropy) != 10:  # noqa: PLR2004 - 80 bits less version and variant
        raise ValueError("entropy must be 10 bytes")
    time, chance = f"{unix_ms:012x}", entropy.hex()
    variant = "89ab"[entropy[2] >> 4 & 0x3]
    return f"{time[:8]}-{time[8:]}-7{chance[1:4]}-{variant}{chance[5:8]}-{chance[8:]}"


def is_collection_id(text: str) -> bool:
    """Whether the text is a UUIDv7 in its usual form: small letters, four hyphens."""
    return _UUID7.fullmatch(text) is not None


def content_suffix(value: bytes) -> str:
    """What binds a payload's id to its bytes: 8 hex digits of their SHA-256.

    Stands in the ids of a collection whose UUID a client has chosen: the same UUID with other bytes is another id, and
    so can never take the place of a payload that was acknowledged.
    """
    return hashlib.sha256(value).hexdigest()[:8]


def id_time_ms(record_id: str) -> int | None:
    """Milliseconds since 1970 inside the UUIDv7 that the id starts with; None where it starts with no such UUID."""
    if _UUID7.match(record_id) is None:
        return None
    return int(record_id[0:8] + record_id[9:13], 16)


def is_safe_folder(folder: str) -> bool:
    """Whether the folder can start an S3 key: `/`-parted segments of `A-Z a-z 0-9 . _ = -`, none `.` or `..`."""
    return len(folder) <= FOLDER_CHARACTERS_MAX and _FOLDER.fullmatch(folder) is not None


class Stamp(NamedTuple):
    """What every record of one collection carries, encoded once a collection so that a payload costs two headers."""

    collection_id: str
    payload_count: int
    shared: tuple[Header, ...]
    suffixes: tuple[str, ...] = ()  # `content_suffix` of each payload, where the client has chosen `collection_id`

    @classmethod
    def of(
        cls,
        *,
        collection_id: str,
        folder: str,
        version: str,
        received_ns: int,
        request_id: str,
        count: int,
        content_type: str = "application/json",
        traceparent: str | None = None,
        suffixes: tuple[str, ...] = (),
    ) -> "Stamp":
        """Encode the headers that all payloads of a collection share.

        Raises:
            ValueError: the folder is not safe, the version is over VERSION_BYTES_MAX, or another text is not ASCII.

        """
        shared = [
            (FOLDER, _folder_value(folder)),
            (VERSION, _version_value(version)),
            (RECEIVED_NS, b"%d" % received_ns),
            (REQUEST_ID, request_id.encode("ascii")),
            (COUNT, b"%d" % count),
            (CONTENT_TYPE, content_type.encode("ascii")),
        ]
        if traceparent is not None:
            shared.append((TRACEPARENT, traceparent.encode("ascii")))
        return cls(collection_id, count, tuple(shared), suffixes)

    def payload_id(self, index: int) -> str:
        """The id of the payload at `index` (from 0) of the collection."""
        if self.suffixes:
            return f"{self.collection_id}-{index}-{self.suffixes[index]}"
        return f"{self.collection_id}-{index}"

    def headers(self, index: int) -> list[Header]:
        """The record headers of the payload at `index` (from 0)."""
        return [(ID, self.payload_id(index).encode("ascii")), *self.shared, (INDEX, b"%d" % index)]


@functools.lru_cache(maxsize=1024)
def _folder_value(folder: str) -> bytes:
    if not is_safe_folder(folder):
        raise ValueError(f"folder {folder!r} is not safe in an S3 key")
    return folder.encode("ascii")


@functools.lru_cache(maxsize=1024)
def _version_value(version: str) -> bytes:
    version_bytes = version.encode("utf-8")
    if len(version_bytes) > VERSION_BYTES_MAX:
        raise ValueError(f"version is over {VERSION_BYTES_MAX} bytes")
    return quote_from_bytes(version_bytes, safe=_VERSION_SAFE).encode("ascii")


class Record(NamedTuple):
    """One record as the second tier sees it. Times are UTC; `value` is None for a tombstone.

    Fields that a foreign record lacks: `id` is made of topic, partition, offset and timestamp, `folder` and `version`
    are None, `received_ns` is the record's own timestamp. `key_hours` are the hours since 1970 that the key's date and
    hour are taken from: inside the id where it has a time, else of receipt; 0 for a stamp that no calendar has.
    """

    topic: str
    partition: int
    offset: int
    value: bytes | None
    id: str
    folder: str | None
    version: str | None
    received_ns: int
    key_hours: int
    foreign: bool


def decode(
    *, topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes | None, headers: Iterable[Header]
) -> Record:
    """Read a record, ours or foreign. Never raises: what is missing or unsafe is replaced as `Record` says."""
    found = dict(headers)
    raw_id = found.get(ID)
    received = found.get(RECEIVED_NS)
    if received is not None and len(received) <= _RECEIVED_DIGITS_MAX and received.isdigit():
        received_ns = int(received)
    else:
        received_ns = max(timestamp_ms, 0) * 1_000_000
    if raw_id is not None and _TIMED_ID.fullmatch(raw_id):
        foreign, record_id = False, raw_id.decode("ascii")
        key_hours = _hours_of(raw_id[:8])
        if key_hours is None:
            key_hours = _in_calendar((id_time_ms(record_id) or 0) // _HOUR_MS)
    else:
        foreign = raw_id is None or _ID.fullmatch(raw_id) is None
        record_id = f"{topic}-{partition}-{offset}-{timestamp_ms}" if raw_id is None or foreign else raw_id.decode()
        key_hours = _in_calendar(received_ns // _HOUR_NS)
    folder, version = found.get(FOLDER), found.get(VERSION)
    return Record(
        topic,
        partition,
        offset,
        value,
        record_id,
        None if folder is None or len(folder) > FOLDER_CHARACTERS_MAX else _folder(folder),
        # A stranger's may be as long as a record, and no cache is to hold many of those.
        None if version is None else _version(version) if len(version) <= _VERSION_KEPT_BYTES else _text(version),
        received_ns,
        key_hours,
        foreign,
    )


def _in_calendar(hours: int) -> int:
    return hours if hours * 3600 < CALENDAR_END_S else 0


@functools.lru_cache(maxsize=1024)
def _hours_of(start: bytes) -> int | None:
    """The hours since 1970 of every UUIDv7 that starts with these 8 hex digits (65.5 s); None where they differ."""
    first_ms = int(start, 16) << 16
    hours = first_ms // _HOUR_MS
    return _in_calendar(hours) if (first_ms + 0xFFFF) // _HOUR_MS == hours else None


# All records of a topic share a few folders and versions: each is checked once, and not once a record.


@functools.lru_cache(maxsize=256)
def _folder(raw: bytes) -> str | None:
    if not raw.isascii():
        return None
    folder = raw.decode("ascii")
    return folder if is_safe_folder(folder) else None


@functools.lru_cache(maxsize=256)
def _version(raw: bytes) -> str | None:
    return _text(raw)


def _text(raw: bytes) -> str | None:
    return unquote_to_bytes(raw).decode("utf-8", "replace") if raw.isascii() else None
