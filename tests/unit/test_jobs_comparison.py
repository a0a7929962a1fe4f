"""What a listing, a HEAD and a GET prove of an object: never the wrong thing. Tables over all that a store may say."""

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.bucket.checker import Checker
from services.uploader.jobs.bucket.comparison import (
    MISSING,
    ORIGIN_ID,
    SAME,
    Ask,
    Expected,
    Finding,
    Told,
    by_bytes,
    by_head,
    by_listing,
)
from services.uploader.store.checksum import Answered, Checksum
from services.uploader.store.found import Digest, Head, Listed
from shared.record import ID

BODY = b"what the record says"
ALTERED = b"what somebody wrote."  # as long
LONGER = BODY + b"!"
KINDS = tuple(Checksum)


def expect(kind: Checksum, body: bytes = BODY) -> Expected:
    return Expected.of(partition=1, offset=7, key="f/id-1", record_id="id-1", body=body, kind=kind)


def md5_hex(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def parts_etag(body: bytes) -> str:
    """Of a multipart upload: the MD5 of the parts' MD5s, and how many."""
    return hashlib.md5(bytes.fromhex(md5_hex(body)), usedforsecurity=False).hexdigest() + "-1"


def parts_sum(kind: Checksum, body: bytes) -> str:
    """A composite checksum: the sum of the parts' sums, and how many (S3 User Guide, "Checking object integrity")."""
    return kind.of(base64.b64decode(kind.of(body))) + "-1"


@dataclass(frozen=True)
class Case:
    """An object, and how its store speaks of it. `etag_is_md5`: what the operator says by S3_CHECKSUM=md5."""

    body: bytes
    answered: Answered
    name: str
    etag_is_md5: bool = True


def etags(body: bytes) -> Iterator[Case]:
    """Every way in which an ETag of such an object may come, without the object's checksum."""
    md5 = md5_hex(body)
    opaque = hashlib.sha256(body).hexdigest()[:32]  # has an MD5's form
    yield Case(body, Answered(etag=f'"{md5}"'), "md5")
    yield Case(body, Answered(etag=md5), "md5 without quotes")
    yield Case(body, Answered(etag=f'"{md5.upper()}"'), "md5 in capitals")
    yield Case(body, Answered(etag=f'W/"{md5}"'), "weak md5")
    yield Case(body, Answered(etag=f'"{md5}"', encryption="AES256"), "md5, SSE-S3")
    yield Case(body, Answered(etag=f'"{opaque}"', encryption="aws:kms"), "KMS", etag_is_md5=False)
    yield Case(body, Answered(etag=f'"{opaque}"', encryption="aws:kms:dsse"), "KMS, twice", etag_is_md5=False)
    yield Case(body, Answered(etag=f'"{opaque}"', customer_key=True), "customer's key", etag_is_md5=False)
    yield Case(body, Answered(etag=f'"{parts_etag(body)}"'), "parts", etag_is_md5=False)
    yield Case(body, Answered(etag='"v-17"'), "opaque", etag_is_md5=False)
    yield Case(body, Answered(), "no ETag", etag_is_md5=False)


def cases(kind: Checksum) -> Iterator[Case]:
    """With each of these: no checksum, the object's own, and one of parts."""
    for body in (BODY, ALTERED, LONGER):
        for case in etags(body):
            yield case
            if kind in (Checksum.CRC32, Checksum.SHA256):
                for name, checksum in (("own", kind.of(body)), ("of parts", parts_sum(kind, body))):
                    one = case.answered
                    answered = Answered(one.etag, one.encryption, one.customer_key, checksum)
                    yield Case(body, answered, f"{case.name}, sum {name}", case.etag_is_md5)


ALL = [(kind, case) for kind in KINDS for case in cases(kind)]


def head_of(case: Case, metadata: dict[str, str]) -> Head:
    return Head(len(case.body), case.answered, metadata)


@pytest.mark.parametrize(("kind", "case"), ALL, ids=lambda each: each.name if isinstance(each, Case) else str(each))
def test_nothing_that_is_told_is_wrong(kind: Checksum, case: Case) -> None:
    """SAME only of the same bytes, DIFFERENT only of others, from a listing and from a HEAD; what neither tells, a GET.

    With every checksum, every form of ETag, and objects that are the same, altered in place, and longer.
    """
    expected = expect(kind)
    same = case.body == BODY
    for told in (
        by_listing(expected, Listed("f/id-1", len(case.body), case.answered.etag)),
        by_head(expected, head_of(case, {ORIGIN_ID: "id-1"}), kind),
        by_head(expected, head_of(case, {}), kind),
        by_bytes(expected, Digest(len(case.body), Checksum.MD5.of(case.body))),
    ):
        if isinstance(told, Told):
            assert told.finding is (Finding.SAME if same else Finding.DIFFERENT)
            assert bool(told.why) is not same


@pytest.mark.parametrize(("kind", "case"), ALL, ids=lambda each: each.name if isinstance(each, Case) else str(each))
def test_no_question_is_asked_in_vain(kind: Checksum, case: Case) -> None:
    """What the answer proves already costs no further request: a size, a plain MD5, a checksum of the object."""
    expected = expect(kind)
    listed = by_listing(expected, Listed("f/id-1", len(case.body), case.answered.etag))
    head = by_head(expected, head_of(case, {ORIGIN_ID: "id-1"}), kind)
    if case.body == LONGER:
        assert listed == head == Told(Finding.DIFFERENT, f"it has {len(LONGER)} bytes, not {len(BODY)}")
        return
    assert (listed == SAME) is (case.etag_is_md5 and case.body == BODY)
    own = kind in (Checksum.CRC32, Checksum.SHA256) and case.answered.checksum == kind.of(case.body)
    proven = own or (case.etag_is_md5 and (case.body == BODY or kind is Checksum.MD5))
    assert isinstance(head, Told) is proven


def test_a_listing_never_tells_that_bytes_differ() -> None:
    """It does not say how the object is encrypted, so its ETag may be no MD5: a HEAD is asked."""
    for kind in KINDS:
        assert by_listing(expect(kind), Listed("f/id-1", len(BODY), f'"{md5_hex(ALTERED)}"')) is Ask.HEAD


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_another_record_is_different(kind: Checksum) -> None:
    """Whatever its bytes are: somebody copied it there. One without the metadata, as by another tool, is not."""
    assert ORIGIN_ID == ID  # as the uploader writes it
    answered = Answered(etag=f'"{md5_hex(BODY)}"')
    told = by_head(expect(kind), Head(len(BODY), answered, {ORIGIN_ID: "id-2"}), kind)
    assert told == Told(Finding.DIFFERENT, "its metadata says that it is id-2")
    assert by_head(expect(kind), Head(len(BODY), answered, {"another": "id-2"}), kind) == SAME


@pytest.mark.parametrize(
    ("kind", "answered", "why"),
    [
        (
            Checksum.MD5,
            Answered(etag=f'"{md5_hex(ALTERED)}"'),
            f"its MD5 is {Checksum.MD5.of(ALTERED)}, not {Checksum.MD5.of(BODY)}",
        ),
        (
            Checksum.CRC32,
            Answered(checksum=Checksum.CRC32.of(ALTERED)),
            f"its crc32 is {Checksum.CRC32.of(ALTERED)}, not {Checksum.CRC32.of(BODY)}",
        ),
        (
            Checksum.SHA256,
            Answered(checksum=Checksum.SHA256.of(ALTERED)),
            f"its sha256 is {Checksum.SHA256.of(ALTERED)}, not {Checksum.SHA256.of(BODY)}",
        ),
    ],
)
def test_a_difference_names_both_sums(kind: Checksum, answered: Answered, why: str) -> None:
    """An operator can look them up at the store."""
    assert by_head(expect(kind), Head(len(BODY), answered, {}), kind) == Told(Finding.DIFFERENT, why)


def test_an_altered_object_is_found_by_its_bytes() -> None:
    """The last question always tells."""
    expected = expect(Checksum.NONE)
    assert by_bytes(expected, Digest(len(ALTERED), Checksum.MD5.of(ALTERED))).finding is Finding.DIFFERENT
    assert by_bytes(expected, Digest(len(LONGER), Checksum.MD5.of(LONGER))).why == "it has 21 bytes, not 20"
    assert by_bytes(expected, Digest(len(BODY), Checksum.MD5.of(BODY))) == SAME


@given(st.binary(max_size=8), st.binary(max_size=8), st.sampled_from(KINDS))
def test_any_two_bodies(body: bytes, other: bytes, kind: Checksum) -> None:
    """By its bytes an object is SAME if and only if it is; the empty one too."""
    told = by_bytes(expect(kind, body), Digest(len(other), Checksum.MD5.of(other)))
    assert (told.finding is Finding.SAME) == (body == other)


# -- the questions in their order


@dataclass
class OneObject:
    """A bucket with one object, or none; what it was asked. Implements `services.uploader.store.found.Objects`."""

    case: Case | None
    gone_before_get: bool = False
    asked: list[str] = field(default_factory=list)

    async def head(self, key: str) -> Head | None:
        self.asked.append(f"HEAD {key}")
        return None if self.case is None else head_of(self.case, {ORIGIN_ID: "id-1"})

    async def digest(self, key: str) -> Digest | None:
        self.asked.append(f"GET {key}")
        if self.case is None or self.gone_before_get:
            return None
        return Digest(len(self.case.body), Checksum.MD5.of(self.case.body))

    async def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        raise AssertionError(f"one object is not asked for by a listing: {prefix}, {after}")


@pytest.mark.parametrize(("kind", "case"), ALL, ids=lambda each: each.name if isinstance(each, Case) else str(each))
def test_the_checker_always_tells_and_counts_what_it_asked(kind: Checksum, case: Case) -> None:
    """The finding is the truth, of whatever store, and each request is in the bill."""
    bucket = OneObject(case)
    checker = Checker(bucket, kind)
    told = asyncio.run(checker.tell(expect(kind)))
    assert told.finding is (Finding.SAME if case.body == BODY else Finding.DIFFERENT)
    assert bucket.asked in (["HEAD f/id-1"], ["HEAD f/id-1", "GET f/id-1"])
    assert (checker.requests.heads, checker.requests.gets) == (1, len(bucket.asked) - 1)


def test_an_object_may_go_at_any_moment() -> None:
    """No object, or one that is deleted between the HEAD and the GET, is missing."""
    opaque = Case(BODY, Answered(etag='"v-17"'), "opaque")
    for bucket in (OneObject(None), OneObject(opaque, gone_before_get=True)):
        assert asyncio.run(Checker(bucket, Checksum.NONE).tell(expect(Checksum.NONE))) == MISSING


def test_what_a_listing_leaves_open_is_none() -> None:
    """For the caller, who asks for the object then."""
    for kind, etag in itertools.product(KINDS, ('"v-17"', "", f'"{md5_hex(ALTERED)}"')):
        assert Checker.by_listing(expect(kind), Listed("f/id-1", len(BODY), etag)) is None
    assert Checker.by_listing(expect(Checksum.MD5), Listed("f/id-1", len(BODY), md5_hex(BODY))) == SAME
