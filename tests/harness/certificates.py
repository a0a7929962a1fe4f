"""Certificates of a test's own: authorities made on the spot, short lives, and files renewed as a cluster does it.

Owns the making of keys and certificates. Elliptic curves: an RSA key takes longer than the rest of a test's set-up.
"""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    @property
    def together(self) -> bytes:
        """As Kafka's PEM key store wants it: the key, then the certificate."""
        return self.key + self.certificate

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `name.crt` and `name.key`; the two paths."""
        paths = directory / f"{name}.crt", directory / f"{name}.key"
        for path, data in zip(paths, (self.certificate, self.key), strict=True):
            path.write_bytes(data)
        return paths


class Authority:
    """One CA, made anew with its key."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key.public_key(), 0.0, _DAY_S).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """Its own certificate, as PEM: what those who trust it are given."""
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        common_name: str,
        *,
        hosts: tuple[str, ...] = (),
        from_s: float = 0.0,
        life_s: float = _DAY_S,
        password: str | None = None,
    ) -> Pair:
        """A certificate for a server (with `hosts`, names or addresses) or a client, and its key.

        Args:
            common_name: of its subject.
            hosts: what it is for; none: a client's.
            from_s: when it begins, in seconds from now.
            life_s: how long it lives from then.
            password: of its key.

        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(subject, self._name, key.public_key(), from_s, life_s)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(password.encode()) if password else NoEncryption()
        )
        return Pair(
            certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, from_s: float, life_s: float
) -> x509.CertificateBuilder:
    begin = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=from_s)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - dt.timedelta(minutes=1))
        .not_valid_after(begin + dt.timedelta(seconds=life_s))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class ProjectedFolder:
    """Files as Kubernetes projects a Secret: links through `..data` to a folder that is swapped as one.

    Args:
        directory: made; the files appear in it.

    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._generation = 0
        directory.mkdir()

    def publish(self, files: dict[str, bytes]) -> None:
        """Put these contents in the place of those before, all at one instant."""
        self._generation += 1
        folder = self.directory / f"..{self._generation}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        fresh = self.directory / "..data_tmp"
        fresh.symlink_to(folder.name)
        fresh.rename(self.directory / "..data")
        for name in files:
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")

    def path(self, name: str) -> str:
        """Where a file is, whatever it holds now."""
        return str(self.directory / name)
