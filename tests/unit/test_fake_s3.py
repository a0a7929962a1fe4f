"""The S3 server that the fault tests break is itself true to S3 where they lean on it."""

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN
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
