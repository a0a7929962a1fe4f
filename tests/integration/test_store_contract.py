"""One contract, every store: the S3 client over moto and over the fake that the fault tests break, and the fake that
unit tests use. What a test above a store relies on is what the real one does, or it is not here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.errors import ConfigurationError, TransientError
from services.uploader.store import Store, aiobotocore
from services.uploader.store.options import StoreOptions
from shared.telemetry import UploaderMetrics
from tests.fakes.script import ACCESS_DENIED, INTERNAL_ERROR, NO_SUCH_BUCKET, SLOW_DOWN, Answer, Cut, Script, Version
from tests.fakes.scripted_store import ScriptedStore
from tests.harness.s3_client import Bucket

ODD_KEYS = [
    "payloads/shard=a/dt=2026-01-02/hour=03/0198c0de-0000-7000-8000-000000000000-0",
    "a",
    "a.b_c-d=e/f..g/-",
    "with space/and+plus/(parens)/'quote'/!*",
    "x" * 1024,
]


@dataclass(frozen=True, slots=True)
class Stand:
    """A store to put to, what was stored by it, and the script of its faults (None: this server never fails)."""

    store: Store
    stored: Callable[[str], list[Version]]
    script: Script | None
    refuse: Callable[[], None]

    @property
    def faults(self) -> Script:
        """The script; a test on a server without one is skipped by `breakable`."""
        assert self.script is not None
        return self.script


OpenStand = Callable[[], contextlib.AbstractAsyncContextManager[Stand]]


@pytest.fixture(params=["aiobotocore-moto", "aiobotocore-fake", "scripted"])
def open_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenStand:
    """Each store with its server."""
    return _stand(request, monkeypatch, request.param)


@pytest.fixture(params=["aiobotocore-fake", "scripted"])
def open_breakable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenStand:
    """Each store whose server breaks by script."""
    return _stand(request, monkeypatch, request.param)


def _stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str) -> OpenStand:
    if kind == "scripted":
        return _scripted
    if kind == "aiobotocore-fake":
        fake = request.getfixturevalue("fake_s3")
        shelf = fake.create_bucket("bucket")
        _set(monkeypatch, fake.environment())
        return lambda: _aiobotocore(
            fake.endpoint_url, "bucket", lambda key: list(shelf.versions().get(key, ())), fake.script, fake.refuse
        )
    server, name = request.getfixturevalue("s3"), request.getfixturevalue("bucket_name")
    bucket = Bucket(server.client(), name)
    request.addfinalizer(bucket.close)
    bucket.create()
    _set(monkeypatch, server.environment())
    return lambda: _aiobotocore(server.endpoint_url, name, lambda key: [bucket.get(key)], None, lambda: None)


def _set(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@contextlib.asynccontextmanager
async def _aiobotocore(
    endpoint_url: str,
    bucket: str,
    stored: Callable[[str], list[Version]],
    script: Script | None,
    refuse: Callable[[], None],
) -> AsyncIterator[Stand]:
    options = StoreOptions(bucket=bucket, endpoint_url=endpoint_url, path_style=True)
    async with aiobotocore.open_store(options, UploaderMetrics(CollectorRegistry()).store_restarts) as store:
        yield Stand(store, stored, script, refuse)


@contextlib.asynccontextmanager
async def _scripted() -> AsyncIterator[Stand]:
    store = ScriptedStore()

    def refuse() -> None:
        store.script.inject(Cut.RESET)

    yield Stand(store, lambda key: list(store.shelf.versions().get(key, ())), store.script, refuse)


@pytest.mark.parametrize("body", [b"", b"\x00\xff\r\n", b'{"n":1e400}', bytes(range(256)) * 4096], ids=len)
async def test_bytes_metadata_and_type_are_kept(open_stand: OpenStand, body: bytes) -> None:
    """An object is exactly the bytes put, with the metadata put, as octets."""
    metadata = {"spillway-id": "an-id-0", "topic": "payloads", "partition": "3", "offset": "42"}
    async with open_stand() as stand:
        await stand.store.put("folder/key", body, metadata)
        found = stand.stored("folder/key")[-1]
    assert found.body == body
    assert found.metadata == metadata
    assert found.content_type == "application/octet-stream"


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: key[:20])
async def test_a_key_is_taken_as_it_is(open_stand: OpenStand, key: str) -> None:
    """No client normalises, escapes twice or cuts a key."""
    async with open_stand() as stand:
        await stand.store.put(key, b"at " + key.encode(), {})
        assert stand.stored(key)[-1].body == b"at " + key.encode()


async def test_the_same_body_again_is_harmless(open_stand: OpenStand) -> None:
    """A redelivery overwrites a key with itself."""
    async with open_stand() as stand:
        for offset in ("1", "2"):
            await stand.store.put("key", b"same", {"offset": offset})
        assert {version.body for version in stand.stored("key")} == {b"same"}
        assert stand.stored("key")[-1].metadata == {"offset": "2"}


async def test_many_puts_at_once_do_not_mix(open_stand: OpenStand) -> None:
    """One store serves all partitions of a process."""
    keys = [f"many/{number}" for number in range(64)]
    async with open_stand() as stand:
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(stand.store.put(key, key.encode() * 100, {"spillway-id": key}))
        assert all(stand.stored(key)[-1].body == key.encode() * 100 for key in keys)
        assert all(stand.stored(key)[-1].metadata == {"spillway-id": key} for key in keys)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SLOW_DOWN, "slow_down"),
        (INTERNAL_ERROR, None),
        (Answer(502, "BadGateway"), None),
        (Answer(503, "ServiceUnavailable"), None),
        (Answer(409, "OperationAborted"), None),
        (Answer(400, "SomethingNobodyHasHeardOf"), None),
    ],
    ids=str,
)
async def test_what_passes_by_itself_is_transient(
    open_breakable: OpenStand, answer: Answer, reason: str | None
) -> None:
    """Shed load, server errors and anything unknown are tried again, but never inside the store: a put is a request."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(answer)
        with pytest.raises(TransientError) as caught:
            await stand.store.put("key", b"body", {})
        assert reason is None or caught.value.reason == reason
        assert struck.hits == 1
        assert stand.stored("key") == []
        struck.heal()
        await stand.store.put("key", b"body", {})
        assert stand.stored("key")[-1].body == b"body"


