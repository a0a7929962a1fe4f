"""What the fault tests share: a pipeline on the shared broker, how long a fault lasts, which S3 client is under test.

A test's time limit raises in the test: the default one ends the process, and teardown with it.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.fakes.s3 import FakeS3
from tests.fakes.s3_adversary import Adversary
from tests.harness.adverse import Adverse
from tests.harness.broker import Topic
from tests.harness.durations import SHORT, SWITCH, Durations, chosen
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes

S3_CLIENTS = ["aiobotocore", "wire"]
"""Values of S3_CLIENT that the S3 faults are run over, one after the other."""

ONE_CLIENT_IN_SHORT = {"test_s3_refuses.py": "aiobotocore", "test_s3_refuses_one.py": "aiobotocore"}
"""Files that the short form runs on this client alone: they are of what the uploader makes of an error, and the store's
contract suite has both clients raise the same ones. `test_wire_*` run on the wire client alone there: what the library
under the other one does changes with its version only."""


def pytest_report_header() -> str:
    """Say which form this run has."""
    return f"faults: {chosen().form} form (the long one: {SWITCH}=long)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every fault test its limit; in the short form, leave out what the other client proves as well."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(chosen().test_limit_s, method="signal"))
    if chosen() is SHORT:
        left_out = [item for item in items if here in item.path.parents and _only_in_the_long_form(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _only_in_the_long_form(item: pytest.Item) -> bool:
    name = item.path.name
    alone = ONE_CLIENT_IN_SHORT.get(name, "wire" if name.startswith("test_wire_") else "")
    client = item.callspec.params.get("s3_client", alone) if hasattr(item, "callspec") else alone
    return bool(alone) and client != alone


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on the event loop of the uploader, which ends connections otherwise than asyncio's."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    uvloop.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def durations() -> Durations:
    """How long faults last in this run."""
    return chosen()


@pytest.fixture
def pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3) -> Pipeline:
    """Nothing runs yet but the broker and the S3 server; the topic has 4 partitions."""
    return Pipeline(processes, make_topic(), fake_s3)


@pytest.fixture(params=S3_CLIENTS)
def s3_client(request: pytest.FixtureRequest) -> str:
    """The S3 client under test, as S3_CLIENT names it."""
    client: str = request.param
    return client


@pytest.fixture
def s3_pipeline(make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3, s3_client: str) -> Pipeline:
    """`pipeline` for what S3 does wrong: once for each S3 client."""
    return Pipeline(processes, make_topic(), fake_s3, s3_client)


@pytest.fixture
def adversary() -> Iterator[Adversary]:
    """An S3 server on one address that speaks HTTP wrongly when told so."""
    with Adversary() as server:
        yield server


@pytest.fixture
def adverse_on(s3_client: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Adversary], Adverse]:
    """Stores on an adversary that the test makes, once for each S3 client."""
    return lambda server: Adverse(s3_client, server, monkeypatch)


@pytest.fixture
def adverse(adverse_on: Callable[[Adversary], Adverse], adversary: Adversary) -> Adverse:
    """Stores on `adversary`, once for each S3 client."""
    return adverse_on(adversary)


@pytest.fixture
def wire(adversary: Adversary, monkeypatch: pytest.MonkeyPatch) -> Adverse:
    """Stores of the client `wire` alone: for what the libraries under the other one do otherwise."""
    return Adverse("wire", adversary, monkeypatch)
