"""The S3 server that the fault tests break is itself true to S3 where they lean on it."""

import base64
import zlib
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.fakes.s3 import FakeS3
from tests.fakes.script import EXPIRED_TOKEN, NO_ETAG, SLOW_DOWN, WRONG_ETAG, Answer
from tests.harness.s3_client import Bucket


@pytest.fixture
def client(fake_s3: FakeS3) -> Iterator[Any]:
    """Botocore's own client of the fake, without retries."""
    made = botocore.session.Session().create_client(
        "s3",
        endpoint_url=fake_s3.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",  # noqa: S106 - the fake checks none
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
        ),
    )
    yield made
    made.close()


def test_a_listing_has_pages_and_every_key_once(fake_s3: FakeS3, client: Any) -> None:
    """What an oracle lists is all that is there, odd characters and all."""
    shelf = fake_s3.create_bucket("bucket")
    keys = sorted([f"folder/{number:04}" for number in range(2500)] + ["folder/é &<+ %41"])
    for key in keys:
        shelf.store(key, b"x", {}, "application/octet-stream")
    shelf.store("other", b"x", {}, "application/octet-stream")
    assert Bucket(client, "bucket").names() == sorted([*keys, "other"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="folder/")
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys


def test_every_version_is_kept_in_order(fake_s3: FakeS3, client: Any) -> None:
    """An overwrite hides nothing from the oracle."""
    client.create_bucket(Bucket="bucket")
    for body in (b"one", b"two", b"one"):
        client.put_object(Bucket="bucket", Key="key", Body=body, Metadata={"n": "1"})
    shelf = fake_s3.create_bucket("bucket")
    assert [version.body for version in shelf.versions()["key"]] == [b"one", b"two", b"one"]
    assert Bucket(client, "bucket").get("key").metadata == {"n": "1"}


def test_stored_is_told_before_the_answer(fake_s3: FakeS3, client: Any) -> None:
    """The place to kill an uploader lies between its object and its knowing of it."""
    fake_s3.create_bucket("bucket")
    told: list[tuple[str, int]] = []
    fake_s3.on_stored = lambda key, writes: told.append((key, writes))
    for number in range(3):
        client.put_object(Bucket="bucket", Key=f"key-{number}", Body=b"")
        assert len(told) == number + 1


def test_a_fault_strikes_as_often_and_where_the_script_says(fake_s3: FakeS3, client: Any) -> None:
    """Two strikes on one key, none on another, none after."""
    fake_s3.create_bucket("bucket")
    shed = fake_s3.script.inject(SLOW_DOWN, times=2, key=lambda key: key == "a")
    client.put_object(Bucket="bucket", Key="b", Body=b"")
    for _ in range(2):
        with pytest.raises(ClientError, match="SlowDown"):
            client.put_object(Bucket="bucket", Key="a", Body=b"")
    client.put_object(Bucket="bucket", Key="a", Body=b"")
    assert shed.hits == 2


def test_it_refuses_and_listens_again_on_its_port(fake_s3: FakeS3, client: Any) -> None:
    """An S3 that is away comes back where it was, with what it had."""
    fake_s3.create_bucket("bucket")
    client.put_object(Bucket="bucket", Key="key", Body=b"kept")
    fake_s3.refuse()
    with pytest.raises(EndpointConnectionError):
        client.put_object(Bucket="bucket", Key="other", Body=b"")
    fake_s3.listen()
    assert Bucket(client, "bucket").get("key").body == b"kept"


def test_errors_of_its_own_are_those_of_s3(fake_s3: FakeS3, client: Any) -> None:
    """No bucket, no key, and bytes that are not what was signed are refused."""
    with pytest.raises(ClientError, match="NoSuchBucket"):
        client.put_object(Bucket="nowhere", Key="key", Body=b"")
    fake_s3.create_bucket("bucket")
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket="bucket", Key="key")
    client.meta.events.register("before-send.s3.PutObject", _tampered)
    with pytest.raises(ClientError, match="XAmzContentSHA256Mismatch"):
        client.put_object(Bucket="bucket", Key="key", Body=b"signed")


def _tampered(request: Any, **_: Any) -> None:
    request.body = b"forged"


def test_a_token_expires_for_those_who_still_sign_with_it(fake_s3: FakeS3, client: Any) -> None:
    """A fault may meet one access key, and nobody else."""
    fake_s3.create_bucket("bucket")
    expired = fake_s3.script.inject(EXPIRED_TOKEN, credential="a")
    other = fake_s3.script.inject(EXPIRED_TOKEN, credential="another")
    with pytest.raises(ClientError, match="ExpiredToken"):
        client.put_object(Bucket="bucket", Key="key", Body=b"")
    expired.heal()
    client.put_object(Bucket="bucket", Key="key", Body=b"")
    assert (expired.hits, other.hits) == (1, 0)


def test_an_answer_may_lie_about_what_was_stored(fake_s3: FakeS3, client: Any) -> None:
    """A wrong ETag, and none at all; the object is whole either way."""
    shelf = fake_s3.create_bucket("bucket")
    fake_s3.script.inject(WRONG_ETAG, times=1)
    fake_s3.script.inject(NO_ETAG, times=1)
    assert client.put_object(Bucket="bucket", Key="key", Body=b"body")["ETag"] == f'"{"0" * 32}"'
    assert "ETag" not in client.put_object(Bucket="bucket", Key="key", Body=b"body")
    assert [version.body for version in shelf.versions()["key"]] == [b"body"] * 2


def test_checksums_and_conditions_are_held(fake_s3: FakeS3, client: Any) -> None:
    """A hash of another body is refused, and so is a create-only write over an object; a good sum is answered."""
    shelf = fake_s3.create_bucket("bucket")
    put = {"Bucket": "bucket", "Key": "key", "Body": b"body"}
    for wrong in ({"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, {"ChecksumCRC32": "AAAAAA=="}):
        with pytest.raises(ClientError, match="BadDigest"):
            client.put_object(**put, **wrong)
    crc32 = base64.b64encode(zlib.crc32(b"body").to_bytes(4, "big")).decode()
    answer = client.put_object(**put, ChecksumCRC32=crc32, ServerSideEncryption="aws:kms", IfNoneMatch="*")
    assert (answer["ChecksumCRC32"], answer["ServerSideEncryption"]) == (crc32, "aws:kms")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(**put, IfNoneMatch="*")
    assert shelf.versions()["key"][0].headers["x-amz-server-side-encryption"] == "aws:kms"
    assert len(shelf.versions()["key"]) == 1


def test_an_error_carries_its_headers_and_fields(fake_s3: FakeS3, client: Any) -> None:
    """As S3 names the right region, in both places."""
    fake_s3.create_bucket("bucket")
    fake_s3.script.inject(
        Answer(
            400, "AuthorizationHeaderMalformed", (("x-amz-bucket-region", "eu-north-1"),), (("Region", "eu-north-1"),)
        )
    )
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="bucket", Key="key", Body=b"")
    assert caught.value.response["Error"]["Region"] == "eu-north-1"
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "eu-north-1"
