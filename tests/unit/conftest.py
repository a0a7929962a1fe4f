"""What the unit tests of the wire client share: they ask for it by name."""

import pytest
import uvloop


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> object:
    """Both loops: the uploader runs on uvloop, whose transports are of another make."""
    return request.param


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity and a region, and no proxy."""
    for name in ("HTTP_PROXY", "http_proxy", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
