"""What every test may ask for: a broker, topics of its own, an S3 server, processes that are ended for it.

Owns the choice of the broker and the lifetime of everything that is shared. A failed test's report carries the ends of
the logs of its processes. A coroutine test runs on an event loop of its own.
"""

import asyncio
import contextlib
import inspect
import itertools
import os
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.fakes.s3 import FakeS3
from tests.harness.broker import Broker, Topic
from tests.harness.engines import GIVEN, Source, source
from tests.harness.processes import Processes

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka
    from deploy.local.s3 import EmbeddedS3

hypothesis.settings.register_profile("spillway", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("spillway")

_PROCESSES = pytest.StashKey[Processes]()
_SOURCE = pytest.StashKey[Source]()

MakeTopic = Callable[..., Topic]


def pytest_report_header(config: pytest.Config) -> str:
    """Say which broker this run uses."""
    chosen = config.stash.setdefault(_SOURCE, source())
    shown = {
        Source.GIVEN: f"{os.environ.get(GIVEN)} ({GIVEN})",
        Source.CONTAINER: "testcontainers (a Docker engine answers)",
        Source.EMBEDDED: f"embedded (no {GIVEN}, no Docker engine)",
    }[chosen]
    return f"kafka: {shown}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the embedded broker's jars before the first test: a slow network is no test's time-out."""
    embedded = session.config.stash.setdefault(_SOURCE, source()) is Source.EMBEDDED
    wanted = {"own_kafka", "cluster", "secure_broker", "own_secure_broker"}
    wanted |= {"kafka", "make_topic"} if embedded else set()
    if any(wanted & set(getattr(item, "fixturenames", ())) for item in session.items):
        from deploy.local.jars import kafka_jars  # noqa: PLC0415 - unit tests start without the stack

        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        kafka_jars(terminal.write_line if terminal is not None else lambda _: None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; every other one is left to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    # `loop_factory` is a fixture of files that run their tests on more than one kind of loop.
    with asyncio.Runner(loop_factory=pyfuncitem.funcargs.get("loop_factory")) as runner:
        runner.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the logs of a failed test's processes."""
    report = yield
    processes = item.stash.get(_PROCESSES, None)
    if report.failed and processes is not None:
        report.sections += processes.report()
    return report


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker that all tests share; take `make_topic` for what happens on it."""
    match pytestconfig.stash.setdefault(_SOURCE, source()):
        case Source.GIVEN:
            yield Broker(os.environ[GIVEN], "given")
        case Source.CONTAINER:
            with _container() as bootstrap_servers:
                yield Broker(bootstrap_servers, "container")
        case Source.EMBEDDED:
            from deploy.local.kafka import EmbeddedKafka  # noqa: PLC0415 - unit tests start without the stack

            embedded = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
            embedded.start()
            try:
                yield Broker(embedded.bootstrap_servers, "embedded")
            finally:
                embedded.stop()


@contextlib.contextmanager
def _container() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own deprecations are not our tests' to fail on
        from tests.harness.kafka_container import kafka_container  # noqa: PLC0415 - slow, only where an engine answers

        container = kafka_container()
    try:
        yield container.bootstrap_servers
    finally:
        container.stop()


@pytest.fixture(scope="session")
def _own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator["EmbeddedKafka"]:
    from deploy.local.kafka import EmbeddedKafka  # noqa: PLC0415 - as above

    broker = EmbeddedKafka(tmp_path_factory.mktemp("own-kafka"))
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def own_kafka(_own_kafka: "EmbeddedKafka") -> Iterator["EmbeddedKafka"]:
    """An embedded broker that a test may stop, kill and freeze; whole again before the next test gets it."""
    _own_kafka.start()
    yield _own_kafka
    _own_kafka.stop()


@pytest.fixture
def make_topic(request: pytest.FixtureRequest) -> MakeTopic:
    """Make a topic with its dead-letter topic and group, new names each time, on the shared broker or a given one."""

    def make(partitions: int = 4, bootstrap_servers: str | None = None) -> Topic:
        where = bootstrap_servers or request.getfixturevalue("kafka").bootstrap_servers
        topic = Topic(where, f"t-{uuid.uuid4().hex[:12]}", partitions)
        topic.create()
        return topic

    return make


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    """Starts children for the test and ends each of them by its id."""
    children = Processes(tmp_path)
    request.node.stash[_PROCESSES] = children
    yield children
    children.end_all()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator["EmbeddedS3"]:
    """The embedded stack's S3 server, shared; take a bucket of `bucket_name`."""
    from deploy.local.s3 import EmbeddedS3  # noqa: PLC0415 - as above

    server = EmbeddedS3(tmp_path_factory.mktemp("s3"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


_bucket_numbers = itertools.count()


@pytest.fixture
def bucket_name() -> str:
    """A bucket name that no other test has. Nobody has made the bucket yet."""
    return f"bucket-{os.getpid()}-{next(_bucket_numbers)}"


@pytest.fixture
def fake_s3() -> Iterator[FakeS3]:
    """An S3 server of this test's own, that breaks by script."""
    with FakeS3() as server:
        yield server
