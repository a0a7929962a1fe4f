"""What the fault tests share: a pipeline on the shared broker, and a time limit that leaves teardown its work."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Topic
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes

TIME_LIMIT_S = 150


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every fault test a limit that raises in the test: the default one ends the process, and teardown with it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT_S, method="signal"))


@pytest.fixture
def pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs yet but the broker and the S3 server; the topic has 4 partitions."""
    return Pipeline(processes, make_topic(), fake_s3)
