"""The wire client over TLS: whom it trusts, by which name, and what is renewed on disk."""

import asyncio
import ssl
from pathlib import Path

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from services.uploader.errors import ClientSetupError, StoreError, TransientError
from services.uploader.store import clients, renewal, wire
from services.uploader.store.options import StoreOptions
from services.uploader.store.renewing import RenewingStore
from shared.telemetry import UploaderMetrics
from tests.harness.certificates import Authority
from tests.harness.raw_s3 import RawS3, listening, refused, stored
from tests.harness.waiting import eventually

AUTHORITY, OTHER = Authority("ours"), Authority("another")
DAY_S = 24 * 3600.0


def _server(
    tmp_path: Path, authority: Authority = AUTHORITY, host: str = "localhost", life_s: float = DAY_S
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.issue("s3", hosts=(host,), from_s=-2 * DAY_S if life_s < 0 else 0, life_s=abs(life_s))
    context.load_cert_chain(*pair.write(tmp_path, "server"))
    return context


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"], autouse=True)
def loop_factory(request: pytest.FixtureRequest) -> object:
    """Both loops: the uploader runs on uvloop, whose transports are of another make."""
    return request.param


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of AWS_CA_BUNDLE; it holds our authority."""
    for name in ("HTTPS_PROXY", "https_proxy", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.certificate)
    for name, value in {
        "AWS_CA_BUNDLE": str(path),
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.0)
    return path


def store_at(server: RawS3, host: str = "localhost"):  # noqa: ANN201 - a context of a store
    options = StoreOptions(
        bucket="bucket", endpoint_url=f"https://{host}:{server.port}", path_style=True, connections_max=4
    )
    return wire.open_store(options, UploaderMetrics(CollectorRegistry()).store_restarts)


async def test_puts_over_tls(bundle: Path, tmp_path: Path) -> None:
    """Bytes arrive, large ones too, on one kept connection; the body's hash is not signed beside a checksum."""
    del bundle
    async with listening(context=_server(tmp_path)) as server, store_at(server) as store:
        for body in (b"", b"body", b"x" * 3_000_000):
            await store.put("key", body, {})
        assert [len(body) for _, body in server.requests] == [0, 4, 3_000_000]
        assert all(b"UNSIGNED-PAYLOAD" in head for head, _ in server.requests)
        assert server.connections == 1


@pytest.mark.parametrize(("status", "said"), [(403, "AccessDenied"), (200, "before it had the whole request")])
async def test_an_answer_before_the_body_ends_the_put(bundle: Path, tmp_path: Path, status: int, said: str) -> None:
    """As without TLS, whose transports do not tell what waits behind them: no success, no next put on it."""
    del bundle
    body = b"x" * 8 * 1024 * 1024
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stored(body) if status == 200 else refused(status, "AccessDenied"))
        await writer.drain()
        await closed.wait()

    async with listening(handle, _server(tmp_path)) as server, store_at(server) as store:
        with pytest.raises(StoreError, match=said):
            await store.put("key", body, {})
        closed.set()
        await eventually(lambda: server.open == 0, "the connection to be closed")
        assert server.connections == 1


@pytest.mark.parametrize("wrong", ["authority", "name", "expired", "plain"])
async def test_a_wrong_certificate_gets_no_byte(
    wrong: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another authority's, another host's, an expired one, no TLS at all: a person's to mend, and nothing was sent."""
    del bundle
    monkeypatch.setattr(clients, "CONNECT_TIMEOUT_S", 0.5)  # of which "plain" takes all
    context = {
        "authority": lambda: _server(tmp_path, OTHER),
        "name": lambda: _server(tmp_path, host="elsewhere.test"),
        "expired": lambda: _server(tmp_path, life_s=-DAY_S),
        "plain": lambda: None,
    }[wrong]()
    async with listening(context=context) as server, store_at(server) as store:
        with pytest.raises(StoreError) as caught:
            await store.put("key", b"body", {})
        if wrong == "plain":  # it waits for a request that never comes whole, or answers no TLS
            assert isinstance(caught.value, ClientSetupError | TransientError)
        else:
            assert isinstance(caught.value, ClientSetupError)
            assert caught.value.reason == "tls"
            assert "AWS_CA_BUNDLE" in str(caught.value)
        assert server.requests == []


async def _stored_at_last(store: RenewingStore) -> None:
    """Put until it is stored, refused for its certificate until then."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.put("key", b"body", {})
            except ClientSetupError as error:
                assert error.reason == "tls"  # noqa: PT017 - the only one on the way
                await asyncio.sleep(0.01)
            else:
                return


def _write(path: Path, content: bytes | None) -> None:
    """Write the file; None: take it away."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


async def test_a_renewed_bundle_is_read_without_a_restart(bundle: Path, tmp_path: Path) -> None:
    """The server's authority changes, then the file does: a client made anew reads it."""
    _write(bundle, OTHER.certificate)
    async with listening(context=_server(tmp_path)) as server, store_at(server) as store:
        for _ in range(3):
            with pytest.raises(ClientSetupError):
                await store.put("key", b"body", {})
        _write(bundle, AUTHORITY.certificate)
        await _stored_at_last(store)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_a_bundle_that_cannot_be_read_is_waited_for(content: bytes | None, bundle: Path, tmp_path: Path) -> None:
    """Absent or half written at the start: puts say so, and the next client reads it."""
    _write(bundle, content)
    async with listening(context=_server(tmp_path)) as server, store_at(server) as store:
        with pytest.raises(ClientSetupError, match=r"ca\.pem") as caught:
            await store.put("key", b"body", {})
        assert caught.value.reason == "tls"
        _write(bundle, AUTHORITY.certificate)
        await _stored_at_last(store)


async def test_the_bundle_of_the_profile_counts(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ca_bundle` of AWS's file, as botocore reads it."""
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {bundle}\n")
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with listening(context=_server(tmp_path)) as server, store_at(server) as store:
        await store.put("key", b"body", {})