@pytest.mark.parametrize(("answer"), [ACCESS_DENIED, NO_SUCH_BUCKET], ids=str)
async def test_what_a_person_must_mend_is_a_configuration_error(open_breakable: OpenStand, answer: Answer) -> None:
    """Permissions and buckets are told apart from weather: readiness must say why, and no record may be blamed."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(answer)
        with pytest.raises(ConfigurationError) as caught:
            await stand.store.put("key", b"body", {})
        assert caught.value.reason
        assert struck.hits == 1


@pytest.mark.parametrize("cut", [Cut.RESET, Cut.STORE_THEN_DROP, Cut.TRUNCATE])
async def test_a_lost_connection_is_transient(open_breakable: OpenStand, cut: Cut) -> None:
    """Whether the object was kept is unknown, so the same put is due again, and does no harm.

    aiohttp itself tries an idempotent request once more on a fresh connection, because a kept one may have been closed
    while idle (its `retry_persistent_connection`; no public switch). Twice is thus the most that one put may ask.
    """
    async with open_breakable() as stand:
        struck = stand.faults.inject(cut)
        with pytest.raises(TransientError):
            await stand.store.put("key", b"body", {})
        assert struck.hits <= 2
        assert len(stand.stored("key")) == (0 if cut is Cut.RESET else struck.hits)
        struck.heal()
        await stand.store.put("key", b"body", {})
        assert {version.body for version in stand.stored("key")} == {b"body"}


async def test_a_refused_connection_is_transient(open_breakable: OpenStand) -> None:
    """A server that is away comes back."""
    async with open_breakable() as stand:
        stand.refuse()
        with pytest.raises(TransientError):
            await stand.store.put("key", b"body", {})


async def test_silence_ends_as_a_transient_error(open_breakable: OpenStand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a request and never answers holds a put for the read time-out, not for ever."""
    assert aiobotocore.READ_TIMEOUT_S == 10  # DESIGN §5
    monkeypatch.setattr(aiobotocore, "READ_TIMEOUT_S", 0.5)
    async with open_breakable() as stand:
        stand.faults.inject(Cut.HANG)
        with pytest.raises(TransientError) as caught:
            await asyncio.wait_for(stand.store.put("key", b"body", {}), 5)
        assert caught.value.reason == "timeout"


async def test_a_cancelled_put_is_cancelled(open_breakable: OpenStand) -> None:
    """A revoke cancels puts; they end at once, as cancelled, and the store serves on."""
    async with open_breakable() as stand:
        hang = stand.faults.inject(Cut.HANG)
        put = asyncio.create_task(stand.store.put("key", b"body", {}))
        await asyncio.to_thread(hang.hit.wait, 5)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        hang.heal()
        await stand.store.put("other", b"body", {})
        assert stand.stored("other")
