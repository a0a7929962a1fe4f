"""The TLS context that looks at its files, in handshakes in memory."""

import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.certificates import CertificateFiles, RenewedContext
from tests.harness.certificates import Authority, ProjectedFolder


class Server:
    """The other end: has a certificate of one authority, and wants one of another."""

    def __init__(self, directory: Path, authority: Authority, clients: Authority) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue("server", hosts=("server.test",)).write(directory, "server"))
        self._context.load_verify_locations(cadata=clients.certificate.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED

    def meets(self, client: ssl.SSLContext) -> str:
        """Shake hands; the common name of the client.

        Raises:
            ssl.SSLError: one of them refuses the other.

        """
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        there = client.wrap_bio(to_client, to_server, server_hostname="server.test")
        here = self._context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for end in (there, here):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        shown = here.getpeercert()
        assert shown is not None
        subject: tuple[tuple[tuple[str, str], ...], ...] = shown["subject"]  # type: ignore[assignment]
        return subject[0][0][1]


@pytest.fixture
def authority() -> Authority:
    """Of both ends, to begin with."""
    return Authority("first")


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> ProjectedFolder:
    """The client's files."""
    made = ProjectedFolder(tmp_path / "client")
    made.publish(_files(authority, "one"))
    return made


def _files(authority: Authority, name: str) -> dict[str, bytes]:
    pair = authority.issue(name)
    return {"ca": authority.certificate, "crt": pair.certificate, "key": pair.key}


def _context(folder: ProjectedFolder) -> RenewedContext:
    return RenewedContext(CertificateFiles(folder.path("ca"), folder.path("crt"), folder.path("key"), None))


def test_what_the_files_hold_now(tmp_path: Path, authority: Authority, folder: ProjectedFolder) -> None:
    """Swapped through a link, and written over in place."""
    server, context = Server(tmp_path, authority, authority), _context(folder)
    assert server.meets(context) == "one"
    folder.publish(_files(authority, "two"))
    assert server.meets(context) == "two"
    for name, data in _files(authority, "three").items():
        Path(folder.path(name)).write_bytes(data)
    assert server.meets(context) == "three"


def test_an_authority_that_was_taken_out_is_forgotten(
    tmp_path: Path, authority: Authority, folder: ProjectedFolder
) -> None:
    """A context alone would trust it until the end of the process."""
    server, context, renewed = Server(tmp_path, authority, authority), _context(folder), Authority("second")
    assert server.meets(context) == "one"
    folder.publish({**_files(authority, "one"), "ca": renewed.certificate})
    with pytest.raises(ssl.SSLCertVerificationError):
        server.meets(context)
    assert Server(tmp_path, renewed, authority).meets(context) == "one"


def _half(folder: ProjectedFolder) -> None:
    path = Path(folder.path("crt"))
    path.write_bytes(path.read_bytes()[:100])


def _foreign_key(folder: ProjectedFolder) -> None:
    Path(folder.path("key")).write_bytes(Authority("x").issue("x").key)


def _gone(folder: ProjectedFolder) -> None:
    Path(folder.path("ca")).unlink()


@pytest.mark.parametrize("fault", [_half, _foreign_key, _gone])
def test_what_cannot_be_used_changes_nothing(
    tmp_path: Path,
    authority: Authority,
    folder: ProjectedFolder,
    fault: Callable[[ProjectedFolder], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Said once, however many connections there are; and the next good files are taken."""
    server, context = Server(tmp_path, authority, authority), _context(folder)
    fault(folder)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert server.meets(context) == "one"
        folder.publish(_files(authority, "two"))
        assert server.meets(context) == "two"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "KAFKA_SSL_" in vars(caplog.records[0])["cause"]


def test_a_start_with_what_cannot_be_used(tmp_path: Path, authority: Authority, folder: ProjectedFolder) -> None:
    """The variable is named; a password is used, and its absence asks nobody on the terminal."""
    _foreign_key(folder)
    with pytest.raises(ValueError, match=r"^KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: "):
        _context(folder)
    _gone(folder)
    with pytest.raises(ValueError, match=r"^KAFKA_SSL_CAFILE: No such file"):
        _context(folder)
    (tmp_path / "ca").write_bytes(authority.certificate)
    locked = authority.issue("locked", password="open sesame")  # noqa: S106 - a test's
    paths = [str(path) for path in locked.write(tmp_path, "locked")]
    files = [str(tmp_path / "ca"), *paths]
    server = Server(tmp_path, authority, authority)
    assert server.meets(RenewedContext(CertificateFiles(*files, SecretStr("open sesame")))) == "locked"
    for password in (None, SecretStr("wrong")):
        with pytest.raises(ValueError, match=r"^KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: "):
            RenewedContext(CertificateFiles(*files, password))


def test_wrapped_without_a_look_it_trusts_nobody(folder: ProjectedFolder) -> None:
    """Whoever goes around `wrap_bio` gets the empty shell, which fails closed."""
    assert _context(folder).get_ca_certs() == []
    assert _context(folder).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("password", [None, SecretStr("another")])
def test_a_keys_password_that_does_not_fit_is_named(tmp_path: Path, password: SecretStr | None) -> None:
    """OpenSSL says "PEM lib" and no more; the variable to look at is the password's."""
    authority = Authority("ca")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate)
    pair = authority.issue("user", password="right")  # noqa: S106
    certificate, key = pair.write(tmp_path, "user")
    with pytest.raises(ValueError, match="KAFKA_SSL_KEY_PASSWORD") as refused:
        RenewedContext(CertificateFiles(str(ca), str(certificate), str(key), password))
    assert "another" not in str(refused.value).replace(str(tmp_path), "")
