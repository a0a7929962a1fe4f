"""Store-wide options, over every client: the headers that go out, the sums that come back, and the rule of 412."""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from services.uploader.errors import ConfigurationError, PoisonRecord, StoreError, TransientError
from services.uploader.store.checksum import Checksum
from tests.fakes.script import ACCESS_DENIED, INTERNAL_ERROR, NO_ETAG, WRONG_ETAG, Altered, Answer, Cut, Fault
from tests.harness.store_stands import FAKED, OpenStand, make_stand

BODY = b"body"


@pytest.fixture(params=FAKED)
def open_faked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenStand:
    """Each client over the fake, which shows the headers of a request."""
    return make_stand(request, monkeypatch, request.param)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


_MD5 = _base64(hashlib.md5(BODY, usedforsecurity=False).digest())


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, {"content-md5": _MD5}),
        ({"sse": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:eu-north-1:1:key/k"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-north-1:1:key/k",
            },
        ),
        ({"sse": "aws:kms:dsse"}, {"x-amz-server-side-encryption": "aws:kms:dsse"}),
        ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}),
        ({"tags": "a=b&c=d%20e"}, {"x-amz-tagging": "a=b&c=d%20e"}),
        ({"acl": "bucket-owner-full-control"}, {"x-amz-acl": "bucket-owner-full-control"}),
        ({"create_only": True}, {"if-none-match": "*"}),
        ({"checksum": Checksum.CRC32}, {"x-amz-checksum-crc32": _base64(zlib.crc32(BODY).to_bytes(4, "big"))}),
        ({"checksum": Checksum.SHA256}, {"x-amz-checksum-sha256": _base64(hashlib.sha256(BODY).digest())}),
        ({"checksum": Checksum.NONE}, {}),
    ],
    ids=str,
)
async def test_each_option_is_its_header(
    open_faked: OpenStand, options: dict[str, Any], headers: Mapping[str, str]
) -> None:
    """What is asked for goes out with each object, and what is not asked for never does."""
    optional = ("x-amz-server-side", "x-amz-storage", "x-amz-tagging", "x-amz-acl", "x-amz-checksum", "x-amz-sdk")
    async with open_faked(**options) as stand:
        await stand.store.put("key", BODY, {"spillway-id": "id"})
        sent = stand.stored("key")[-1].headers
    expected = {"content-md5": _MD5, **headers} if "checksum" not in options else headers
    shown = {
        name: value
        for name, value in sent.items()
        if name.startswith(optional) or name in ("content-md5", "if-none-match", "expect")
    }
    assert shown == expected


@pytest.mark.parametrize("kind", [Checksum.CRC32, Checksum.SHA256])
async def test_an_answered_checksum_is_compared(open_faked: OpenStand, kind: Checksum) -> None:
    """Where the server answers the sum, another one is no success, and the right one needs no ETag beside it."""
    async with open_faked(checksum=kind) as stand:
        stand.faults.inject(Altered(f"x-amz-checksum-{kind}", kind.of(b"another")), times=1)
        with pytest.raises(TransientError, match="key") as caught:
            await stand.store.put("key", BODY, {})
        assert caught.value.reason == "checksum_mismatch"
        for fault in (WRONG_ETAG, NO_ETAG):
            stand.faults.inject(fault, times=1)
            await stand.store.put("key", BODY, {})
        stand.faults.inject(Altered(f"x-amz-checksum-{kind}", None), times=1)
        await stand.store.put("key", BODY, {})


@pytest.mark.parametrize("kind", Checksum)
async def test_a_success_without_any_word_of_s3_is_none(open_faked: OpenStand, kind: Checksum) -> None:
    """An error that says 200, and a proxy's 200 with neither ETag nor sum: never stored, whatever is to be compared."""
    async with open_faked(checksum=kind) as stand:
        if kind in (Checksum.MD5, Checksum.NONE):
            stand.faults.inject(NO_ETAG, key=lambda key: key == "other")
            with pytest.raises(TransientError, match="without an ETag"):
                await stand.store.put("other", BODY, {})
        stand.faults.inject(Answer(200, "hello", fields=(("p", "log in first"),)))
        with pytest.raises(TransientError):
            await stand.store.put("key", BODY, {})
        assert stand.stored("key") == []


async def test_an_md5_that_differs_says_what_to_set(open_faked: OpenStand) -> None:
    """A server whose ETags are no MD5s would refuse every put for ever: the message names both sums and the way out."""
    async with open_faked() as stand:
        stand.faults.inject(WRONG_ETAG)
        with pytest.raises(TransientError, match="S3_CHECKSUM=crc32") as caught:
            await stand.store.put("key", BODY, {})
        assert _MD5 in str(caught.value)
        assert "0" * 32 in str(caught.value)


@pytest.mark.parametrize("sse", ["aws:kms", "aws:kms:dsse"])
async def test_an_etag_under_kms_is_no_md5(open_faked: OpenStand, sse: str) -> None:
    """With a KMS key an ETag has the form of an MD5 and is none; the put is a success."""
    async with open_faked(sse=sse) as stand:
        await stand.store.put("key", BODY, {})
        assert stand.stored("key")[-1].body == BODY


@pytest.mark.parametrize(
    "options",
    [{"sse": "aws:kms"}, {"checksum": Checksum.CRC32}, {"checksum": Checksum.SHA256}, {"checksum": Checksum.NONE}],
    ids=str,
)
async def test_create_only_compares_bytes_whatever_the_sum(open_faked: OpenStand, options: dict[str, Any]) -> None:
    """Where no sum proves it, the object is read: same bytes are a success, others of the same size a conflict."""
    async with open_faked(create_only=True, **options) as stand:
        for _ in range(2):
            await stand.store.put("key", BODY, {})
        with pytest.raises(PoisonRecord, match="key"):
            await stand.store.put("key", b"ydob", {})
        assert [version.body for version in stand.stored("key")] == [BODY]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (INTERNAL_ERROR, TransientError),
        (Answer(404, "NoSuchKey"), TransientError),
        (Cut.RESET, TransientError),
        (ACCESS_DENIED, ConfigurationError),
        (Answer(400, "EntityTooLarge"), TransientError),
    ],
    ids=str,
)
@pytest.mark.parametrize("asked", ["HEAD", "GET"])
async def test_an_object_that_cannot_be_asked_is_no_conflict(
    open_faked: OpenStand, fault: Fault, kind: type[StoreError], asked: str
) -> None:
    """412, and then no answer: nobody knows whose bytes are there, so no record is called poison for it."""
    async with open_faked(create_only=True, sse="aws:kms") as stand:
        await stand.store.put("key", BODY, {})
        struck = stand.faults.inject(fault, method=asked)
        with pytest.raises(StoreError) as caught:
            await stand.store.put("key", BODY, {})
        assert not isinstance(caught.value, PoisonRecord)
        assert isinstance(caught.value, kind)
        struck.heal()
        await stand.store.put("key", BODY, {})


async def test_412_without_create_only_is_no_conflict(open_faked: OpenStand) -> None:
    """Nobody asked for it, so nothing is known: other bytes at the key are to be overwritten, and prove nothing."""
    async with open_faked() as stand:
        await stand.store.put("key", b"other bytes", {})
        struck = stand.faults.inject(Answer(412, "PreconditionFailed"))
        with pytest.raises(TransientError):
            await stand.store.put("key", BODY, {})
        struck.heal()
        await stand.store.put("key", BODY, {})
