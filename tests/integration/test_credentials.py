"""Credentials of the whole chain: whichever source, what is renewed outside is used without a restart."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.errors import ClientSetupError, ConfigurationError
from services.uploader.store import Store, renewal
from services.uploader.store.options import StoreOptions
from shared.telemetry import UploaderMetrics
from tests.fakes.credential_sources import CredentialServer, Source
from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, EXPIRED_TOKEN, Answer, Shelf
from tests.harness.store_stands import CLIENTS

ASKED = ["web-identity", "pod", "instance"]
KINDS = ["environment", "profile", *ASKED]


class Bench:
    """A store on a fake S3, with credentials of one source."""

    def __init__(self, client: ModuleType, fake: FakeS3, source: Source) -> None:
        self.registry = CollectorRegistry()
        self.metrics = UploaderMetrics(self.registry)
        self.fake = fake
        self.source = source
        self.shelf: Shelf = fake.create_bucket("bucket")
        self._client = client

    def open(self):  # noqa: ANN201 - a context of a store
        options = StoreOptions(bucket="bucket", endpoint_url=self.fake.endpoint_url, path_style=True)
        return self._client.open_store(options, self.metrics.store_restarts)

    def restarts(self, reason: str) -> float:
        return self.registry.get_sample_value("spillway_uploader_store_restarts_total", {"reason": reason}) or 0

    def signed_with(self, key: str) -> str:
        found = self.shelf.current(key)
        return "" if found is None else found.headers["authorization"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each source of the chain."""
    return str(request.param)


@pytest.fixture(params=CLIENTS)
def bench(
    request: pytest.FixtureRequest, kind: str, fake_s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """The source hands out the key OLD; this process has its variables and no others of AWS."""
    with CredentialServer() as server:
        source = Source(kind, server, tmp_path)
        source.renew("OLD")
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in source.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.2)
        yield Bench(CLIENTS[request.param], fake_s3, source)


async def stored_at_last(store: Store, key: str, *, deadline_s: float = 20) -> list[ConfigurationError]:
    """Put as the uploader does, again and again, until it is stored; the errors on the way.

    Any other error than one of the environment ends the test: it is neither weather nor the record's fault.
    """
    errors: list[ConfigurationError] = []
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                await store.put(key, b"body", {})
            except ConfigurationError as error:
                errors.append(error)
                await asyncio.sleep(0.05)
            else:
                return errors


@pytest.mark.parametrize(
    "refusal", [EXPIRED_TOKEN, Answer(403, "InvalidAccessKeyId"), ACCESS_DENIED], ids=lambda answer: answer.code
)
async def test_what_is_renewed_outside_is_picked_up(bench: Bench, refusal: Answer) -> None:
    """A key that S3 no longer takes is replaced by the source's new one, in the process; the reason is counted."""
    async with bench.open() as store:
        await store.put("before", b"body", {})
        assert "Credential=OLD/" in bench.signed_with("before")
        bench.fake.script.inject(refusal, credential="OLD")
        with pytest.raises(ClientSetupError):
            await store.put("after", b"body", {})
        bench.source.renew("NEW")
        errors = await stored_at_last(store, "after")
        assert {type(error) for error in errors} == {ClientSetupError}
        assert "Credential=NEW/" in bench.signed_with("after")
        assert bench.restarts(errors[0].reason) >= 1


async def test_an_outage_of_credentials_lasts_as_long_as_it_lasts(bench: Bench) -> None:
    """Clients that are made anew in vain, many times, are followed by one that works."""
    async with bench.open() as store:
        bench.fake.script.inject(EXPIRED_TOKEN, credential="OLD")
        async with asyncio.timeout(20):
            while bench.restarts("expired_token") < 3:
                with pytest.raises(ClientSetupError):
                    await store.put("key", b"body", {})
                await asyncio.sleep(0.02)
        bench.source.renew("NEW")
        await stored_at_last(store, "key")
        assert "Credential=NEW/" in bench.signed_with("key")


@pytest.mark.parametrize("kind", ["web-identity", "pod"], indirect=True)
async def test_what_expires_is_refreshed_before_it_is_refused(bench: Bench) -> None:
    """Credentials near their end are fetched again by the client itself: S3 refuses nothing, no client is made anew."""
    bench.source.server.lifetime_s = 60  # the client refreshes 10 minutes before
    async with bench.open() as store:
        await store.put("before", b"body", {})
        bench.source.renew("NEW")
        await store.put("after", b"body", {})
        assert "Credential=NEW/" in bench.signed_with("after")
        assert bench.restarts("expired_token") + bench.restarts("credentials") == 0


@pytest.mark.parametrize("kind", ASKED, indirect=True)
async def test_a_start_without_credentials_waits_for_them(bench: Bench) -> None:
    """A source that is not there yet is no reason to stop: puts say what is missing, and go through when it comes."""
    bench.source.take_away()
    async with bench.open() as store:
        with pytest.raises(ConfigurationError) as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "credentials"
        bench.source.bring_back("NEW")
        await stored_at_last(store, "key")
        assert "Credential=NEW/" in bench.signed_with("key")


@pytest.mark.parametrize("kind", ["profile"], indirect=True)
async def test_a_profile_that_nobody_wrote_stops_the_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE names what is in no file: a typing error, and no waiting mends it."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody") as caught:
        async with bench.open():
            pass
    assert caught.value.reason == "client"


@pytest.mark.parametrize("kind", ["environment"], indirect=True)
async def test_no_credentials_at_all_are_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the whole chain: said so, and picked up when something comes."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with bench.open() as store:
        with pytest.raises(ClientSetupError) as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "credentials"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
        await stored_at_last(store, "key")


@pytest.mark.parametrize("kind", ["profile"], indirect=True)
async def test_a_file_half_written_keeps_the_client_that_works(bench: Bench, tmp_path: Path) -> None:
    """A renewal that reads nonsense leaves the old client in its place, and a later one reads what is whole."""
    async with bench.open() as store:
        bench.fake.script.inject(EXPIRED_TOKEN, credential="OLD", for_s=2)
        (tmp_path / "profile-secret").write_text("[wri", "utf-8")
        await stored_at_last(store, "key")  # OLD is taken again
        assert "Credential=OLD/" in bench.signed_with("key")
        bench.fake.script.inject(EXPIRED_TOKEN, credential="OLD")
        bench.source.renew("NEW")
        await stored_at_last(store, "key")
        assert "Credential=NEW/" in bench.signed_with("key")
