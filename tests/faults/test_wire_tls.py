"""TLS goes wrong on the way to S3, inside one process: nobody else is given a payload, and what is renewed is used."""

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.uploader.errors import ClientSetupError, StoreError, TransientError
from services.uploader.store import Store, renewal
from tests.fakes.s3_acts import Then, stores, unanswered
from tests.fakes.s3_adversary import Adversary, Wire
from tests.harness.adverse import Adverse
from tests.harness.certificates import Authority, Pair
from tests.harness.names import Names
from tests.harness.tls_site import HOST, Site

_HOUR_S = 3600.0

MakeAdverse = Callable[[Adversary], Adverse]

WRONG: dict[str, Callable[[Authority], Pair]] = {
    "of another host": lambda authority: authority.issue("s3", hosts=("127.0.0.2", "s3.test")),
    "of no host": lambda authority: authority.issue(HOST),
    "expired": lambda authority: authority.issue("s3", hosts=(HOST,), from_s=-2 * _HOUR_S, life_s=_HOUR_S),
    "of tomorrow": lambda authority: authority.issue("s3", hosts=(HOST,), from_s=_HOUR_S),
    "of an unknown authority": lambda _: Authority("a stranger").issue("s3", hosts=(HOST,)),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """All is well with it at first, and AWS_CA_BUNDLE names its authority."""
    found = Site(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", found.bundle)
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.2)
    return found


@pytest.fixture
def server(site: Site) -> Iterator[Adversary]:
    """On TLS."""
    with Adversary(HOST, tls=site.context) as found:
        yield found


@pytest.fixture
def secure(adverse_on: MakeAdverse, server: Adversary) -> Adverse:
    """Stores on it."""
    return adverse_on(server)


async def _refused(secure: Adverse, store: Store) -> StoreError:
    """A put that fails before the server has seen anything of it."""
    with pytest.raises(StoreError) as caught:
        await secure.put(store, "refused")
    assert secure.server.keys == []
    return caught.value


async def test_one_handshake_serves_many_puts(secure: Adverse) -> None:
    """A kept connection is used again over TLS, too."""
    async with secure.open() as store:
        for number in range(5):
            await secure.put(store, f"key-{number}", b"body" * 10_000)
    assert sum(secure.server.accepted.values()) == 1


@pytest.mark.parametrize("which", WRONG)
async def test_a_wrong_certificate_is_refused(secure: Adverse, site: Site, which: str) -> None:
    """No byte of a request goes to a server that does not prove its name; it goes once that is mended."""
    site.present(WRONG[which](site.authority))
    async with secure.open() as store:
        error = await _refused(secure, store)
        assert (type(error), error.reason) == (ClientSetupError, "tls")
        site.present(site.authority.issue("s3", hosts=(HOST,)))
        assert {error.reason for error in await secure.stored_at_last(store, "key")} <= {"tls"}


@pytest.mark.parametrize(
    ("hosts", "taken"), [(("eu.s3.test",), True), (("*.s3.test",), True), ((HOST,), False), (("*.eu.s3.test",), False)]
)
async def test_the_name_is_checked_and_not_its_address(
    secure: Adverse, site: Site, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], taken: bool
) -> None:
    """The endpoint's name is what the certificate must be for, and what the server is asked for (SNI)."""
    Names(monkeypatch).addresses["eu.s3.test"] = [HOST]
    site.present(site.authority.issue("s3", hosts=hosts))
    asked: list[str | None] = []

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        asked.append(name)

    site.context.sni_callback = note
    async with secure.open(secure.server.url("eu.s3.test")) as store:
        if taken:
            await secure.put(store, "key")
        else:
            assert (await _refused(secure, store)).reason == "tls"
    assert set(asked) == {"eu.s3.test"}


async def test_a_renewed_certificate_is_no_error(secure: Adverse, site: Site) -> None:
    """The server's certificate is renewed by the same authority: further connections are made to it as before."""
    async with secure.open() as store:
        await secure.put(store, "before")
        site.present(site.authority.issue("s3", hosts=(HOST,)))
        secure.server.reset_all()
        await secure.put(store, "after")
    assert sum(secure.server.accepted.values()) == 2


async def test_a_replaced_bundle_is_read(secure: Adverse, site: Site) -> None:
    """Another authority takes over, on the server and in the file of AWS_CA_BUNDLE: used without a restart."""
    successor = Authority("its successor")
    async with secure.open() as store:
        await secure.put(store, "before")
        site.present(successor.issue("s3", hosts=(HOST,)))
        secure.server.reset_all()
        with pytest.raises(ClientSetupError) as caught:
            await secure.put(store, "unlucky")
        assert caught.value.reason == "tls"
        site.trust(successor)
        errors = await secure.stored_at_last(store, "after")
        assert {(type(error), error.reason) for error in errors} <= {(ClientSetupError, "tls")}


