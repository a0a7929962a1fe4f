"""The whole path on the embedded stack's own S3 server, undisturbed: what a client sends is what anyone reads back."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.harness.broker import Topic
from tests.harness.load import envelope, payloads, post_at_once
from tests.harness.oracle import Answers, judge, missing
from tests.harness.processes import Processes
from tests.harness.s3_client import Bucket
from tests.harness.tiers import start_ingest, start_uploader
from tests.harness.waiting import until

if TYPE_CHECKING:
    from deploy.local.s3 import EmbeddedS3

# Issue 4's list: a parser that re-serialises changes each of them.
FAITHFUL = [
    b'{"n":1e400}',
    b'{"n":123456789012345678901234567890.10}',
    b'{"a":1,"a":2}',
    b"[ 1 ,\t2 ]",
    '"é\\u2028"'.encode(),
    b"null",
    b"-0.0",
]


@pytest.fixture
def bucket(s3: "EmbeddedS3", bucket_name: str) -> Iterator[Bucket]:
    """An empty bucket of the embedded S3 server."""
    made = Bucket(s3.client(), bucket_name)
    made.create()
    yield made
    made.close()


def test_what_is_posted_is_what_is_stored(
    make_topic: Callable[..., Topic], s3: "EmbeddedS3", bucket: Bucket, processes: Processes
) -> None:
    """Each payload becomes one object: byte for byte, under a key that the default template gives, as octets."""
    topic = make_topic()
    ingest = start_ingest(processes, topic)
    uploaders = [start_uploader(processes, topic, s3.environment(), bucket.name) for _ in range(2)]
    for tier in (ingest, *uploaders):
        tier.wait_ready()
    answers = Answers()
    post_at_once(ingest.collections_url, [FAITHFUL, *(payloads(20) for _ in range(5))], answers)
    assert dict(answers.statuses) == {200: 6}

    def stored() -> bool:
        return missing(answers, dict.fromkeys(bucket.names(), ())) == 0

    until(stored, "objects of all payloads", deadline_s=30, every_s=0.3)
    until(lambda: topic.lag() == 0, "the group's lag to be 0", deadline_s=10, every_s=0.3)
    objects = {key: written for key, written in bucket.versions().items() if not key.startswith(".spillway/")}
    verdict = judge(answers, objects)
    assert not verdict.faults, str(verdict)
    assert verdict.stored == 107, str(verdict)
    for key, (version,) in objects.items():
        folder, shard, date, hour, record_id = key.split("/")
        assert (folder, version.content_type) == ("payloads", "application/octet-stream")
        assert len(shard.removeprefix("shard=")) == 1
        assert date.startswith("dt=20")
        assert len(hour.removeprefix("hour=")) == 2
        assert record_id in answers.accepted


def test_the_same_settings_find_an_empty_topic_quiet(
    make_topic: Callable[..., Topic], s3: "EmbeddedS3", bucket: Bucket, processes: Processes
) -> None:
    """With nothing to store, an uploader gets ready, stores nothing, and leaves with 0 on SIGTERM; so does ingest."""
    topic = make_topic()
    tiers = [start_ingest(processes, topic), start_uploader(processes, topic, s3.environment(), bucket.name)]
    for tier in tiers:
        tier.wait_ready()
    assert [tier.process.terminate(deadline_s=20) for tier in tiers] == [0, 0]
    stored = [key for key in bucket.names() if not key.startswith(".spillway/")]
    assert stored == []


def test_a_payload_may_be_as_large_as_a_record(
    make_topic: Callable[..., Topic], s3: "EmbeddedS3", bucket: Bucket, processes: Processes
) -> None:
    """A payload just below the topic's limit passes both tiers whole; one above it is a 413, and nothing is written."""
    topic = make_topic(partitions=1)
    ingest = start_ingest(processes, topic)
    uploader = start_uploader(processes, topic, s3.environment(), bucket.name)
    for tier in (ingest, uploader):
        tier.wait_ready()
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(1, size=1_000_000)], answers)
    post_at_once(ingest.collections_url, [payloads(1, size=1_048_588)], answers)
    assert dict(answers.statuses) == {200: 1, 413: 1}
    until(lambda: topic.lag() == 0, "the group's lag to be 0", deadline_s=20, every_s=0.3)
    objects = {key: written for key, written in bucket.versions().items() if not key.startswith(".spillway/")}
    verdict = judge(answers, objects)
    assert not verdict.faults, str(verdict)
    assert verdict.stored == 1


def test_no_client_of_ours_is_needed(make_topic: Callable[..., Topic], processes: Processes) -> None:
    """A plain POST with a JSON body, by the standard library, is answered 200."""
    ingest = start_ingest(processes, make_topic())
    ingest.wait_ready()
    host, port = ingest.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/collections", envelope([b'{"n":1}']), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        assert json.loads(body)["accepted"] == 1
