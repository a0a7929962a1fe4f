"""The secure broker that the tests of TLS and SASL share, a way through it from end to end; the product's own loop."""

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.harness import acls
from tests.harness.broker import Topic
from tests.harness.processes import Processes
from tests.harness.s3_client import Bucket
from tests.harness.secure_broker import SecureBroker
from tests.harness.secured import Secured

if TYPE_CHECKING:
    from deploy.local.s3 import EmbeddedS3

MakeSecured = Callable[..., Secured]


@pytest.fixture
def loop_factory() -> object:
    """The loop that the product runs on. Its transports are of another make: a write to a closed one is an error."""
    return uvloop.new_event_loop


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """One broker with a listener for each way to be secure. Nobody may do anything on it that is not granted."""
    broker = SecureBroker(tmp_path_factory.mktemp("secure-kafka"))
    broker.kafka.start()
    try:
        yield broker
    finally:
        broker.kafka.stop()


@pytest.fixture
def make_secured(s3: "EmbeddedS3", bucket_name: str, processes: Processes) -> Iterator[MakeSecured]:
    """Make a topic and a bucket, grant what the tiers need, and give the way through them on a secure broker."""
    bucket = Bucket(s3.client(), bucket_name)
    bucket.create()

    def make(broker: SecureBroker, *, partitions: int = 2) -> Secured:
        topic = Topic(broker.plain, f"t-{uuid.uuid4().hex[:12]}", partitions)
        topic.create()
        acls.allow(broker.plain, *acls.needed(topic))
        return Secured(broker, topic, bucket, s3.environment(), processes)

    yield make
    bucket.close()


@pytest.fixture
def own_secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A secure broker of the test's own, to be stopped and given other certificates. Not started yet."""
    broker = SecureBroker(tmp_path_factory.mktemp("own-secure-kafka"))
    try:
        yield broker
    finally:
        broker.kafka.stop()