async def test_a_bundle_that_is_not_there_is_waited_for(
    secure: Adverse, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that is mounted late is named in the error, and read once it is there."""
    late = tmp_path / "late.crt"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(late))
    async with secure.open() as store:
        error = await _refused(secure, store)
        assert (type(error), error.reason) == (ClientSetupError, "tls")
        late.write_bytes(site.authority.certificate)
        await secure.stored_at_last(store, "key")


async def test_the_bundle_of_the_config_file(
    secure: Adverse, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ca_bundle` of AWS's own file is what AWS_CA_BUNDLE is."""
    config = tmp_path / "config"
    config.write_text(f"[default]\nca_bundle = {site.bundle}\n")
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    async with secure.open() as store:
        await secure.put(store, "key")


async def test_without_a_bundle_a_private_authority_is_nobody(secure: Adverse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust is never turned off by leaving a variable out."""
    monkeypatch.delenv("AWS_CA_BUNDLE")
    async with secure.open() as store:
        assert (await _refused(secure, store)).reason == "tls"


@pytest.mark.parametrize("then", [Then.CLOSE, Then.CUT, Then.RESET])
async def test_closed_while_idle(secure: Adverse, then: Then) -> None:
    """With close_notify or without: an idle connection that ends is no error."""
    secure.server.then(*[stores(then=then)] * 5)
    async with secure.open() as store:
        for number in range(6):
            await secure.put(store, f"key-{number}")
            assert len(secure.server.bodies(f"key-{number}")) == 1


@pytest.mark.parametrize("then", [Then.CLOSE, Then.CUT, Then.RESET])
async def test_closed_in_the_moment_of_the_next_put(secure: Adverse, then: Then) -> None:
    """Sent again at once on a fresh connection, which begins with a handshake."""
    async with secure.open() as store:
        await secure.put(store, "before")
        secure.server.then(unanswered(then))
        await secure.put(store, "key")
    assert secure.server.keys.count("key") == 2


async def test_plain_text_on_a_tls_port(adverse: Adverse) -> None:
    """An `https` endpoint on a server of plain HTTP is a wrong setting, and is told as one."""

    async def plain(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    adverse.server.on_accept.extend([plain] * 2)
    async with adverse.open(adverse.server.url(HOST).replace("http:", "https:")) as store:
        with pytest.raises(ClientSetupError) as caught:
            await adverse.put(store, "key")
        assert caught.value.reason == "tls"


async def test_plain_text_to_a_tls_port(secure: Adverse) -> None:
    """An `http` endpoint on a server of TLS is an end of the connection, no more can be told."""
    async with secure.open(secure.server.url(HOST).replace("https:", "http:")) as store:
        error = await _refused(secure, store)
        assert (type(error), error.reason) == (TransientError, "connection")


async def test_a_handshake_without_an_answer_ends(adverse: Adverse) -> None:
    """A server that takes the connection and says nothing: the deadline of connecting has the handshake in it."""
    adverse.connect_timeout(0.5)
    async with adverse.open(adverse.server.url(HOST).replace("http:", "https:")) as store:
        with pytest.raises(TransientError) as caught:
            await adverse.put(store, "key")
        assert caught.value.reason == "timeout"


async def test_a_handshake_that_is_cut_is_transient(adverse: Adverse) -> None:
    """A load balancer that drops connections is weather."""

    async def cut(wire: Wire) -> None:
        wire.reset()

    adverse.server.on_accept.extend([cut] * 2)
    async with adverse.open(adverse.server.url(HOST).replace("http:", "https:")) as store:
        with pytest.raises(TransientError) as caught:
            await adverse.put(store, "key")
        assert caught.value.reason == "connection"


async def test_an_address_that_never_shakes_hands_is_passed_over(
    server: Adversary, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two addresses takes connections, and says nothing: no put fails, and not each new one waits for it."""
    secure = Adverse("wire", server, monkeypatch)
    Names(monkeypatch).addresses["s3.test"] = ["127.0.0.9", HOST]
    site.present(site.authority.issue("s3", hosts=("s3.test",)))
    secure.server.always = stores(then=Then.CLOSE)
    with socket.create_server(("127.0.0.9", secure.server.port)):
        async with secure.open(secure.server.url("s3.test")) as store, asyncio.timeout(15):
            for number in range(12):
                await secure.put(store, f"key-{number}")


async def test_handshakes_that_are_cut_close_nothing_of_others(wire: Adverse) -> None:
    """What closes a socket twice closes, the second time, whatever has its number by then: a connection to Kafka, say.

    uvloop 0.23 does so with some of these where it is given a socket (MagicStack/uvloop issues 645 and 738).
    """
    others = []

    async def cut(connection: Wire) -> None:
        connection.reset()

    wire.server.on_accept.extend([cut] * 100)
    async with wire.open(wire.server.url(HOST).replace("http:", "https:")) as store:
        for _ in range(100):
            with pytest.raises(TransientError):
                await wire.put(store, "key")
            others.append(os.open(os.devnull, os.O_RDONLY))  # has the number that was free last
    gc.collect()
    for number in others:
        os.close(number)  # an OSError if it was closed already
