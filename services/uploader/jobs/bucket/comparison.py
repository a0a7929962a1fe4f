"""Whether what lies at a key is what a record says, from what a listing, a HEAD or a GET tells. Pure.

An ETag that is the MD5 of the record's bytes proves them, wherever it comes from. One that is not proves the contrary
only where the store's ETags are MD5s: where puts are checked by it (S3_CHECKSUM=md5), and without KMS; a listing does
not tell that, so a HEAD is asked then. What neither tells is read.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.uploader.store.checksum import Answered, Checksum, Verdict, compare
from services.uploader.store.found import Digest, Head, Listed

ORIGIN_ID = "spillway-id"


class Finding(StrEnum):
    """What is at a record's key."""

    SAME = "same"
    MISSING = "missing"
    DIFFERENT = "different"


class Ask(StrEnum):
    """What else has to be asked to tell."""

    HEAD = "head"
    GET = "get"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a record should have become.

    Attributes:
        partition: with `offset`, where the record is.
        offset: see `partition`.
        key: of its object.
        record_id: which the object's metadata carries.
        size_bytes: of its value.
        md5: of its value, in base64.
        checksum: of its value, of the kind that puts carry; empty where that is the MD5, or none.

    """

    partition: int
    offset: int
    key: str
    record_id: str
    size_bytes: int
    md5: str
    checksum: str

    @classmethod
    def of(cls, *, partition: int, offset: int, key: str, record_id: str, body: bytes, kind: Checksum) -> "Expected":
        """Of a record's bytes."""
        checksum = kind.of(body) if kind in (Checksum.CRC32, Checksum.SHA256) else ""
        return cls(partition, offset, key, record_id, len(body), Checksum.MD5.of(body), checksum)


@dataclass(frozen=True, slots=True)
class Told:
    """A finding with its reason in words; empty for SAME."""

    finding: Finding
    why: str = ""


SAME = Told(Finding.SAME)
MISSING = Told(Finding.MISSING, "there is no such object")


def by_listing(expected: Expected, listed: Listed) -> Told | Ask:
    """From a listing, which has the object."""
    if listed.size_bytes != expected.size_bytes:
        return _size(expected, listed.size_bytes)
    if compare(Checksum.MD5, expected.md5, Answered(listed.etag))[0] is Verdict.SAME:
        return SAME
    return Ask.HEAD


def by_head(expected: Expected, head: Head, kind: Checksum) -> Told | Ask:
    """From a HEAD; `kind` is the sum that puts carry (S3_CHECKSUM)."""
    if head.size_bytes != expected.size_bytes:
        return _size(expected, head.size_bytes)
    origin = head.metadata.get(ORIGIN_ID)
    if origin is not None and origin != expected.record_id:
        return Told(Finding.DIFFERENT, f"its metadata says that it is {origin}")
    return _by_sums(expected, head.answered, kind)


def _by_sums(expected: Expected, answered: Answered, kind: Checksum) -> Told | Ask:
    by_etag, md5 = compare(Checksum.MD5, expected.md5, answered)
    by_sum, found = compare(kind, expected.checksum, answered) if expected.checksum else (Verdict.UNPROVEN, "")
    if Verdict.SAME in (by_etag, by_sum):
        return SAME
    if by_sum is Verdict.DIFFERENT and "-" not in found:  # with a hyphen it is a sum of the sums of parts, as of a copy
        return Told(Finding.DIFFERENT, f"its {kind} is {found}, not {expected.checksum}")
    if by_etag is Verdict.DIFFERENT and kind is Checksum.MD5:
        return Told(Finding.DIFFERENT, f"its MD5 is {md5}, not {expected.md5}")
    return Ask.GET


def by_bytes(expected: Expected, digest: Digest) -> Told:
    """From the object itself."""
    if digest.size_bytes != expected.size_bytes:
        return _size(expected, digest.size_bytes)
    if digest.md5 != expected.md5:
        return Told(Finding.DIFFERENT, f"its MD5 is {digest.md5}, not {expected.md5}")
    return SAME


def _size(expected: Expected, found_bytes: int) -> Told:
    return Told(Finding.DIFFERENT, f"it has {found_bytes} bytes, not {expected.size_bytes}")
