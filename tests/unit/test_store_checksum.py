"""Sums, and what an answer proves."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.store.checksum import Answered, Checksum, Verdict, compare

BODY = b"body"
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


def test_sums_are_those_of_s3() -> None:
    """Big-endian CRC, raw digests, base64: as the API reference has them. Known values of `123456789`."""
    body = b"123456789"
    assert Checksum.CRC32.of(body) == base64.b64encode(bytes.fromhex("cbf43926")).decode()
    assert Checksum.MD5.of(body) == base64.b64encode(bytes.fromhex("25f9e794323b453885f5181f1b624d0b")).decode()
    assert Checksum.SHA256.of(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert Checksum.NONE.of(body) == ""


@pytest.mark.parametrize(
    ("kind", "answered", "verdict"),
    [
        (Checksum.MD5, Answered(etag=f'"{MD5}"'), Verdict.SAME),
        (Checksum.MD5, Answered(etag=MD5.upper()), Verdict.SAME),
        (Checksum.MD5, Answered(etag=f'W/"{MD5}"'), Verdict.SAME),  # a proxy that compresses weakens the ETag
        (Checksum.MD5, Answered(etag=f'"{MD5}"', encryption="AES256"), Verdict.SAME),
        (Checksum.MD5, Answered(etag=f'"{"0" * 32}"'), Verdict.DIFFERENT),
        (Checksum.MD5, Answered(etag=f'"{"0" * 32}"', encryption="AES256"), Verdict.DIFFERENT),
        (Checksum.MD5, Answered(etag=f'"{"0" * 32}"', encryption="aws:kms"), Verdict.UNPROVEN),
        (Checksum.MD5, Answered(etag=f'"{"0" * 32}"', encryption="aws:kms:dsse"), Verdict.UNPROVEN),
        (Checksum.MD5, Answered(etag=f'"{"0" * 32}"', customer_key=True), Verdict.UNPROVEN),
        (Checksum.MD5, Answered(etag=f'"{MD5}-2"'), Verdict.UNPROVEN),
        (Checksum.MD5, Answered(etag='"opaque"'), Verdict.UNPROVEN),
        (Checksum.MD5, Answered(), Verdict.UNPROVEN),
        (Checksum.CRC32, Answered(checksum=Checksum.CRC32.of(BODY)), Verdict.SAME),
        (Checksum.CRC32, Answered(checksum=Checksum.CRC32.of(b"another")), Verdict.DIFFERENT),
        (Checksum.CRC32, Answered(etag=f'"{"0" * 32}"'), Verdict.UNPROVEN),
        (Checksum.SHA256, Answered(checksum=Checksum.SHA256.of(BODY)), Verdict.SAME),
        (Checksum.SHA256, Answered(checksum=Checksum.SHA256.of(b"another")), Verdict.DIFFERENT),
        (Checksum.NONE, Answered(etag=f'"{"0" * 32}"', checksum="x"), Verdict.UNPROVEN),
    ],
    ids=str,
)
def test_what_an_answer_proves(kind: Checksum, answered: Answered, verdict: Verdict) -> None:
    """A sum that differs is never taken for a success, and what is no MD5 never for a difference."""
    assert compare(kind, kind.of(BODY), answered)[0] is verdict


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_an_etag_of_other_bytes_is_different(body: bytes, other: bytes) -> None:
    """SAME if and only if the bytes are the same, for plain ETags."""
    etag = f'"{hashlib.md5(other, usedforsecurity=False).hexdigest()}"'
    verdict, answer = compare(Checksum.MD5, Checksum.MD5.of(body), Answered(etag=etag))
    assert (verdict is Verdict.SAME) == (body == other)
    assert answer == Checksum.MD5.of(other)
