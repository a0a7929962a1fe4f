"""Promises of the embedded servers: real ones, that start, stop, hang, die and start again where they were."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import pytest

from deploy.local.jars import kafka_jars
from deploy.local.kafka import EmbeddedKafka
from deploy.local.process import StartError
from deploy.local.s3 import EmbeddedS3
from tests.harness.broker import Topic


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    kafka_jars()
    broker = EmbeddedKafka(tmp_path_factory.mktemp("a folder ü"))  # a path that needs escaping in a properties file
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[EmbeddedS3]:
    server = EmbeddedS3(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_the_broker_keeps_port_and_topics_over_a_stop_and_a_kill(kafka: EmbeddedKafka) -> None:
    """Stopped in order or killed, the broker starts again at the same address with the same data."""
    address = kafka.bootstrap_servers
    topic = Topic(address, "kept", partitions=2)
    topic.create()
    with pytest.raises(Exception, match="exists"):
        topic.create()
    for end in (kafka.stop, kafka.kill):
        end()
        assert not kafka.process.running
        kafka.start()
        assert kafka.bootstrap_servers == address
        with pytest.raises(Exception, match="exists"):
            topic.create()


def test_a_frozen_broker_answers_nothing_until_thawed(kafka: EmbeddedKafka) -> None:
    """Frozen, the broker takes connections and says nothing; thawed, it serves."""
    kafka.freeze()
    try:
        with pytest.raises(TimeoutError):
            kafka._serves()
    finally:
        kafka.thaw()
    kafka.process.wait_ready(kafka._serves, 20)


def test_a_broker_with_a_bad_setting_shows_its_own_words(tmp_path: Path) -> None:
    """A broker that refuses its configuration ends the start with its own message, not with a time-out."""
    kafka_jars()
    broker = EmbeddedKafka(tmp_path, properties={"num.io.threads": "minus one"})
    with pytest.raises(StartError, match=r"minus one for configuration num\.io\.threads"):
        broker.start()
    assert list(tmp_path.glob("*.pid")) == []


def test_s3_keeps_the_exact_bytes_and_forgets_all_at_a_stop(s3: EmbeddedS3) -> None:
    """An object is what was put; after a restart the server is at the same address and empty, as documented."""
    url = s3.endpoint_url
    s3.create_bucket("bucket")
    body = b'{"n":1e400}\x00\xff' * 1000
    client = s3.client()
    try:
        for n in range(3):  # over one kept-alive connection; botocore sends Expect: 100-continue
            client.put_object(Bucket="bucket", Key=f"folder/k{n}", Body=body, Metadata={"offset": str(n)})
        client.put_object(Bucket="bucket", Key="folder/empty", Body=b"")
        head = client.head_object(Bucket="bucket", Key="folder/k1")
        assert (head["ContentLength"], head["Metadata"]) == (len(body), {"offset": "1"})
        client.delete_object(Bucket="bucket", Key="folder/k2")
        with pytest.raises(botocore.exceptions.ClientError, match="Not Found"):
            client.head_object(Bucket="bucket", Key="folder/k2")
    finally:
        client.close()
    assert s3.read("bucket", "folder/k1") == body
    assert [(one.key, one.size_bytes) for one in s3.objects("bucket")] == [
        ("folder/empty", 0),
        ("folder/k0", len(body)),
        ("folder/k1", len(body)),
    ]
    s3.stop()
    s3.start()
    assert s3.endpoint_url == url
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchBucket"):
        s3.objects("bucket")


def test_s3_lives_on_after_a_freeze_and_starts_after_a_kill(s3: EmbeddedS3) -> None:
    """A hang loses nothing; a kill loses the objects but not the address."""
    s3.create_bucket("bucket")
    s3.freeze()
    s3.thaw()
    assert s3.objects("bucket") == []
    s3.kill()
    s3.start()
    s3.create_bucket("bucket")


def test_the_environment_serves_any_client(s3: EmbeddedS3, tmp_path: Path) -> None:
    """With the variables alone, no argument, AWS's own library reaches the server."""
    code = "import botocore.session as s; print(s.Session().create_client('s3').list_buckets()['Buckets'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", **s3.environment()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
