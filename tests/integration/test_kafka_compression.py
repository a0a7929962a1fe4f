"""Batches packed with every codec: what a client sends is still, byte for byte, what is stored."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.harness.broker import Topic
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers, judge, missing
from tests.harness.processes import Processes
from tests.harness.s3_client import Bucket
from tests.harness.tiers import get, start_ingest, start_uploader
from tests.harness.waiting import until

if TYPE_CHECKING:
    from deploy.local.s3 import EmbeddedS3

CODECS = ("none", "gzip", "lz4", "snappy", "zstd")
BODY_BYTES = 2000  # of one letter, so that each codec makes less than half of it


def _batch_bytes(ops_url: str) -> float:
    """What ingest's batches took on their way to Kafka, all together."""
    _, text = get(f"{ops_url}/metrics")
    (line,) = (line for line in text.splitlines() if line.startswith("spillway_ingest_batch_bytes_sum"))
    return float(line.split()[-1])


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_changes_nothing_but_the_batch(
    codec: str,
    make_topic: Callable[..., Topic],
    s3: "EmbeddedS3",
    bucket_name: str,
    processes: Processes,
) -> None:
    """KAFKA_COMPRESSION packs what goes to Kafka; the uploader reads every codec, with no setting of its own."""
    bucket = Bucket(s3.client(), bucket_name)
    bucket.create()
    processes.at_end(bucket.close)
    topic = make_topic(1)
    ingest = start_ingest(processes, topic, {"KAFKA_COMPRESSION": codec})
    uploader = start_uploader(processes, topic, s3.environment(), bucket.name)
    for tier in (ingest, uploader):
        tier.wait_ready()
    answers = Answers()
    bodies = payloads(40, size=BODY_BYTES)
    post_at_once(ingest.collections_url, [bodies], answers)
    assert dict(answers.statuses) == {200: 1}
    packed = _batch_bytes(ingest.ops_url) < sum(map(len, bodies)) / 2
    assert packed == (codec != "none")
    until(
        lambda: missing(answers, dict.fromkeys(bucket.names(), ())) == 0,
        "objects of all payloads",
        deadline_s=30,
        every_s=0.3,
    )
    objects = {key: written for key, written in bucket.versions().items() if not key.startswith(".spillway/")}
    verdict = judge(answers, objects)
    assert not verdict.faults, str(verdict)
    assert verdict.stored == len(bodies), str(verdict)
