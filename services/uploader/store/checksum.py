"""The sum that goes with a put, and whether the answer says that the store keeps the same bytes. Pure.

The store checks the sum that we send against the bytes that it received; we check what it answers against the sum that
we sent. Only both together cover a body that was swapped behind the store's door, or another request's answer.
"""

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

_MD5_ETAG = re.compile(r"[0-9a-fA-F]{32}")


class Checksum(StrEnum):
    """Which sum; the values are those of S3_CHECKSUM."""

    MD5 = "md5"
    CRC32 = "crc32"
    SHA256 = "sha256"
    NONE = "none"

    def of(self, body: bytes) -> str:
        """The sum of `body` as S3 writes it, in base64; empty for NONE."""
        match self:
            case Checksum.MD5:
                digest = hashlib.md5(body, usedforsecurity=False).digest()
            case Checksum.CRC32:
                digest = zlib.crc32(body).to_bytes(4, "big")
            case Checksum.SHA256:
                digest = hashlib.sha256(body).digest()
            case Checksum.NONE:
                return ""
        return base64.b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a store says of an object, after a PUT and on a HEAD. Empty: it said nothing.

    `encryption` is the header x-amz-server-side-encryption, `checksum` the x-amz-checksum-* of the kind that was sent.
    """

    etag: str = ""
    encryption: str = ""
    customer_key: bool = False
    checksum: str = ""


class Verdict(StrEnum):
    """What an answer proves of the bytes at the key."""

    SAME = "same"
    DIFFERENT = "different"
    UNPROVEN = "unproven"


def compare(kind: Checksum, sent: str, answered: Answered) -> tuple[Verdict, str]:
    """Whether the answer is of the bytes whose sum is `sent`, and the answered sum in the form of `sent`.

    An ETag is an MD5 only without KMS and customer keys (S3 User Guide, "Checking object integrity"): under those it
    has an MD5's form and is none, and proves nothing.
    """
    if kind is Checksum.MD5:
        answer = _md5_of(answered)
    elif kind is Checksum.NONE:
        answer = ""
    else:
        answer = answered.checksum
    if not answer:
        return Verdict.UNPROVEN, ""
    return (Verdict.SAME if answer == sent else Verdict.DIFFERENT), answer


def _md5_of(answered: Answered) -> str:
    """The MD5 that an ETag is, in base64; empty where it is none."""
    etag = answered.etag.removeprefix("W/").strip('"')
    if answered.customer_key or answered.encryption.startswith("aws:kms") or not _MD5_ETAG.fullmatch(etag):
        return ""
    return base64.b64encode(bytes.fromhex(etag)).decode()
