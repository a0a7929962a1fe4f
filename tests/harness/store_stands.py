"""The stores that one contract suite asks, each with its server. A new S3 client is one more line of CLIENTS."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.store import Store, aiobotocore, wire
from services.uploader.store.options import StoreOptions
from shared.telemetry import UploaderMetrics
from tests.fakes.script import Cut, Script, Version
from tests.fakes.scripted_store import ScriptedStore
from tests.harness.s3_client import Bucket

CLIENTS: Mapping[str, ModuleType] = {"aiobotocore": aiobotocore, "wire": wire}
"""Each with `open_store(options, restarts)`."""

FAKED = [f"{client}-fake" for client in CLIENTS]
BREAKABLE = [*FAKED, "scripted"]
STANDS = [*(f"{client}-moto" for client in CLIENTS), *BREAKABLE]


@dataclass(frozen=True, slots=True)
class Stand:
    """A store to put to, what was stored by it, and the script of its faults (None: this server never fails)."""

    store: Store
    stored: Callable[[str], list[Version]]
    script: Script | None
    refuse: Callable[[], None]

    @property
    def faults(self) -> Script:
        """The script, of a server that has one."""
        assert self.script is not None
        return self.script


class OpenStand(Protocol):
    """Opens a store with these options beside bucket and server (a scripted one knows only `create_only`)."""

    def __call__(self, **options: Any) -> contextlib.AbstractAsyncContextManager[Stand]: ...


def make_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str) -> OpenStand:
    """The stand of one name in STANDS."""
    if kind == "scripted":
        return _scripted
    client, _, server = kind.partition("-")
    if server == "fake":
        fake = request.getfixturevalue("fake_s3")
        shelf = fake.create_bucket("bucket")
        _set(monkeypatch, fake.environment())
        return _opener(
            CLIENTS[client],
            StoreOptions(bucket="bucket", endpoint_url=fake.endpoint_url, path_style=True),
            lambda key: list(shelf.versions().get(key, ())),
            fake.script,
            fake.refuse,
        )
    moto, name = request.getfixturevalue("s3"), request.getfixturevalue("bucket_name")
    bucket = Bucket(moto.client(), name)
    request.addfinalizer(bucket.close)
    bucket.create()
    _set(monkeypatch, moto.environment())
    options = StoreOptions(bucket=name, endpoint_url=moto.endpoint_url, path_style=True)
    return _opener(CLIENTS[client], options, lambda key: [bucket.get(key)], None, lambda: None)


def _set(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def _opener(
    client: ModuleType,
    options: StoreOptions,
    stored: Callable[[str], list[Version]],
    script: Script | None,
    refuse: Callable[[], None],
) -> OpenStand:
    @contextlib.asynccontextmanager
    async def opened(**more: Any) -> AsyncIterator[Stand]:
        restarts = UploaderMetrics(CollectorRegistry()).store_restarts
        async with client.open_store(replace(options, **more), restarts) as store:
            yield Stand(store, stored, script, refuse)

    return opened


@contextlib.asynccontextmanager
async def _scripted(**options: Any) -> AsyncIterator[Stand]:
    store = ScriptedStore(**options)

    def refuse() -> None:
        store.script.inject(Cut.RESET)

    yield Stand(store, lambda key: list(store.shelf.versions().get(key, ())), store.script, refuse)
